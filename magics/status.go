package magics

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"outlast/training"
)

// Status returns %status: the table of a run's models.
func Status(d *Deps) *Magic {
	m := &Magic{
		Name:  "status",
		Verb:  "status",
		Args:  "[RUN]",
		Short: "Show a run's models with state, step, loss and time left",
		Line:  true,
		Looks: true,
	}
	m.Bind = func(fs *pflag.FlagSet) func(context.Context, *Call) error {
		dir := d.dirFlag(fs)
		all := fs.Bool("all", false, fmt.Sprintf("show every model, even of more than %d", maxRows))
		asJSON := fs.Bool("json", false, "print one JSON object")
		return func(ctx context.Context, c *Call) error {
			run, err := d.oneRun(m, c, *dir)
			if err != nil {
				return err
			}
			status, err := run.Status()
			if err != nil {
				return err
			}
			object := statusObject(status)
			if err := c.result(object); err != nil {
				return err
			}
			if *asJSON {
				return writeJSON(c, object)
			}
			r := d.reporter(run, c)
			r.all, r.gpus = *all, d.glimpse(ctx, run)
			c.Screen.Show(r.report(status).view())
			return nil
		}
	}
	return m
}

// A statusJSON is what 'outlast status --json' prints. Programs rely on its
// fields: all of them are always there and keep their type. What is not known is
// 0 or empty; a time, an estimate or a checkpoint that is not there is null.
type statusJSON struct {
	Run           string            `json:"run"`
	State         training.RunState `json:"state"`
	Store         string            `json:"store"`
	SupervisorPID int               `json:"supervisor_pid"`
	Started       *time.Time        `json:"started"`
	ETASeconds    *float64          `json:"eta_seconds"`
	Models        []modelJSON       `json:"models"`
}

type modelJSON struct {
	Name       string                     `json:"name"`
	State      training.ModelState        `json:"state"`
	Step       int64                      `json:"step"`
	TotalSteps int64                      `json:"total_steps"`
	Attempts   int                        `json:"attempts"`
	BatchSize  int                        `json:"batch_size"`
	GradAccum  int                        `json:"grad_accum"`
	WorkerPID  int                        `json:"worker_pid"`
	Checkpoint *training.CheckpointStatus `json:"checkpoint"`
	Metrics    map[string]any             `json:"metrics"`
	Cause      training.Cause             `json:"cause"`
	Error      string                     `json:"error"`
}

func statusObject(s training.Status) statusJSON {
	object := statusJSON{
		Run: s.Run, State: s.State, Store: s.Store, SupervisorPID: s.SupervisorPID,
		Started: s.Started, ETASeconds: s.ETASeconds, Models: []modelJSON{},
	}
	for _, m := range s.Models {
		one := modelJSON{
			Name: m.Name, State: m.State, Step: m.Step, TotalSteps: m.TotalSteps, Attempts: m.Attempts,
			BatchSize: m.BatchSize, GradAccum: m.GradAccum, WorkerPID: m.WorkerPID, Checkpoint: m.Checkpoint,
			Metrics: m.Metrics, Cause: m.Cause, Error: m.Error,
		}
		if one.Metrics == nil {
			one.Metrics = map[string]any{}
		}
		object.Models = append(object.Models, one)
	}
	return object
}

func writeJSON(c *Call, v any) error {
	enc := json.NewEncoder(c.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// result gives Python the value of the call, if Python called.
func (c *Call) result(v any) error {
	if c.Result == nil {
		return nil
	}
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	c.Result(data)
	return nil
}
