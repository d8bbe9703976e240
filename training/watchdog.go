package training

import (
	"context"
	"os"
	"syscall"
	"time"
)

const (
	// watchParts is in how many looks the watchdog divides its limit.
	watchParts = 20
	// longestLook is how often it looks at least.
	longestLook = 5 * time.Second
)

// A watchdog tells silence from standing still. Only time that it has seen pass
// counts: when the machine is suspended, the worker slept as we did.
type watchdog struct {
	limit  time.Duration
	silent time.Duration
}

// interval returns how often to look.
func (w *watchdog) interval() time.Duration {
	return max(time.Millisecond, min(longestLook, w.limit/watchParts))
}

// look takes note of a look that comes elapsed after the one before, and of
// whether there was a sign of life in between. It reports whether the limit is
// reached.
func (w *watchdog) look(elapsed time.Duration, life bool) bool {
	if life {
		w.silent = 0
		return false
	}
	w.silent += min(elapsed, 2*w.interval())
	return w.silent >= w.limit
}

// stop asks the worker to pause when ctx ends, and insists if it does not.
func (a *attempt) stop(ctx context.Context, pid int, over <-chan struct{}) {
	select {
	case <-over:
		return
	case <-ctx.Done():
	}
	asked := pid
	if n := int(a.speaker.Load()); n > 1 && inGroup(n, pid) { // what we started is a wrapper around it
		asked = n
	}
	identify(asked).signal(syscall.SIGTERM) //nolint:errcheck // it may just have gone
	grace := time.NewTimer(a.s.tempo.grace())
	defer grace.Stop()
	select {
	case <-over:
	case <-grace.C:
		killGroup(pid) //nolint:errcheck // likewise
	}
}

// watch ends a worker that hangs, or that has said goodbye and does not go.
func (a *attempt) watch(pid int, over <-chan struct{}) {
	plan := a.s.Run.plan
	limit := time.Duration(plan.Settings.HangAfter * float64(time.Second))
	dog := watchdog{limit: limit}
	var life, printed int64
	for last := time.Now(); ; {
		look := longestLook
		if dog.limit > 0 {
			look = dog.interval()
		}
		select {
		case <-over:
			return
		case <-time.After(look):
		}
		now := time.Now()
		if leaving := time.Duration(a.farewell.Load()); leaving > 0 && dog.limit != leaving {
			dog = watchdog{limit: leaving}
		}
		n, size := a.life.Load(), fileSize(a.path(modelLogName))
		alive := n != life || size != printed || a.disk.waiting.Load() > 0
		mute := n == 0 && plan.Code.Kind == CodeCommand // it may know no events at all
		if dog.limit > 0 && !mute && dog.look(now.Sub(last), alive) {
			if a.farewell.Load() == 0 {
				a.silent.Store(int64(dog.limit))
			}
			killGroup(pid) //nolint:errcheck // it may just have gone
			return
		}
		life, printed, last = n, size, now
	}
}

func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}
