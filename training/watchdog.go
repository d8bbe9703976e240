package training

import "time"

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
