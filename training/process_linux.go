package training

import (
	"os/exec"
	"syscall"
)

// group gives cmd a process group of its own, and has it killed when we die.
// The signal follows the thread that started it: the caller keeps that one.
func group(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
