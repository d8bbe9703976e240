package training

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"
)

// RunState is the state of a run.
type RunState string

// The states of a run.
const (
	RunRunning RunState = "running"
	RunPaused  RunState = "paused"
	RunDone    RunState = "done"
	RunFailed  RunState = "failed" // all ended, some failed
)

// ModelState is the state of a model.
type ModelState string

// The states of a model.
const (
	ModelPending ModelState = "pending"
	ModelRunning ModelState = "running"
	ModelPaused  ModelState = "paused"
	ModelDone    ModelState = "done"
	ModelFailed  ModelState = "failed"
)

// Status is what `outlast status --json` prints.
type Status struct {
	Run           string        `json:"run"`
	State         RunState      `json:"state"`
	Store         string        `json:"store"`
	SupervisorPID int           `json:"supervisor_pid"` // 0 if none works
	Started       *time.Time    `json:"started"`
	ETASeconds    *float64      `json:"eta_seconds"`
	Generation    int64         `json:"generation"`
	Ending        bool          `json:"ending,omitempty"` // the supervisor saves and flushes, and then goes
	Notes         []string      `json:"notes,omitempty"`
	Models        []ModelStatus `json:"models"`
}

// ModelStatus is one model of a Status.
type ModelStatus struct {
	Name       string            `json:"name"`
	State      ModelState        `json:"state"`
	Step       int64             `json:"step"`
	TotalSteps int64             `json:"total_steps"`
	Attempts   int               `json:"attempts"`
	BatchSize  int               `json:"batch_size"`
	GradAccum  int               `json:"grad_accum"`
	WorkerPID  int               `json:"worker_pid"` // 0 if none works
	Checkpoint *CheckpointStatus `json:"checkpoint"`
	Metrics    map[string]any    `json:"metrics"`
	ETASeconds *float64          `json:"eta_seconds,omitempty"`
	Seconds    float64           `json:"seconds,omitempty"` // worked on it so far
	Cause      Cause             `json:"cause"`
	Error      string            `json:"error"`
}

// CheckpointStatus says how far a model is saved, and how well.
type CheckpointStatus struct {
	Step       int64  `json:"step"`
	Durability string `json:"durability"`
	Path       string `json:"path"`
}

// Results is what `outlast results --json` prints.
type Results struct {
	Run    string        `json:"run"`
	Models []ModelResult `json:"models"`
}

// ModelResult is one model of Results.
type ModelResult struct {
	Name    string         `json:"name"`
	State   ModelState     `json:"state"`
	Metrics map[string]any `json:"metrics"`
	Final   string         `json:"final"` // folder; empty until the model is done
	Seconds float64        `json:"seconds"`
}

// Status returns the state of r: what its supervisor last published, corrected
// by whether it is still alive; without that, what the disk tells.
func (r *Run) Status() (Status, error) {
	s, _, err := r.status()
	return s, err
}

// status also reports whether a supervisor works on r.
func (r *Run) status() (Status, bool, error) {
	alive, id := r.named() // before the state: the last one is written under the lock
	s, err := r.published()
	if err != nil {
		if s, err = r.derive(); err != nil {
			return s, alive, err
		}
	}
	s.Store = r.plan.Store
	if alive {
		s.SupervisorPID = id.pid
		return s, true, nil
	}
	if s.State == RunRunning {
		r.catchUp(&s)
	}
	s.SupervisorPID, s.ETASeconds, s.Ending = 0, nil, false
	for i := range s.Models {
		m := &s.Models[i]
		m.WorkerPID, m.ETASeconds = 0, nil
		if m.State == ModelRunning {
			m.State, m.Cause, m.Error = ModelPaused, CauseLost, lostText
		}
	}
	s.State = atRest(s.Models)
	return s, false, nil
}

// catchUp adds what the disk tells of models that have ended, to a state whose
// supervisor did not come to write the last one: it was killed, or the disk was
// full.
func (r *Run) catchUp(s *Status) {
	derived, err := r.derive()
	if err != nil || len(derived.Models) != len(s.Models) {
		return // what was published is all there is
	}
	for i, d := range derived.Models {
		m := &s.Models[i]
		if d.Name == m.Name && m.State == ModelRunning {
			m.Step = max(m.Step, d.Step) // it was written now and then, and the metrics more often
		}
		if d.Name != m.Name || m.State == ModelDone || d.State != ModelDone && d.State != ModelFailed {
			continue
		}
		total := m.TotalSteps
		*m = d
		m.TotalSteps = max(m.TotalSteps, total)
	}
}

// atRest is the state of a run that nobody works on.
func atRest(models []ModelStatus) RunState {
	state := RunDone
	for _, m := range models {
		switch m.State {
		case ModelDone:
		case ModelFailed:
			if state == RunDone {
				state = RunFailed
			}
		case ModelPending, ModelRunning, ModelPaused:
			state = RunPaused
		}
	}
	return state
}

// manifest is the part of a checkpoint's manifest that says how far it is.
type manifest struct {
	Fingerprint string         `json:"fingerprint"`
	Step        int64          `json:"step"`
	Metrics     map[string]any `json:"metrics"`
}

// derive tells a run's state from its plan, its ledger and the manifests of its
// final checkpoints.
func (r *Run) derive() (Status, error) {
	s := Status{Run: r.Name()}
	entries, err := readLedger(r.path(ledgerName))
	if err != nil {
		return s, err
	}
	past, said := r.histories(entries), r.confirmations()
	learnt, _ := readLessons(r.path(learntName)) // without it, nothing was learnt
	for _, e := range entries {
		s.Generation = max(s.Generation, e.Generation)
	}
	for _, m := range r.plan.Models {
		ms := ModelStatus{Name: m.Name, State: ModelPending, Metrics: map[string]any{}}
		h := past[m.Name+" "+m.Fingerprint]
		if h != nil {
			ms.Attempts, ms.Seconds, ms.State, ms.Step = h.attempts, h.seconds+r.lostSeconds(m.Name, h), ModelPaused, h.step()
			ms.Cause, ms.Error = CauseLost, lostText
			if h.last != nil && !h.running {
				ms.State, ms.Cause, ms.Error = h.last.State, h.last.Cause, h.last.Message
			}
		}
		final := r.ModelPath(m.Name, "final")
		if f, ok := readManifest(final); ok && f.Fingerprint == m.Fingerprint {
			ms.State, ms.Step, ms.TotalSteps, ms.Metrics = ModelDone, f.Step, f.Step, f.Metrics
			ms.Cause, ms.Error = CauseDone, ""
			ms.Checkpoint = said.result(m.Name, final, f.Step)
		} else if ms.State == ModelDone {
			ms.State = ModelPending // its final checkpoint is gone
		}
		fit := r.fitOf(m, ms.State, h, learnt)
		ms.BatchSize, ms.GradAccum = fit.BatchSize, fit.GradAccum
		s.Models = append(s.Models, ms)
	}
	s.State = atRest(s.Models)
	return s, nil
}

// fitOf returns how a model used the device that has ended, or how one begins
// that has not.
func (r *Run) fitOf(m Model, state ModelState, h *history, learnt *lessons) Fit {
	fit := r.plan.fit(m)
	if ended := state == ModelDone || state == ModelFailed; ended && h != nil && h.fit != nil {
		return *h.fit
	}
	if lesson, ok := learnt.about(m, r.plan.Settings); ok {
		fit = fit.tighter(lesson.Fit)
	}
	return fit
}

// histories is what the ledger tells, with what the disk tells of attempts whose
// supervisor did not come to record their end.
func (r *Run) histories(entries []Entry) map[string]*history {
	past := histories(entries)
	published, err := r.published()
	for i, m := range r.plan.Models {
		h := past[m.Name+" "+m.Fingerprint]
		if h == nil || !h.running {
			continue
		}
		h.stopped = h.from
		if points, err := r.Metrics(m.Name); err == nil && len(points) > 0 {
			h.stopped = max(h.stopped, points[len(points)-1].Step+1)
		}
		if err != nil {
			continue
		}
		if p := published.Models[i]; p.Name == m.Name && p.Attempts == h.attempts { // with few metrics it knows more
			h.stopped = max(h.stopped, p.Step)
		}
	}
	return past
}

// lostSeconds returns how long an attempt has worked whose end nobody recorded,
// as far as it is known: to what it logged last.
func (r *Run) lostSeconds(model string, h *history) float64 {
	points, err := r.Metrics(model)
	if !h.running || err != nil || len(points) == 0 {
		return 0
	}
	last := time.UnixMilli(int64(1000 * points[len(points)-1].Time))
	return max(0, last.Sub(h.began).Seconds())
}

func readManifest(dir string) (manifest, bool) {
	var m manifest
	data, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil || json.Unmarshal(data, &m) != nil {
		return m, false
	}
	if m.Metrics == nil {
		m.Metrics = map[string]any{}
	}
	return m, true
}

// Results returns what came out of r so far.
func (r *Run) Results() (Results, error) {
	s, err := r.Status()
	if err != nil {
		return Results{}, err
	}
	results := Results{Run: r.Name()}
	for _, m := range s.Models {
		one := ModelResult{Name: m.Name, State: m.State, Metrics: m.Metrics, Seconds: m.Seconds}
		if m.State == ModelDone {
			one.Final = r.ModelPath(m.Name, "final")
			if f, ok := readManifest(one.Final); ok {
				one.Metrics = f.Metrics
			}
		}
		results.Models = append(results.Models, one)
	}
	return results, nil
}
