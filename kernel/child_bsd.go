//go:build unix && !linux

package kernel

import (
	"os/exec"
	"syscall"
)

// ownGroup puts the child into a process group of its own. If we are killed it
// notices by JPY_PARENT_PID.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// maxrssUnit is what the kernel counts a process's memory in, in bytes: macOS
// differs from all others.
const maxrssUnit = 1

// ownPeak returns nothing: here a process does not begin with our memory.
func ownPeak() int64 { return 0 }
