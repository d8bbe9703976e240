package training

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// group gives cmd a process group of its own, and has it killed when we die.
// The signal follows the thread that started it: the caller keeps that one.
func group(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// startTime returns when a process began, in ticks since the machine was
// started; 0 if there is no such process. See proc_pid_stat(5).
func startTime(pid int) uint64 {
	const field = 22 - 3 // the third field is the first after the name
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:]) // a name may hold anything
	if len(fields) <= field {
		return 0
	}
	n, err := strconv.ParseUint(string(fields[field]), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
