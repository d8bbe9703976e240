//go:build unix

package kernel

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

func interruptGroup(pid int) error { return syscall.Kill(-pid, syscall.SIGINT) }
func terminateGroup(pid int) error { return syscall.Kill(-pid, syscall.SIGTERM) }
func killGroup(pid int) error      { return syscall.Kill(-pid, syscall.SIGKILL) }

// alive reports whether there is a process with this number, ours or not.
func alive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}

// describeExit says in words how a process ended.
func describeExit(state *os.ProcessState) string {
	status, ok := state.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		name := status.Signal().String()
		if status.Signal() == syscall.SIGKILL {
			return "it was killed (signal 9); if memory ran out, by the system"
		}
		return fmt.Sprintf("it ended by signal %d (%s)", int(status.Signal()), name)
	}
	return fmt.Sprintf("it ended with exit status %d", state.ExitCode())
}
