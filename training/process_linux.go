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
	n, err := strconv.ParseUint(statField(pid, 22), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// works reports whether the process is there and has not ended: one that is no
// child of ours may stay as a zombie for as long as its parent likes.
func (id identity) works() bool {
	state := statField(id.pid, 3)
	return id.here() && state != "Z" && state != "X"
}

// statField returns the n-th field of what the system says of a process, from
// the third on; it is empty if there is no such process.
func statField(pid, n int) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:]) // a name may hold anything
	if n -= 3; n >= len(fields) {
		return ""
	}
	return string(fields[n])
}
