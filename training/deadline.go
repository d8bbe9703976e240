package training

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

const (
	// flushLead is what a pause takes beside waiting for a step and saving: the
	// store must be given what it lacks.
	flushLead = time.Minute
	// leadShare is the largest part of a budget that is given to pausing.
	leadShare = 4
	// pauseGrace is how long a worker may take to save and end, beside the step
	// that it is in.
	pauseGrace = 30 * time.Second
	// budgetLooks is in how many looks a budget is divided.
	budgetLooks = 100
)

// errBudget ends the context of a run whose time is up.
var errBudget = errors.New("the time budget ends")

// A tempo is how long the slow parts of training take. It is safe for
// concurrent use.
type tempo struct {
	mu   sync.Mutex
	step time.Duration // the longest between two signs of progress
	save time.Duration // the longest that saving a checkpoint took
}

func (t *tempo) sawStep(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.step = max(t.step, d)
}

func (t *tempo) sawSave(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.save = max(t.save, d)
}

// lead returns how long before the end of a budget to begin to pause.
func (t *tempo) lead(budget time.Duration) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return min(budget/leadShare, flushLead+2*t.step+2*t.save)
}

// grace returns how long a worker may take from being asked to pause to its
// end.
func (t *tempo) grace() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return pauseGrace + 3*t.step + 2*t.save
}

// budgeted returns a context that ends in time to pause before the run's hours
// are over. stop waits until nothing of it is left.
func (s *Supervisor) budgeted(ctx context.Context) (bounded context.Context, stop func()) {
	hours := s.Run.plan.Settings.MaxHours
	if hours <= 0 {
		return ctx, func() {}
	}
	budget := time.Duration(hours * float64(time.Hour))
	began := time.Now()
	bounded, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(max(time.Millisecond, min(time.Second, budget/budgetLooks)))
		defer tick.Stop()
		for time.Since(began) < budget-s.tempo.lead(budget) {
			select {
			case <-bounded.Done():
				return
			case <-tick.C:
			}
		}
		cancel(errBudget)
	})
	return bounded, func() { cancel(nil); watching.Wait() }
}

// pausedNote tells how far a run is that has paused, and how to go on.
func pausedNote(why error, hours float64, st Status) string {
	var done, left []string
	for _, m := range st.Models {
		switch m.State {
		case ModelDone:
			done = append(done, m.Name)
		case ModelFailed:
		case ModelPending, ModelRunning, ModelPaused:
			text := m.Name
			if m.Step > 0 && m.TotalSteps > 0 {
				text += fmt.Sprintf(" (step %d of %d)", m.Step, m.TotalSteps)
			}
			left = append(left, text)
		}
	}
	text := "Paused."
	if errors.Is(why, errBudget) {
		text = fmt.Sprintf("Paused before the time budget of %s ended.", short(time.Duration(hours*float64(time.Hour))))
	}
	return text + fmt.Sprintf(" Done: %s. To do: %s. To go on: outlast resume %s (in a notebook: %%resume %s)", list(done), list(left), st.Run, st.Run)
}

// listed is how many names a sentence holds.
const listed = 10

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	if more := len(names) - listed; more > 0 {
		return strings.Join(names[:listed], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(names, ", ")
}
