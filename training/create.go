package training

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/google/uuid"

	"outlast/checkpoint/durable"
)

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
	r, old, err := renewed(dir, p, fresh)
	if err != nil {
		return nil, Changes{}, err
	}
	changes := compare(r, old)
	if old != nil {
		if alive, id := old.supervisor(); alive {
			if samePlan(old.plan, r.plan) {
				return old, changes, nil // the caller finds it at work
			}
			return nil, changes, &RunError{
				p.Run, fmt.Sprintf("it is being worked on, by process %d, with another plan", id.pid),
				"stop it first (stop " + p.Run + "), or give this run another name",
			}
		}
	}
	if err := durable.WriteJSON(r.path(runFileName), r.file()); err != nil {
		return nil, changes, err
	}
	if old != nil && samePlan(old.plan, r.plan) && old.interrupted() {
		return r, changes, nil // nothing else may tell how far it was
	}
	if err := os.Remove(r.path(stateName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, changes, err // it tells of the old plan
	}
	return r, changes, nil
}

// Compare says what Create would change. It writes nothing.
func Compare(dir string, p *Plan, fresh bool) (Changes, error) {
	r, old, err := renewed(dir, p, fresh)
	if err != nil {
		return Changes{}, err
	}
	return compare(r, old), nil
}

// renewed returns the run below dir as it is with p, not written yet, and as it
// was, which is nil if it is new.
func renewed(dir string, p *Plan, fresh bool) (r, old *Run, err error) {
	if err := p.Validate(); err != nil {
		return nil, nil, err
	}
	r = &Run{dir: filepath.Join(dir, p.Run), id: uuid.NewString(), created: time.Now().UTC().Truncate(time.Second), plan: *p}
	old, err = open(r.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		old = nil
	case err != nil:
		return nil, nil, err
	default:
		r.id, r.created = old.id, old.created
		carry(&r.plan, old.plan, fresh)
	}
	if fresh {
		r.outdate(&r.plan)
	}
	r.pinThreads(&r.plan, old)
	r.plan.Versions = withVersions(old, p)
	return r, old, nil
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

// outdate asks afresh for models that have a result already although the plan
// before this one did not have them.
func (r *Run) outdate(p *Plan) {
	p.Models = slices.Clone(p.Models)
	for i := range p.Models {
		for m := &p.Models[i]; ; m.Anew++ {
			p.seal(m)
			if final, ok := readManifest(r.ModelPath(m.Name, "final")); !ok || final.Fingerprint != m.Fingerprint {
				break
			}
		}
	}
}

// pinThreads gives the models that are new their share of the cores. One that has
// begun keeps what it began with.
func (r *Run) pinThreads(p *Plan, old *Run) {
	threads := p.Settings.Parallel.threads(runtime.GOMAXPROCS(0))
	p.Models = slices.Clone(p.Models)
	for i := range p.Models {
		m := &p.Models[i]
		m.Threads = threads
		if old == nil {
			continue
		}
		j := slices.IndexFunc(old.plan.Models, func(o Model) bool { return o.Name == m.Name && o.Fingerprint == m.Fingerprint })
		if j >= 0 && (old.plan.Models[j].Threads > 0 || old.begun(*m)) {
			m.Threads = old.plan.Models[j].Threads
		}
	}
}

// begun reports whether there is anything of m as it is in the plan.
func (r *Run) begun(m Model) bool {
	if fingerprint := r.workedOn(m.Name); fingerprint != "" {
		return fingerprint == m.Fingerprint
	}
	for _, name := range []string{"checkpoints", "final"} { // brought from a store
		if isFolder(r.ModelPath(m.Name, name)) {
			return true
		}
	}
	return false
}

// workedOn returns the fingerprint that a model was last worked on with here;
// empty if it never was.
func (r *Run) workedOn(model string) string {
	var was struct {
		Fingerprint string `json:"fingerprint"`
	}
	data, err := os.ReadFile(r.ModelPath(model, modelFileName))
	if err != nil || decode(data, &was) != nil {
		return ""
	}
	return was.Fingerprint
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

// interrupted reports whether the state was published by a supervisor that did
// not come to write its last one.
func (r *Run) interrupted() bool {
	s, err := r.published()
	return err == nil && s.State == RunRunning
}

// samePlan compares what two plans would train, not how the machine does it.
func samePlan(a, b Plan) bool {
	return slices.EqualFunc(a.Models, b.Models, func(x, y Model) bool {
		return x.Name == y.Name && x.Fingerprint == y.Fingerprint
	})
}
