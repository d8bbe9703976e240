package training

import (
	"encoding/json"
	"os"
	"sync"
	"time"
)

const (
	// publishInterval is how often the state is written for finders at most.
	publishInterval = 200 * time.Millisecond
	// publishShare bounds what publishing costs: after a state that took long to
	// write, as that of a very long plan does, the next one waits so many times
	// as long.
	publishShare = 20
	// maxNotes is how many notes the state holds; the ledger has them all.
	maxNotes = 50
)

// A board is what the supervisor's goroutines share: the status that finders
// see. It is changed in change only.
type board struct {
	run     *Run
	failure func(error) // is told that finders see an older status

	mu     sync.Mutex
	open   bool // between takeover and rest; otherwise nothing changes
	status Status
	timer  *time.Timer // set while a change waits to be published
	last   time.Time   // the end of the last publishing
	pace   time.Duration
}

// begin publishes the first status.
func (b *board) begin(s Status) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status, b.open = s, true
	return b.publish()
}

// change changes the status and publishes it, at once or soon. Before begin and
// after end it does nothing.
func (b *board) change(f func(*Status)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open {
		return
	}
	f(&b.status)
	if b.timer != nil {
		return
	}
	wait := b.pace - time.Since(b.last)
	if wait <= 0 {
		b.tell(b.publish())
		return
	}
	b.timer = time.AfterFunc(wait, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.timer = nil; b.open {
			b.tell(b.publish())
		}
	})
}

// end changes the status for the last time, publishes and returns it.
func (b *board) end(f func(*Status)) Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open {
		return b.status
	}
	f(&b.status)
	if b.timer != nil {
		b.timer.Stop()
	}
	b.open = false
	b.tell(b.publish())
	return b.status
}

func (b *board) tell(err error) {
	if err != nil {
		b.failure(err)
	}
}

func (b *board) publish() error {
	began := time.Now()
	b.status.ETASeconds = etaOf(b.status.Models)
	err := b.run.publish(b.status)
	b.last = time.Now()
	b.pace = max(publishInterval, publishShare*b.last.Sub(began))
	return err
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
// the others by the mean of those that are done or running, as many at once as
// there are now. It is nil as long as nothing is known.
func etaOf(models []ModelStatus) *float64 {
	var left, longest, whole, waiting float64 // waiting counts models
	known, running := 0, 0
	for _, m := range models {
		switch m.State {
		case ModelDone:
			whole += m.Seconds
			known++
		case ModelRunning:
			running++
			if m.ETASeconds == nil {
				waiting++
				continue
			}
			left += *m.ETASeconds
			longest = max(longest, *m.ETASeconds)
			whole += m.Seconds + *m.ETASeconds
			known++
		case ModelPending, ModelPaused:
			share := 1.0
			if m.TotalSteps > 0 && m.Step <= m.TotalSteps {
				share = 1 - float64(m.Step)/float64(m.TotalSteps)
			}
			waiting += share
		case ModelFailed:
		}
	}
	if known == 0 {
		return nil
	}
	left += waiting * whole / float64(known)
	left = max(longest, left/float64(max(1, running)))
	return &left
}
