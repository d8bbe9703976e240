//go:build unix

package training

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// fenceWait is how long a stale worker may take to die once it was killed.
const fenceWait = 10 * time.Second

// detach gives cmd a session of its own: no signal to our group or terminal
// reaches it.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }

func terminate(pid int) error { return gone(syscall.Kill(pid, syscall.SIGTERM)) }

func killProcess(pid int) error { return gone(syscall.Kill(pid, syscall.SIGKILL)) }

// killGroup ends a process and everything it started in its group.
func killGroup(pid int) error { return gone(syscall.Kill(-pid, syscall.SIGKILL)) }

func gone(err error) error {
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// lockWorker takes the lock that says that somebody works on a model. The file
// is handed on to the worker, which holds the lock until it has ended, whatever
// became of its supervisor. A stale worker is ended first.
func lockWorker(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	end := time.Now().Add(fenceWait)
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(end) {
			f.Close() //nolint:errcheck // the lock's error counts
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if data, err := os.ReadFile(path); err == nil {
			if pid, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && pid > 1 {
				killGroup(pid) //nolint:errcheck // it may just have gone; the lock tells
			}
		}
		time.Sleep(pollInterval)
	}
}

// ending reads how a process ended.
func ending(state *os.ProcessState) (exit int, signal string, own bool) {
	ws, ok := state.Sys().(syscall.WaitStatus)
	if !ok || !ws.Signaled() {
		return state.ExitCode(), "", false
	}
	switch ws.Signal() {
	case syscall.SIGSEGV, syscall.SIGABRT, syscall.SIGBUS, syscall.SIGILL, syscall.SIGFPE:
		own = true
	}
	return -1, ws.Signal().String(), own
}
