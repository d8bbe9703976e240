package training

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// A Command is a program with its arguments and environment.
type Command struct {
	Path string
	Args []string
	Env  []string
}

// pollInterval is how often a finder looks whether a supervisor has come or
// gone.
const pollInterval = 50 * time.Millisecond

// supervisor reports whether a supervisor works on r, and its process id. It is
// alive as long as it holds the lock; the number alone would prove nothing.
func (r *Run) supervisor() (alive bool, pid int) {
	lock := flock.New(r.path(lockName), flock.SetFlag(os.O_RDONLY))
	if _, err := os.Stat(r.path(lockName)); err != nil {
		return false, 0
	}
	free, err := lock.TryRLock()
	if free {
		lock.Close() //nolint:errcheck // it was only tried
		return false, 0
	}
	if err != nil {
		return false, 0
	}
	data, err := os.ReadFile(r.path(lockName))
	if err != nil {
		return true, 0
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return true, 0 // it has the lock and has not written its number yet
	}
	return true, pid
}

// Start runs command as the detached supervisor of r, in a session of its own,
// and returns once it works. It does nothing if one works already.
func (r *Run) Start(ctx context.Context, command Command) error {
	if alive, _ := r.supervisor(); alive {
		return nil
	}
	log, err := os.OpenFile(r.path(logName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the supervisor has its own copy
	size, err := log.Seek(0, 2)
	if err != nil {
		return err
	}
	// Bound to no context: it outlives this call, and this process.
	cmd := exec.Command(command.Path, command.Args...) //nolint:noctx // see above
	cmd.Env, cmd.Stdout, cmd.Stderr = command.Env, log, log
	cmd.Dir = r.dir // not a folder that somebody wants to remove or unmount
	detach(cmd)
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the supervisor; reaps it if we live that long
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			return r.ended(err, size)
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if alive, pid := r.supervisor(); alive && pid != 0 {
			if _, err := os.Stat(r.path(stateName)); err == nil {
				return nil
			}
		}
	}
}

// ended explains a supervisor that is gone before anybody saw it: it was done
// at once, or its log says why.
func (r *Run) ended(err error, from int64) error {
	if err == nil {
		return nil
	}
	data, readErr := os.ReadFile(r.path(logName))
	if readErr != nil || int64(len(data)) <= from {
		return err
	}
	return fmt.Errorf("it ended at once (%w): %s", err, strings.TrimSpace(string(data[from:])))
}

// Pause asks the supervisor of r to save and end, and waits until it has. That
// nobody works on r is no error.
func (r *Run) Pause(ctx context.Context) (Status, error) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	asked := 0
	for {
		alive, pid := r.supervisor()
		if !alive {
			return r.Status()
		}
		if pid != 0 && pid != asked {
			if err := terminate(pid); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return Status{}, fmt.Errorf("ask process %d to pause: %w", pid, err)
			}
			asked = pid
		}
		select {
		case <-ctx.Done():
			return Status{}, ctx.Err()
		case <-tick.C:
		}
	}
}

// Kill ends the supervisor of r and its workers at once. What was saved stays.
func (r *Run) Kill(ctx context.Context) error {
	s, err := r.Status()
	if err != nil {
		return err
	}
	alive, pid := r.supervisor()
	if !alive || pid == 0 {
		return nil
	}
	if err := killProcess(pid); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	for _, m := range s.Models {
		if m.WorkerPID != 0 {
			killGroup(m.WorkerPID) //nolint:errcheck // it may have gone with its supervisor
		}
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for alive {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		alive, _ = r.supervisor()
	}
	return nil
}
