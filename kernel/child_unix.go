//go:build unix

package kernel

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func interruptGroup(pid int) error { return syscall.Kill(-pid, syscall.SIGINT) }
func terminateGroup(pid int) error { return syscall.Kill(-pid, syscall.SIGTERM) }
func killGroup(pid int) error      { return syscall.Kill(-pid, syscall.SIGKILL) }

// signalOf returns the signal that ended a process; no name if none did.
func signalOf(state *os.ProcessState) (number int, name string) {
	if state == nil {
		return 0, ""
	}
	status, ok := state.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return 0, ""
	}
	if name = unix.SignalName(status.Signal()); name == "" {
		name = status.Signal().String()
	}
	return int(status.Signal()), name
}

// peakMemory returns the most memory that a process, or one of its children,
// has used, in bytes; 0 if that is not known. On Linux a process
// begins with what we had used when we started it: less than that cannot be
// told.
func peakMemory(state *os.ProcessState, ours int64) int64 {
	if state == nil {
		return 0
	}
	usage, ok := state.SysUsage().(*syscall.Rusage)
	if !ok || peakOf(usage) <= ours {
		return 0
	}
	return peakOf(usage)
}

func peakOf(usage *syscall.Rusage) int64 {
	return int64(usage.Maxrss) * maxrssUnit //nolint:unconvert // it is an int32 elsewhere
}
