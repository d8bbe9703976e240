package magics

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"outlast/training"
)

// liveInterval is how often a followed run is looked at: often enough to feel
// live, and well below the ten messages a second that servers start to drop.
const liveInterval = 400 * time.Millisecond

// hardInterrupt is how soon a second interrupt must come to stop at once.
const hardInterrupt = 3 * time.Second

// endGrace is how long an interrupt waits to be followed by the kernel's end.
// Jupyter interrupts a kernel a few milliseconds before it ends it, and a run
// has nothing to do with that.
const endGrace = 400 * time.Millisecond

// Attach returns %attach: the live view of a run, again.
func Attach(d *Deps) *Magic {
	m := &Magic{
		Name:  "attach",
		Verb:  "attach",
		Args:  "[RUN]",
		Short: "Watch a run until it ends; an interrupt pauses it",
		Line:  true,
		Looks: true,
	}
	m.Bind = func(fs *pflag.FlagSet) func(context.Context, *Call) error {
		dir := d.dirFlag(fs)
		return func(ctx context.Context, c *Call) error {
			run, err := d.oneRun(m, c, *dir)
			if err != nil {
				return err
			}
			return d.watch(ctx, c, run)
		}
	}
	return m
}

// watch shows run until it ends. An interrupt pauses it; a second one soon
// after kills it. Where the notebook ends, the run goes on. How it ended is the
// returned error.
func (d *Deps) watch(ctx context.Context, c *Call, run *training.Run) error {
	live := c.Screen.Live()
	r := d.reporter(run, c)
	r.live = true
	gauge, stop := d.gauge(ctx, run)
	r.gpus = gauge
	show := func(s training.Status) { live.Update(r.report(s).view()) }
	status, err := run.Follow(ctx, liveInterval, show)
	stop()
	if ctx.Err() != nil {
		if c.left() {
			return errLeft
		}
		r.pausing = true
		show(status)
		r.pausing = false
		status, err = pause(context.WithoutCancel(ctx), c, run)
	}
	if err != nil {
		return err
	}
	show(status)
	return outcome(status, c.prompt())
}

// errLeft says why a run is not watched any more.
var errLeft = errors.New("the notebook's kernel has ended; the run goes on without it")

// left reports whether the context of a call ended because nobody is there any
// more for whom it works, and not because somebody wants its work to end.
func (c *Call) left() bool {
	if c.Gone == nil {
		return false
	}
	select {
	case <-c.Gone:
		return true
	case <-time.After(endGrace):
		return false
	}
}

// pause asks run to save and end, and kills it if the interrupt is repeated.
func pause(ctx context.Context, c *Call, run *training.Run) (training.Status, error) {
	waiting, cancel := context.WithCancelCause(ctx)
	var listening sync.WaitGroup
	defer func() { cancel(nil); listening.Wait() }()
	listening.Go(func() {
		if repeated(waiting, c.Interrupts) {
			cancel(errStopNow)
		}
	})
	status, err := run.Pause(waiting)
	if !errors.Is(context.Cause(waiting), errStopNow) {
		return status, err
	}
	if err := run.Kill(ctx); err != nil {
		return training.Status{}, err
	}
	return run.Status()
}

// repeated reports whether two interrupts come within hardInterrupt of each
// other, the one that got us here being the first. It returns when ctx ends.
func repeated(ctx context.Context, interrupts <-chan struct{}) bool {
	select {
	case <-interrupts: // the one that got us here
	default:
	}
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-interrupts:
			if time.Since(last) <= hardInterrupt {
				return true
			}
			last = time.Now()
		}
	}
}

var errStopNow = errors.New("interrupted twice")
