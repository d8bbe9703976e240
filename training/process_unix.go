//go:build unix

package training

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// fenceWait is how long a stale worker may take to die once it was killed.
const fenceWait = 10 * time.Second

// detach gives cmd a session of its own: no signal to our group or terminal
// reaches it.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }

// exists reports whether there is a process pid.
func exists(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}

// inGroup reports whether process pid is in a group.
func inGroup(pid, group int) bool {
	of, err := syscall.Getpgid(pid)
	return err == nil && of == group
}

// killGroup ends everything in a process group.
func killGroup(group int) error {
	err := syscall.Kill(-group, syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// lockWorker takes the lock that says that somebody works on a model. The file
// is handed on to the worker, which holds the lock until it has ended, whatever
// became of its supervisor. A stale worker is ended first.
func lockWorker(path string) (*os.File, error) {
	end := time.Now().Add(fenceWait)
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
		if err != nil {
			return nil, err
		}
		if err = lockFile(f, syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			return f, nil
		}
		f.Close() //nolint:errcheck // the lock's error counts
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(end) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		id := readIdentity(path)
		if err := id.killGroup(); id.pid != 0 && !id.here() && errors.Is(err, os.ErrProcessDone) {
			// The worker and its group are gone. Who holds the lock is a process
			// that it left behind elsewhere, and that is no worker.
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, err
			}
			continue
		}
		time.Sleep(pollInterval)
	}
}

// unlockWorker gives the lock back, also for processes that the worker has left
// behind and that have the file still open.
func unlockWorker(f *os.File) error {
	err := lockFile(f, syscall.LOCK_UN)
	return errors.Join(err, f.Close())
}

// workerLocked reports whether a worker holds the lock at path.
func workerLocked(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close() //nolint:errcheck // it was only tried
	return errors.Is(lockFile(f, syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}

func lockFile(f *os.File, how int) error {
	for {
		if err := syscall.Flock(int(f.Fd()), how); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// endingOf reads how a process ended.
func endingOf(state *os.ProcessState) ending {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok {
		return endingBy(ws)
	}
	return ending{exit: state.ExitCode()}
}

// endingBy reads what the system says of a process that has ended.
func endingBy(ws syscall.WaitStatus) ending {
	if !ws.Signaled() {
		return ending{exit: ws.ExitStatus()}
	}
	return ending{-1, ws.Signal().String(), ownDoing(ws.Signal())}
}

func ownDoing(s syscall.Signal) bool {
	switch s {
	case syscall.SIGSEGV, syscall.SIGABRT, syscall.SIGBUS, syscall.SIGILL, syscall.SIGFPE, syscall.SIGTRAP, syscall.SIGSYS:
		return true
	}
	return false
}

// signalName returns the name of signal n, and whether a process brings it upon
// itself.
func signalName(n int) (name string, own bool) {
	s := syscall.Signal(n)
	return s.String(), ownDoing(s)
}
