package kernel

import (
	"os/exec"
	"syscall"
)

// ownGroup puts the child into a process group of its own, which an interrupt
// or a kill then reaches as a whole, and binds its life to ours.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// maxrssUnit is what the kernel counts a process's memory in, in bytes.
const maxrssUnit = 1024
