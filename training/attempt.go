package training

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"outlast/checkpoint/durable"
)

// lastWords is how much of what a worker printed is looked at for the reason of
// its end, in bytes.
const lastWords = 64 << 10

// An attempt is one worker process working on one model.
type attempt struct {
	s      *Supervisor
	seat   *seat
	index  int
	model  Model
	from   Checkpoint
	fit    Fit
	number int

	began   time.Time
	redone  int64
	metrics *durable.Log
	saver   *saver
	forked  bool           // not started as a program of its own
	memory  string         // its place on the shelf, or empty
	logged  map[string]any // the last word of each metric, as of the last step

	// Of the goroutine that reads the events; of others once it has ended.
	reached  int64 // completed steps
	heard    progress
	finished *Event
	failed   *Event
	paused   bool
	module   bool   // it speaks by the Python module
	python   string // version
	last     *Event // the checkpoint of what the program ends with, as long as it is not known how that ends
	unkept   error  // why a metric is lost: nothing behind it can be saved
	refused  string // what the worker did that none may do
	garbage  int
	told     map[string]bool // the notes

	life     atomic.Int64 // grows with each sign of life
	speaker  atomic.Int64 // the process that said hello
	farewell atomic.Int64 // nanoseconds in which it will have ended, it says
	silent   atomic.Int64 // nanoseconds without a sign of life, after which we ended it
	disk     disk
}

// A disk lets the reader of the events, and with it the worker, wait as long as
// something waits for space.
type disk struct {
	mu      sync.Mutex
	waiting atomic.Int64
}

func (a *attempt) seconds() float64 { return time.Since(a.began).Seconds() }

func (a *attempt) path(name string) string { return a.s.Run.ModelPath(a.model.Name, name) }

// run starts the worker, follows it to its end, and says how it ended. Its
// error is one of the machine.
func (a *attempt) run(ctx context.Context) (outcome, error) {
	a.began = time.Now()
	a.reached = a.from.Step
	a.redone = a.s.history(a.model).redone(a.from.Step)
	var cmd *exec.Cmd
	var log *os.File
	err := a.s.persist(ctx, a.model.Name, func() (err error) {
		cmd, log, err = a.command()
		return err
	})
	if err != nil {
		return outcome{}, fmt.Errorf("prepare worker: %w", err)
	}
	defer a.s.shelf.clear(a.memory)
	defer log.Close() //nolint:errcheck // the worker's text; the worker has its own copy
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return outcome{}, err
	}
	lock, err := lockWorker(a.path(workerLockName))
	if err != nil {
		return outcome{}, fmt.Errorf("is another worker alive? %w", err)
	}
	defer unlockWorker(lock) //nolint:errcheck // ending releases it too
	err = a.s.persist(ctx, a.model.Name, func() error { return a.openMetrics(a.from.Step) })
	if err != nil {
		return outcome{}, err
	}
	defer func() { a.metrics.Close() }() //nolint:errcheck // synced before every checkpoint
	a.s.kills.begin(oomKills("/"))
	end, err := a.work(ctx, cmd, log, lock)
	kills := a.s.kills.end(oomKills("/"), end.killed())
	if start := (*startError)(nil); errors.As(err, &start) {
		return start.outcome(), nil
	}
	if err != nil {
		return outcome{}, err
	}
	e := a.evidence(ctx, end)
	e.oomKills, e.said = kills, tail(log, from)
	return a.conclude(ctx, e.verdict()), nil
}

// work runs the worker, and saves what it hands over, until both have ended.
func (a *attempt) work(ctx context.Context, cmd *exec.Cmd, log, lock *os.File) (ending, error) {
	// A lock that is held and names nobody is waited for; one that names an
	// earlier worker would be broken.
	err := a.s.persist(ctx, a.model.Name, func() error {
		_, err := lock.WriteAt(identity{}.line(), 0)
		return err
	})
	if err != nil {
		return ending{}, err
	}
	events, theirs, err := os.Pipe()
	if err != nil {
		return ending{}, err
	}
	defer events.Close() //nolint:errcheck // it was only read
	a.saver = newSaver(ctx, a)
	defer a.saver.close()
	runtime.LockOSThread() // see spawn
	defer runtime.UnlockOSThread()
	p, err := a.start(ctx, cmd, theirs, log, lock)
	theirs.Close() //nolint:errcheck // the worker has its own copy
	if err != nil {
		return ending{}, err
	}
	end, err := a.follow(ctx, p, events, lock)
	if a.last != nil && err == nil && end.exit == 0 {
		a.saver.put(*a.last)
		a.last = nil
	}
	a.dropLast()
	return end, err
}

// start starts the worker: a fork of what has its libraries, or a program of its
// own.
func (a *attempt) start(ctx context.Context, cmd *exec.Cmd, events, log, lock *os.File) (process, error) {
	if p := a.s.nursery.worker(ctx, a, cmd, []*os.File{events, log, lock}); p != nil {
		a.forked = true
		return p, nil
	}
	return spawn(cmd, []*os.File{events, lock})
}

// A startError says that there is no such program, it is none, or it cannot be
// started now.
type startError struct {
	program string
	err     error
}

func (e *startError) Error() string { return fmt.Sprintf("cannot start %s: %v", e.program, e.err) }

func (e *startError) Unwrap() error { return e.err }

func (e *startError) outcome() outcome {
	if errors.Is(e.err, fs.ErrNotExist) || errors.Is(e.err, fs.ErrPermission) || errors.Is(e.err, exec.ErrNotFound) || errors.Is(e.err, syscall.ENOEXEC) {
		return outcome{cause: CauseError, exit: -1, message: e.Error()}
	}
	for _, passing := range []error{syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE, syscall.ETXTBSY} {
		if errors.Is(e.err, passing) { // the machine's trouble, and not the program's
			return outcome{cause: CauseKilled, unstarted: true, exit: -1, message: e.Error()}
		}
	}
	return outcome{cause: CauseCrash, exit: -1, message: e.Error()}
}

// follow reads a worker's events until it has ended and said everything.
func (a *attempt) follow(ctx context.Context, p process, events, lock *os.File) (ending, error) {
	id := identify(p.pid())
	_, err := lock.WriteAt(id.line(), 0)
	if err == nil {
		err = a.started(ctx, id.pid)
	}
	if err != nil {
		killGroup(id.pid) //nolint:errcheck // it is waited for below
		p.wait()          //nolint:errcheck // the first error counts
		return ending{}, err
	}
	over := make(chan struct{})
	var helpers sync.WaitGroup
	helpers.Go(func() { a.read(ctx, newEventPipe(events, over), id.pid) })
	helpers.Go(func() { a.stop(ctx, id.pid, over) })
	helpers.Go(func() { a.watch(id.pid, over) })
	end, err := p.wait()
	killGroup(id.pid) //nolint:errcheck // mostly nobody is left
	close(over)
	helpers.Wait()
	a.seat.meter.started(0)
	return end, err
}

// tail returns the end of what is in f from an offset on.
func tail(f *os.File, from int64) string {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return ""
	}
	from = max(from, end-lastWords)
	data := make([]byte, max(0, end-from))
	n, _ := f.ReadAt(data, from) // what there is, is looked at
	return string(data[:n])
}

// started publishes that the worker works.
func (a *attempt) started(ctx context.Context, pid int) error {
	h := a.s.history(a.model)
	h.attempts, h.running = a.number, true
	a.seat.meter.started(pid)
	settings := a.s.Run.plan.Settings
	settings.BatchSize, settings.GradAccum = a.fit.BatchSize, a.fit.GradAccum
	a.s.change(func(st *Status) {
		m := &st.Models[a.index]
		m.State, m.WorkerPID, m.Attempts, m.Step = ModelRunning, pid, a.number, a.from.Step
		m.BatchSize, m.GradAccum = a.fit.BatchSize, a.fit.GradAccum
		if m.Cause == CausePaused || m.Cause == CauseLost { // why it was begun again is of interest; that it was is not
			m.Cause, m.Error = "", ""
		}
		m.Checkpoint = nil
		if a.from.Path != "" {
			m.Checkpoint = a.s.copies.status(a.from)
		}
	})
	return a.s.record(ctx, Entry{
		Type: EntryStart, Model: a.model.Name, Fingerprint: a.model.Fingerprint, Attempt: a.number,
		PID: pid, Settings: &settings, Fit: &a.fit, FromStep: a.from.Step,
	})
}

// evidence collects what is known once the worker has ended.
func (a *attempt) evidence(ctx context.Context, end ending) evidence {
	a.saver.close()
	e := evidence{
		finished: a.finished, failed: a.failed, paused: a.paused, asked: ctx.Err() != nil, refused: a.refused,
		silent: time.Duration(a.silent.Load()), unsaved: a.unkept,
		complete: a.heard.total > 0 && a.heard.step >= a.heard.total, abrupt: a.abrupt(),
	}
	e.exit, e.signal, e.own = end.exit, end.signal, end.own
	if err := a.saver.failure(); err != nil {
		e.unsaved = err
	}
	return e
}

// abrupt reports whether a program that ends well without job.finish has not
// come to its end: that of code which is run for it says so, and where the Python
// module is in use the end hands over the last state.
func (a *attempt) abrupt() bool {
	return a.s.Run.plan.Code.Kind != CodeCommand || a.module && a.newest().Step < a.reached
}

// newest returns the newest checkpoint; its Path is empty if there is none.
func (a *attempt) newest() Checkpoint {
	if c := a.saver.last(); c.Path != "" {
		return c
	}
	return a.from
}

// conclude seals the result of a model that is done. What stops that is how the
// attempt ended.
func (a *attempt) conclude(ctx context.Context, end outcome) outcome {
	if end.cause != CauseDone {
		return end
	}
	err := a.s.persist(ctx, a.model.Name, func() (err error) {
		end.final, err = a.seal(context.WithoutCancel(ctx)) // done is done, even if a pause was asked for meanwhile
		return err
	})
	if a.finished != nil && a.finished.Memory != nil {
		end.memory = *a.finished.Memory
	}
	if isFull(err) {
		return outcome{cause: CauseDiskFull, exit: end.exit, message: "the disk is full: " + err.Error()}
	}
	if err != nil {
		return outcome{cause: CauseCrash, exit: end.exit, message: "the result could not be sealed: " + err.Error()}
	}
	return end
}

// seal makes the newest checkpoint the final one. A program that saves none is
// given an empty one: that it ended well is its result.
func (a *attempt) seal(ctx context.Context) (Checkpoint, error) {
	c := a.newest()
	if c.Path == "" {
		empty := filepath.Join(a.path(stagingName), "empty")
		if err := os.MkdirAll(empty, 0o755); err != nil {
			return c, err
		}
		var err error
		if c, err = a.s.Vault.Save(ctx, a.checkpoint(a.reached), empty); err != nil {
			return c, err
		}
	}
	final := a.checkpoint(c.Step)
	final.Metrics = a.lastMetrics()
	a.s.copies.forget(a.model.Name)
	return a.s.Vault.Finish(ctx, final)
}

func (a *attempt) checkpoint(step int64) Checkpoint {
	return Checkpoint{Model: a.model.Name, Fingerprint: a.model.Fingerprint, Step: step, Generation: a.s.generation, Writer: a.s.writer}
}
