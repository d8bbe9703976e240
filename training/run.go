package training

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"outlast/checkpoint/durable"
)

// Names in a run's folder.
const (
	runFileName    = "run.json"
	stateName      = "state.json"
	ledgerName     = "ledger.jsonl"
	lockName       = "supervisor.lock"
	logName        = "supervisor.log"
	codeName       = "code"
	modelsName     = "models"
	metricsName    = "metrics.jsonl"
	modelLogName   = "log.txt"
	modelFileName  = "model.json"
	workerLockName = "worker.lock"
)

// runFormat is the version of run.json.
const runFormat = 1

// runFile is run.json: enough to go on with a run elsewhere.
type runFile struct {
	Format  int       `json:"format"`
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	Plan
}

// A Run is a run's folder, as somebody sees it who found it. The supervisor
// owns it; everybody else looks, waits, and sends signals.
type Run struct {
	dir  string // the run's folder
	id   string
	plan Plan
}

// A RunError says why a run cannot be used, and what to do.
type RunError struct {
	Run     string
	Problem string
	Hint    string
}

func (e *RunError) Error() string {
	if e.Run == "" {
		return e.Problem
	}
	return "run " + e.Run + ": " + e.Problem
}

// Cure says what to do.
func (e *RunError) Cure() string { return e.Hint }

// Changes says what a new plan means for a run that was there before.
type Changes struct {
	New      []string // models that the run did not have
	Changed  []string // trained anew, because code or parameters differ
	Kept     []string // to be gone on with
	Finished []string // done, and left alone
	Removed  []string // no longer in the plan
}

// Create writes p as a run below dir, or gives an existing run the new plan.
// With fresh every model is trained anew. p must be sealed.
func Create(dir string, p *Plan, fresh bool) (*Run, Changes, error) {
	if err := p.Validate(); err != nil {
		return nil, Changes{}, err
	}
	r := &Run{dir: filepath.Join(dir, p.Run), id: uuid.NewString()}
	file := runFile{Format: runFormat, ID: r.id, Created: time.Now().UTC().Truncate(time.Second), Plan: *p}
	old, err := open(r.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		old = nil
	case err != nil:
		return nil, Changes{}, err
	default:
		r.id, file.ID = old.id, old.id
		carry(&file.Plan, old.plan, fresh)
	}
	r.plan = file.Plan
	changes := compare(r, old)
	if old != nil {
		if alive, pid := old.supervisor(); alive {
			if samePlan(old.plan, r.plan) {
				return old, changes, nil // the caller finds it at work
			}
			return nil, changes, &RunError{
				p.Run, fmt.Sprintf("it is being worked on, by process %d, with another plan", pid),
				"stop it first (stop " + p.Run + "), or give this run another name",
			}
		}
	}
	if err := durable.WriteJSON(r.path(runFileName), file); err != nil {
		return nil, changes, err
	}
	if err := os.Remove(r.path(stateName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, changes, err // it tells of the old plan
	}
	return r, changes, nil
}

// carry keeps count of how often each model was asked for afresh: a plain rerun
// after --fresh goes on with the fresh results.
func carry(p *Plan, old Plan, fresh bool) {
	p.Models = slices.Clone(p.Models)
	for i := range p.Models {
		m := &p.Models[i]
		if j := slices.IndexFunc(old.Models, func(o Model) bool { return o.Name == m.Name }); j >= 0 {
			m.Anew = old.Models[j].Anew
			if fresh {
				m.Anew++
			}
		}
	}
	p.Seal()
}

func compare(r, old *Run) Changes {
	var c Changes
	if old == nil {
		for _, m := range r.plan.Models {
			c.New = append(c.New, m.Name)
		}
		return c
	}
	before := map[string]string{}
	for _, m := range old.plan.Models {
		before[m.Name] = m.Fingerprint
	}
	for _, m := range r.plan.Models {
		fingerprint, there := before[m.Name]
		delete(before, m.Name)
		final, ok := readManifest(r.ModelPath(m.Name, "final"))
		switch {
		case ok && final.Fingerprint == m.Fingerprint:
			c.Finished = append(c.Finished, m.Name)
		case !there:
			c.New = append(c.New, m.Name)
		case fingerprint != m.Fingerprint:
			c.Changed = append(c.Changed, m.Name)
		default:
			c.Kept = append(c.Kept, m.Name)
		}
	}
	for name := range before {
		c.Removed = append(c.Removed, name)
	}
	slices.Sort(c.Removed)
	return c
}

// samePlan compares what two plans would train, not how the machine does it.
func samePlan(a, b Plan) bool {
	return slices.EqualFunc(a.Models, b.Models, func(x, y Model) bool {
		return x.Name == y.Name && x.Fingerprint == y.Fingerprint
	})
}

// open reads the run in a folder.
func open(dir string) (*Run, error) {
	data, err := os.ReadFile(filepath.Join(dir, runFileName))
	if err != nil {
		return nil, err
	}
	var f runFile
	if err := decode(data, &f); err != nil {
		return nil, &RunError{filepath.Base(dir), "its run.json is damaged: " + err.Error(), "resume it from its store into an empty data directory"}
	}
	if f.Format != runFormat {
		return nil, &RunError{filepath.Base(dir), fmt.Sprintf("its run.json has format %d, and this version knows %d", f.Format, runFormat), "use the version of Outlast that wrote it"}
	}
	return &Run{dir: dir, id: f.ID, plan: f.Plan}, nil
}

// List returns the names of the runs in the data directory dir, the latest
// changed first. A directory that is not there has none.
func List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	changed := map[string]time.Time{}
	var names []string
	for _, e := range entries {
		for _, file := range []string{runFileName, stateName} {
			if info, err := os.Stat(filepath.Join(dir, e.Name(), file)); err == nil {
				if changed[e.Name()].IsZero() && file == runFileName {
					names = append(names, e.Name())
				}
				if info.ModTime().After(changed[e.Name()]) {
					changed[e.Name()] = info.ModTime()
				}
			}
		}
	}
	slices.SortStableFunc(names, func(a, b string) int { return changed[b].Compare(changed[a]) })
	return names, nil
}

// Find returns the run called name in the data directory dir; without a name,
// the one that changed last.
func Find(dir, name string) (*Run, error) {
	names, err := List(dir)
	if err != nil {
		return nil, err
	}
	if name == "" && len(names) > 0 {
		name = names[0]
	}
	if !slices.Contains(names, name) {
		e := &RunError{name, "there is no such run in " + dir, "train makes one; resume with --store brings one from a copy; --dir names another data directory"}
		if len(names) > 0 {
			e.Hint = "there are: " + strings.Join(names, ", ") + ". --dir names another data directory"
		}
		return nil, e
	}
	return open(filepath.Join(dir, name))
}

// Name returns the run's name.
func (r *Run) Name() string { return filepath.Base(r.dir) }

// Dir returns the run's folder.
func (r *Run) Dir() string { return r.dir }

// DataDir returns the data directory that the run is in.
func (r *Run) DataDir() string { return filepath.Dir(r.dir) }

// Plan returns a copy of the run's plan.
func (r *Run) Plan() *Plan {
	p := r.plan
	p.Models = slices.Clone(p.Models)
	return &p
}

// ModelPath returns a path in a model's folder.
func (r *Run) ModelPath(model string, below ...string) string {
	return filepath.Join(append([]string{r.dir, modelsName, model}, below...)...)
}

func (r *Run) path(name string) string { return filepath.Join(r.dir, name) }

// Log returns the last lines of what a model's workers printed; 0 means all.
func (r *Run) Log(model string, last int) (string, error) {
	if !slices.ContainsFunc(r.plan.Models, func(m Model) bool { return m.Name == model }) {
		var names []string
		for _, m := range r.plan.Models {
			names = append(names, m.Name)
		}
		return "", &RunError{r.Name(), "it has no model " + model, "it has: " + strings.Join(names, ", ")}
	}
	data, err := os.ReadFile(r.ModelPath(model, modelLogName))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	lines := strings.SplitAfter(string(data), "\n")
	if last > 0 && len(lines) > last+1 {
		lines = lines[len(lines)-last-1:]
	}
	return strings.Join(lines, ""), nil
}

// Follow calls fn with the status of r, every so often, until nobody works on
// it. It returns early, with ctx's error, when ctx ends; the run goes on.
func (r *Run) Follow(ctx context.Context, every time.Duration, fn func(Status)) (Status, error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		s, err := r.Status()
		if err != nil {
			return s, err
		}
		if s.SupervisorPID == 0 {
			return s, nil
		}
		fn(s)
		select {
		case <-ctx.Done():
			return s, ctx.Err()
		case <-tick.C:
		}
	}
}

// publish writes the state for finders. It is not synced: it can be derived.
func (r *Run) publish(s Status) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	temp := r.path(stateName + ".new")
	if err := os.WriteFile(temp, append(data, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(temp, r.path(stateName))
}

// etaOf estimates what is left of a run: the running models by their own pace,
// the others by the mean of those that are done.
func etaOf(models []ModelStatus) *float64 {
	var left, seconds float64
	done, pending := 0, 0
	for _, m := range models {
		switch m.State {
		case ModelDone:
			done++
			seconds += m.Seconds
		case ModelRunning:
			if m.ETASeconds != nil {
				left += *m.ETASeconds
				done++
				seconds += m.Seconds + *m.ETASeconds
			}
		case ModelPending, ModelPaused:
			pending++
		case ModelFailed:
		}
	}
	if done == 0 {
		return nil
	}
	left += float64(pending) * seconds / float64(done)
	return &left
}
