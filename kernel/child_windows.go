package kernel

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// ownGroup puts the child into a process group of its own.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

// Windows has no signals for groups: children that declare interrupt_mode
// message are interrupted by message, others cannot be.
func interruptGroup(int) error { return errors.New("this kernel cannot be interrupted on Windows") }

func terminateGroup(pid int) error { return killGroup(pid) }

func killGroup(pid int) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Kill()
}

// signalOf returns nothing: processes end by status here.
func signalOf(*os.ProcessState) (number int, name string) { return 0, "" }

func ownPeak() int64 { return 0 }

func peakMemory(*os.ProcessState, int64) int64 { return 0 }
