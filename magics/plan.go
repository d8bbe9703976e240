package magics

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"outlast/checkpoint"
	"outlast/gpu"
	"outlast/training"
)

// auto is the value of a flag that leaves the choice to us.
const auto = "auto"

// plan puts together what one %train is to do, from the cell or command line.
func (o *trainOptions) plan(ctx context.Context, c *Call) (*training.Plan, error) {
	name, err := optional(o.magic, c)
	if err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.here, err = o.deps.place(ctx, c.Notebook); err != nil {
		return nil, err
	}
	plan := &training.Plan{Run: name, Dir: o.here.dir}
	if isFile(name, ".yaml", ".yml", ".json") {
		if plan, err = training.ReadPlan(o.here.path(name)); err != nil {
			return nil, err
		}
	}
	if plan.Run == "" {
		plan.Run = o.deps.RunName
	}
	if err := o.code(c, plan); err != nil {
		return nil, err
	}
	if err := o.list(ctx, c, plan); err != nil {
		return nil, err
	}
	o.chooseStore(ctx, plan)
	plan.Python = o.here.python
	if o.python != "" {
		if plan.Python, err = o.here.interpreter(o.python); err != nil {
			return nil, err
		}
	}
	return plan, o.settings(plan)
}

// chooseStore sets where copies go: as this call says, as the plan file says, as
// the run has it already, or as usual here.
func (o *trainOptions) chooseStore(ctx context.Context, plan *training.Plan) {
	switch {
	case o.store == noStore:
		plan.Store = ""
	case o.flags.Changed("store"):
		plan.Store = o.here.store(o.store)
	case plan.Store == "":
		if run, err := training.Find(*o.dir, plan.Run); err == nil {
			plan.Store = run.Plan().Store
			return
		}
		plan.Store = o.deps.defaultStore(ctx)
	}
}

// code sets the plan's code from the cell's body, --script, or the command
// after --: exactly one of them, or the plan file's own.
func (o *trainOptions) code(c *Call, plan *training.Plan) error {
	body := strings.TrimSpace(c.Body) != ""
	given := 0
	for _, yes := range []bool{body, o.script != "", len(c.Dash) > 0, plan.Code.Kind != ""} {
		if yes {
			given++
		}
	}
	switch {
	case given > 1:
		return &UsageError{o.magic, "give the code once: in the cell, by --script, after --, or in the plan file"}
	case body:
		plan.Code = training.Code{Kind: training.CodeCell, Name: "cell.py", Source: c.Body, Shared: o.deps.Session.Shared()}
	case o.script != "":
		path := o.here.path(o.script)
		source, err := os.ReadFile(path)
		if err != nil {
			return &Problem{"read the script", err, "give --script the path of a Python file, as seen from " + o.here.dir}
		}
		plan.Code = training.Code{Kind: training.CodeScript, Name: path, Source: string(source)}
	case len(c.Dash) > 0:
		plan.Code = training.Code{Kind: training.CodeCommand, Command: c.Dash}
	case given == 0:
		return &UsageError{o.magic, "it needs the code that trains one model: below %%train in the cell, --script FILE, -- COMMAND, or a plan file"}
	}
	return nil
}

// list sets the plan's models from --models, or to one model with the run's
// name.
func (o *trainOptions) list(ctx context.Context, c *Call, plan *training.Plan) error {
	if o.models == "" {
		if len(plan.Models) == 0 {
			plan.Models = []training.Model{{Name: plan.Run}}
		}
		return nil
	}
	data, name, err := o.modelData(ctx, c)
	if err != nil {
		return err
	}
	models, err := training.ParseModels(data, name)
	if err != nil {
		return err
	}
	plan.Models = models
	return nil
}

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$`)

// modelData returns what --models stands for, as YAML or JSON, and what to call
// it in an error.
func (o *trainOptions) modelData(ctx context.Context, c *Call) ([]byte, string, error) {
	if isFile(o.models, ".yaml", ".yml", ".json") {
		data, err := os.ReadFile(o.here.path(o.models))
		if err != nil {
			return nil, "", &Problem{"read the list of models", err, "give --models a file that is there, as seen from " + o.here.dir}
		}
		return data, o.models, nil
	}
	if c.Notebook != nil && variable.MatchString(o.models) {
		raw, err := c.Notebook.Eval(ctx, o.models)
		if err != nil {
			return nil, "", &Problem{
				What: "read the variable " + o.models,
				Err:  err,
				Hint: "define it in a cell above as a list of names or of dicts with a name. A single model by that name is written " + o.models + ", with a comma",
			}
		}
		return raw, "variable " + o.models, nil
	}
	names := []string{}
	for name := range strings.SplitSeq(o.models, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	data, err := json.Marshal(names)
	return data, "--models", err
}

// check finds numbers that no run can have.
func (o *trainOptions) check() error {
	if o.keep < 1 || o.retries < 0 || o.effectiveBatch < 0 {
		return &UsageError{o.magic, "--keep is at least 1, --retries and --effective-batch are not negative"}
	}
	if !(o.maxHours >= 0) || math.IsInf(o.maxHours, 0) || o.hangAfter < 0 { // not a number is neither
		return &UsageError{o.magic, "--max-hours and --hang-after are not negative; 0 is no limit"}
	}
	return nil
}

// settings copies the flags that are not the GPU's business. A flag that was
// not given leaves what the plan file says.
func (o *trainOptions) settings(plan *training.Plan) error {
	s := &plan.Settings
	every, err := training.ParseEvery(o.checkpointEvery)
	if err != nil {
		return &UsageError{o.magic, err.Error()}
	}
	if o.flags.Changed("checkpoint-every") || s.CheckpointEvery == (training.Every{}) {
		s.CheckpointEvery = every
	}
	if o.flags.Changed("parallel") || s.Parallel == 0 {
		if s.Parallel, err = training.ParseParallel(o.parallel); err != nil {
			return &UsageError{o.magic, "--parallel: " + err.Error()}
		}
	}
	best, err := checkpoint.ParseBest(o.keepBest)
	if err != nil {
		return &UsageError{o.magic, "--keep-best: " + err.Error()}
	}
	s.Keep, s.KeepBest, s.Retries, s.Seed = o.keep, best.String(), o.retries, o.seed
	s.MaxHours, s.HangAfter = o.maxHours, o.hangAfter.Seconds()
	return nil
}

// tune lets the GPU choose what may follow it: device, precision and how each
// optimizer step is split. What changes the mathematics does not.
func (o *trainOptions) tune(ctx context.Context, plan *training.Plan) error {
	w := o.deps.Session.Wishes()
	s := &plan.Settings
	if s.EffectiveBatch > 0 {
		w.EffectiveBatch = s.EffectiveBatch
	}
	if o.effectiveBatch > 0 {
		w.EffectiveBatch = o.effectiveBatch
	}
	if o.flags.Changed("precision") {
		w.Precision = o.precision
	}
	for _, f := range []struct {
		flag, text string
		value      *int
	}{{"batch-size", o.batchSize, &w.BatchSize}, {"lora-rank", o.loraRank, &w.LoRARank}} {
		if !o.flags.Changed(f.flag) {
			continue
		}
		n, err := number(f.text)
		if err != nil {
			return &UsageError{o.magic, fmt.Sprintf("--%s is a positive number or auto, not %q", f.flag, f.text)}
		}
		*f.value = n
	}
	s.Asked = training.Asked{Precision: w.Precision, BatchSize: w.BatchSize, MemoryFraction: w.MemoryFraction}
	if w.Precision == auto {
		s.Asked.Precision = ""
	}
	found, err := o.deps.devices(ctx, o.here)
	if err != nil {
		return err
	}
	return o.here.fit(found.Devices, plan, w)
}

// fit sets the plan's settings for the devices that workers will see.
func (p place) fit(devices []gpu.Device, plan *training.Plan, w gpu.Wishes) error {
	choice, err := gpu.Choose(devices, w)
	if err != nil {
		return err
	}
	s := &plan.Settings
	s.EffectiveBatch, s.BatchSize, s.GradAccum = choice.EffectiveBatch, choice.BatchSize, choice.GradAccum
	s.Precision, s.LoRARank, s.Device = choice.Precision, choice.LoRARank, choice.Device
	s.MemoryFraction, s.Env, s.DeviceName = choice.MemoryFraction, choice.Env, deviceName(devices, choice)
	if _, chosen := s.Env[visibleDevices]; !chosen && p.visible != nil {
		s.Env[visibleDevices] = *p.visible
	}
	for i := range plan.Models {
		m := &plan.Models[i]
		if m.BatchSize == 0 {
			continue
		}
		own := w
		own.BatchSize = m.BatchSize
		choice, err := gpu.Choose(devices, own)
		if err != nil {
			return fmt.Errorf("model %s: %w", m.Name, err)
		}
		m.GradAccum = choice.GradAccum
	}
	return nil
}

// deviceName returns the name of the chosen device; empty for the CPU.
func deviceName(devices []gpu.Device, c gpu.Choice) string {
	visible := c.Env[visibleDevices]
	for i, d := range devices {
		if visible != "" && visible == d.UUID || visible == "" && c.Device == fmt.Sprintf("cuda:%d", i) {
			return d.Name
		}
	}
	return ""
}

// number reads a positive number; auto is 0.
func number(text string) (int, error) {
	if text == auto {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err == nil && n < 1 {
		err = strconv.ErrRange
	}
	return n, err
}

func isFile(name string, extensions ...string) bool {
	for _, ext := range extensions {
		if strings.EqualFold(filepath.Ext(name), ext) {
			return true
		}
	}
	return false
}

// executable reports whether path is a program of this machine.
func executable(path string) bool {
	_, err := exec.LookPath(path)
	return err == nil
}
