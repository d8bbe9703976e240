package training

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
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
	learntName     = "learnt.json"
	stagingName    = "staging"
	workName       = "work"
	jobName        = "job.json"
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
	dir     string // the run's folder
	id      string
	created time.Time
	plan    Plan
}

// file is what run.json says of r.
func (r *Run) file() runFile {
	return runFile{Format: runFormat, ID: r.id, Created: r.created, Plan: r.plan}
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
	return &Run{dir: dir, id: f.ID, created: f.Created, plan: f.Plan}, nil
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
	p.Models, p.Versions = slices.Clone(p.Models), maps.Clone(p.Versions)
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
