//go:build unix && !linux

package training

import (
	"context"
	"os/exec"
	"syscall"
)

// group gives cmd a process group of its own. When we die it is not told; it
// ends at its next event, which has no reader any more.
func group(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// startTime is not told here: a process is known by its number alone.
func startTime(int) uint64 { return 0 }

// works reports whether the process is there.
func (id identity) works() bool { return id.here() }

// await cannot wait here.
func (id identity) await(context.Context) bool { return false }
