package training

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
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

// await waits until the process has ended, or ctx has. It does not look every so
// often, which would take some of its processor from whoever trains. It reports
// false if it cannot wait.
func (id identity) await(ctx context.Context) bool {
	if id.pid == 0 {
		return false
	}
	fd, err := unix.PidfdOpen(id.pid, unix.PIDFD_NONBLOCK) // pidfd_open(2), Linux 5.10
	if err != nil {
		return false
	}
	process := os.NewFile(uintptr(fd), "process")
	defer process.Close() //nolint:errcheck // it was only waited for
	if id.replaced() || process.SetReadDeadline(time.Time{}) != nil {
		return false
	}
	stop := context.AfterFunc(ctx, func() { process.SetReadDeadline(time.Unix(1, 0)) }) //nolint:errcheck // it has deadlines
	defer stop()
	conn, err := process.SyscallConn()
	if err != nil {
		return false
	}
	err = conn.Read(func(fd uintptr) bool {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(ready, 0)
		return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
	})
	return err == nil || ctx.Err() != nil
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
