package training

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// An ending is how a process ended.
type ending struct {
	exit   int    // -1 if a signal ended it
	signal string // its name, or empty
	own    bool   // the signal was of its own doing
}

// killed reports whether the kernel, or somebody, ended it without asking; a shell
// around it tells so by its own status.
func (e ending) killed() bool {
	return e.signal == syscall.SIGKILL.String() || e.exit == shellSignals+int(syscall.SIGKILL)
}

// A process is a worker that was started. It leads a process group, and dies
// with us.
type process interface {
	// pid returns its number, and that of its group.
	pid() int
	// wait waits for its end. It is called once, and by the goroutine that
	// started the process.
	wait() (ending, error)
}

// spawn starts a worker as a program of its own. The calling goroutine keeps
// its thread until the worker has ended: it is killed when that thread ends.
func spawn(cmd *exec.Cmd, given []*os.File) (process, error) {
	cmd.ExtraFiles = given // descriptors 3 and on
	group(cmd)
	if err := cmd.Start(); err != nil {
		return nil, &startError{cmd.Path, err}
	}
	return spawned{cmd}, nil
}

// spawned is a program of its own.
type spawned struct{ cmd *exec.Cmd }

var _ process = spawned{}

// pid implements process.
func (p spawned) pid() int { return p.cmd.Process.Pid }

// wait implements process.
func (p spawned) wait() (ending, error) {
	err := p.cmd.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return ending{}, err
	}
	return endingOf(p.cmd.ProcessState), nil
}
