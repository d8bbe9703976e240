package training

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// A Command is a program with its arguments and environment.
type Command struct {
	Path string
	Args []string
	Env  []string
}

const (
	// pollInterval is how often a finder looks whether a supervisor has come or
	// gone.
	pollInterval = 50 * time.Millisecond
	// nameWait is how long a supervisor may take from having the lock to having
	// written who it is. It takes no time, unless the machine stands still.
	nameWait = time.Second
)

// supervisor reports whether a supervisor works on r, and which process it is.
// It is alive as long as it holds the lock; a number alone would prove nothing.
// The identity is zero for the moment in which it has the lock and has not said
// yet who it is.
func (r *Run) supervisor() (alive bool, id identity) {
	path := r.path(lockName)
	if _, err := os.Stat(path); err != nil {
		return false, identity{}
	}
	lock := flock.New(path, flock.SetFlag(os.O_RDONLY))
	free, err := lock.TryRLock()
	if free {
		lock.Close() //nolint:errcheck // it was only tried
	}
	if free || err != nil {
		return false, identity{}
	}
	if id = readIdentity(path); !id.works() { // left by one that was killed; that one may hold the lock for a moment yet
		id = identity{}
	}
	return true, id
}

// named is like supervisor, and waits for one that has not said who it is.
func (r *Run) named() (alive bool, id identity) {
	for end := time.Now().Add(nameWait); ; time.Sleep(pollInterval / 10) {
		if alive, id = r.supervisor(); !alive || id.pid != 0 || time.Now().After(end) {
			return alive, id
		}
	}
}

// published returns the state as the supervisor last wrote it.
func (r *Run) published() (Status, error) {
	var s Status
	data, err := os.ReadFile(r.path(stateName))
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err == nil && (s.Run != r.Name() || len(s.Models) != len(r.plan.Models)) {
		err = errors.New("it is another run's")
	}
	return s, err
}

// Start runs command as the detached supervisor of r, in a session of its own,
// and returns once it works. It does nothing if one works already; one that is
// about to begin or to end is waited for. When ctx ends before the command is
// started, it is not; after that it is waited for all the same, so that whoever
// wants to pause it finds it.
func (r *Run) Start(ctx context.Context, command Command) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for alive, id := r.supervisor(); alive; alive, id = r.supervisor() {
		if r.worksFor(id) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	ended, from, err := r.launch(command)
	if err != nil {
		return fmt.Errorf("start supervisor: %w", err)
	}
	for {
		select {
		case err := <-ended:
			return r.ended(err, from)
		case <-tick.C:
		}
		if alive, id := r.supervisor(); alive && r.worksFor(id) {
			return nil
		}
	}
}

// worksFor reports whether the supervisor id has taken the run over, and is not
// about to end. One that has published its last state still holds the lock.
func (r *Run) worksFor(id identity) bool {
	s, err := r.published()
	return err == nil && id.pid != 0 && s.SupervisorPID == id.pid && !s.Ending
}

// launch starts the supervisor. It returns where its end is told, and where its
// part of the log begins.
func (r *Run) launch(command Command) (<-chan error, int64, error) {
	log, err := os.OpenFile(r.path(logName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, 0, err
	}
	defer log.Close() //nolint:errcheck // the supervisor has its own copy
	from, err := log.Seek(0, 2)
	if err != nil {
		return nil, 0, err
	}
	// Bound to no context: it outlives this call, and this process.
	cmd := exec.Command(command.Path, command.Args...) //nolint:noctx // see above
	cmd.Env, cmd.Stdout, cmd.Stderr = command.Env, log, log
	cmd.Dir = r.dir // not a folder that somebody wants to remove or unmount
	detach(cmd)
	if err := cmd.Start(); err != nil {
		return nil, 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the supervisor; reaps it if we live that long
	return ended, from, nil
}

// ended explains a supervisor that is gone before anybody saw it: it was done
// at once, or its log says why.
func (r *Run) ended(err error, from int64) error {
	if err == nil {
		return nil
	}
	if alive, _ := r.supervisor(); alive {
		return nil // another one was faster
	}
	data, readErr := os.ReadFile(r.path(logName))
	if readErr != nil || int64(len(data)) <= from {
		return err
	}
	return fmt.Errorf("the supervisor ended at once (%w): %s", err, strings.TrimSpace(string(data[from:])))
}

// Pause asks the supervisor of r to save and end, and waits until it has. That
// nobody works on r is no error.
func (r *Run) Pause(ctx context.Context) (Status, error) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var asked identity
	for {
		alive, id := r.supervisor()
		if !alive {
			return r.Status()
		}
		if id != asked && id.pid != 0 {
			if err := id.signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return Status{}, fmt.Errorf("ask process %d to pause: %w", id.pid, err)
			}
			asked = id
		}
		select {
		case <-ctx.Done():
			return Status{}, ctx.Err()
		case <-tick.C:
		}
	}
}

// Kill ends the supervisor of r and its workers at once, and waits until they
// are gone. What was saved stays.
func (r *Run) Kill(ctx context.Context) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var killed identity
	for alive, id := r.supervisor(); alive || r.killWorkers(); alive, id = r.supervisor() {
		if id != killed && id.pid != 0 {
			if err := id.signal(os.Kill); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return fmt.Errorf("kill process %d: %w", id.pid, err)
			}
			killed = id
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	r.sweepMemory()
	return nil
}

// killWorkers ends the workers that outlived their supervisor, and reports
// whether there were any.
func (r *Run) killWorkers() (any bool) {
	for _, m := range r.plan.Models {
		path := r.ModelPath(m.Name, workerLockName)
		if workerLocked(path) && readIdentity(path).killGroup() == nil {
			any = true
		}
	}
	return any
}

// Follow calls fn with the status of r, every so often, until nobody works on
// it, and returns the last one. It returns early, with ctx's error, when ctx
// ends; the run goes on.
func (r *Run) Follow(ctx context.Context, every time.Duration, fn func(Status)) (Status, error) {
	for {
		s, alive, err := r.status()
		if err != nil || !alive {
			return s, err
		}
		fn(s)
		if err := r.linger(ctx, every); err != nil {
			return s, err
		}
	}
}

// linger waits for a while, or until nobody works on r, or ctx ends.
func (r *Run) linger(ctx context.Context, span time.Duration) error {
	short, cancel := context.WithTimeout(ctx, span)
	defer cancel()
	if alive, id := r.supervisor(); alive && id.await(short) {
		return ctx.Err()
	}
	tick := time.NewTicker(min(span, pollInterval))
	defer tick.Stop()
	for {
		select {
		case <-short.Done():
			return ctx.Err()
		case <-tick.C:
			if alive, _ := r.supervisor(); !alive {
				return ctx.Err()
			}
		}
	}
}
