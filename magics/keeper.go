package magics

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"outlast/training"
)

const (
	// beatInterval is how often the kernel and the page give a sign of life while
	// a run works. Idle cullers count in minutes.
	beatInterval = 60 * time.Second
	// minBeatInterval keeps signs of life from becoming a flood.
	minBeatInterval = time.Second
	// lookInterval is how often we look which runs work: the kernel is busy
	// exactly as long as one does.
	lookInterval = 2 * time.Second
)

// keeper is the one keep-alive of a notebook. It is safe for concurrent use.
type keeper struct {
	deps *Deps

	turn sync.Mutex // held while it is switched on or off

	mu    sync.Mutex
	state keptAlive
	end   func() // stops the watching and waits for it; nil if there is none
}

// keptAlive is what the card and the status tell.
type keptAlive struct {
	since    time.Time     // zero: it was never on
	revived  bool          // it goes on from before the kernel was restarted
	until    time.Time     // zero: no limit
	ended    time.Time     // zero: it is on, or was never
	every    time.Duration // between two signs of life
	runs     []string      // that work now
	beats    int           // signs of life so far
	beat     time.Time     // the last one; zero: none yet
	seen     time.Time     // the page's
	callback bool          // the page can reach us
	warned   bool          // the machine is near its limit
}

func (k *keeper) note(f func(*keptAlive)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f(&k.state)
}

func (k *keeper) now() keptAlive {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state
}

// page notes that a page gave a sign of life.
func (k *keeper) page() { k.note(func(s *keptAlive) { s.seen = time.Now() }) }

// stop ends the watching, and waits until the card says so.
func (k *keeper) stop() {
	k.mu.Lock()
	end := k.end
	k.end = nil
	k.mu.Unlock()
	if end != nil {
		end()
	}
}

// off ends the keep-alive and says what that means for a run that works.
func (k *keeper) off(c *Call) {
	k.turn.Lock()
	defer k.turn.Unlock()
	k.stop()
	text := "Keep-alive is off."
	if s := k.now(); len(s.runs) > 0 {
		text += " " + enumerate(s.runs) + " goes on, but an idle notebook may be stopped with its machine."
	}
	c.Screen.Show(grid{Notes: []string{text}}.view())
	if err := forgetNote(k.deps.KeepNote); err != nil {
		fmt.Fprintf(c.Stderr, "A restarted kernel will switch it on again: %v\n", err)
	}
}

// watch keeps the kernel busy while a run works, and tells of signs of life and of
// changes: the card is updated, where there is one. The messages name the
// %keepalive request as their parent, so that servers count them as activity.
// Without a run it stays silent and idle, so that a notebook that does nothing is
// culled as its owner wished.
func (k *keeper) watch(ctx context.Context, tell func(), dir string, working func(bool)) {
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	busy := false
	for {
		s := k.now()
		now := time.Now()
		over := ctx.Err() != nil || !s.until.IsZero() && !now.Before(s.until)
		runs := workingRuns(dir)
		if on := len(runs) > 0 && !over; on != busy {
			busy = on
			working(on)
		}
		due := busy && now.Sub(s.beat) >= s.every-lookInterval/2 // a tick may come a little early
		warned := k.deps.nearLimit()
		if due || over || warned != s.warned || !slices.Equal(runs, s.runs) {
			k.note(func(s *keptAlive) {
				s.runs, s.warned = runs, warned
				if due {
					s.beat = now
					s.beats++
				}
				if over {
					s.ended = now
				}
			})
			tell()
		}
		if over {
			return
		}
		select {
		case <-ctx.Done():
		case <-look.C:
		}
	}
}

// workingRuns names the runs in dir that a supervisor works off.
func workingRuns(dir string) []string {
	names, err := training.List(dir)
	if err != nil {
		return nil // no data directory yet, or none that can be read: no runs
	}
	var working []string
	for _, name := range names {
		run, err := training.Find(dir, name)
		if err != nil {
			continue
		}
		if status, err := run.Status(); err == nil && status.State == training.RunRunning {
			working = append(working, name)
		}
	}
	slices.Sort(working)
	return working
}

// Untouched says which runs go on although the notebook's Python has ended; ""
// if none works.
func (d *Deps) Untouched() string {
	runs := workingRuns(d.Dir)
	if len(runs) == 0 {
		return ""
	}
	return "Not touched, and still in training: " + enumerate(runs) + ". %attach shows it."
}
