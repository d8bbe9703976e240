package checkpoint_test

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// From linux/ptrace.h and linux/wait.h; package syscall does not have them.
const (
	ptraceGetSyscallInfo = 0x420e
	ptraceExitKill       = 0x100000
	waitThisThread       = 0x20000000
	syscallStop          = syscall.SIGTRAP | 0x80
	atEntry, atExit      = 1, 2
)

// A trace runs this binary in a role, in dir, and stops it before each system
// call that changes a file there. One such call is on its way at a time, so that
// what lies in dir when the process is stopped is what a kill would leave.
type trace struct {
	dir  string
	nets bool                    // it is stopped before it sends something, too
	stop func(n int) (kill bool) // called when nothing changes; n counts from 1
	// fails may be nil. It says whether a call fails instead of being made.
	fails func(nr uint64) bool
	// enters and returns may be nil. They are told of each such call before it is
	// made, and what it has returned.
	enters  func(nr uint64, args [6]uint64)
	returns func(result int64)

	pid      int
	calls    int
	inFlight int   // thread
	failing  bool  // the call of that thread
	waiting  []int // threads, before their call
}

// run returns when the process has ended, by itself or by a kill.
func (tr *trace) run(t *testing.T, role string) (status syscall.WaitStatus) {
	t.Helper()
	runtime.LockOSThread() // the thread that starts the process is its tracer
	defer runtime.UnlockOSThread()
	exe, err := os.Executable()
	require.NoError(t, err)
	out, err := os.OpenFile(filepath.Join(tr.dir, ackedName), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	require.NoError(t, err)
	defer out.Close()        //nolint:errcheck // the process writes to it
	cmd := exec.Command(exe) //nolint:noctx // it is killed with its tracer
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	cmd.Env = append(os.Environ(), playVariable+"="+role+":"+tr.dir, "GOMAXPROCS=1", "GOGC=off")
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		t.Skip("this system does not let a process trace another:", err)
	}
	tr.pid = cmd.Process.Pid
	_, err = syscall.Wait4(tr.pid, &status, 0, nil)
	require.NoError(t, err)
	require.True(t, status.Stopped(), "it stops at its start")
	require.NoError(t, syscall.PtraceSetOptions(tr.pid, syscall.PTRACE_O_TRACESYSGOOD|syscall.PTRACE_O_TRACECLONE|ptraceExitKill))
	tr.resume(tr.pid, 0)
	for {
		thread, err := syscall.Wait4(-1, &status, syscall.WALL|waitThisThread, nil)
		if err == syscall.EINTR {
			continue
		}
		require.NoError(t, err)
		if status.Stopped() {
			tr.stopped(thread, status)
		} else if thread == tr.pid {
			return status
		}
		tr.next()
	}
}

func (tr *trace) resume(thread int, signal syscall.Signal) {
	syscall.PtraceSyscall(thread, int(signal)) //nolint:errcheck // the thread may have been killed
}

// stopped looks at why a thread has stopped, and mostly lets it go on.
func (tr *trace) stopped(thread int, status syscall.WaitStatus) {
	switch signal := status.StopSignal(); signal {
	case syscallStop:
		op, nr, args := syscallOf(thread)
		if op == atEntry && tr.changes(nr, args) {
			tr.waiting = append(tr.waiting, thread)
			return
		}
		if op == atExit && thread == tr.inFlight {
			tr.inFlight = 0
			if tr.failing {
				tr.failing = false
				failed(thread)
			}
			if tr.returns != nil {
				tr.returns(int64(nr)) // this is where the result is, behind a call
			}
		}
		tr.resume(thread, 0)
	case syscall.SIGTRAP, syscall.SIGSTOP: // a new thread
		tr.resume(thread, 0)
	default:
		tr.resume(thread, signal)
	}
}

// next lets the next thread make its call, once no other is at it.
func (tr *trace) next() {
	if tr.inFlight != 0 || len(tr.waiting) == 0 {
		return
	}
	tr.calls++
	if tr.stop(tr.calls) {
		syscall.Kill(tr.pid, syscall.SIGKILL) //nolint:errcheck // it is there: it is our child and stopped
		return
	}
	tr.inFlight, tr.waiting = tr.waiting[0], tr.waiting[1:]
	if _, nr, _ := syscallOf(tr.inFlight); tr.fails != nil && tr.fails(nr) {
		tr.failing = true
		skip(tr.inFlight)
	}
	if tr.enters != nil {
		_, nr, args := syscallOf(tr.inFlight)
		tr.enters(nr, args)
	}
	tr.resume(tr.inFlight, 0)
}

// changes reports whether a call changes a file in dir, or makes it durable.
func (tr *trace) changes(nr uint64, args [6]uint64) bool {
	switch nr {
	case syscall.SYS_RENAMEAT, syscall.SYS_LINKAT, syscall.SYS_UNLINKAT, syscall.SYS_MKDIRAT, syscall.SYS_SYMLINKAT:
		return true
	case syscall.SYS_OPENAT:
		return args[2]&syscall.O_CREAT != 0
	case syscall.SYS_WRITE, syscall.SYS_PWRITE64, syscall.SYS_FTRUNCATE, syscall.SYS_FSYNC, syscall.SYS_FCHMOD:
		file, err := os.Readlink("/proc/" + strconv.Itoa(tr.pid) + "/fd/" + strconv.FormatUint(args[0], 10))
		return err == nil && (strings.HasPrefix(file, tr.dir) || tr.nets && nr == syscall.SYS_WRITE && strings.HasPrefix(file, "socket:"))
	}
	return false
}

// syscallOf returns where in which call a thread is, and with which arguments.
func syscallOf(thread int) (op byte, nr uint64, args [6]uint64) {
	var info [88]byte
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PTRACE, ptraceGetSyscallInfo, uintptr(thread), uintptr(len(info)),
		uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 {
		return 0, 0, args
	}
	nr = binary.NativeEndian.Uint64(info[24:])
	for i := range args {
		args[i] = binary.NativeEndian.Uint64(info[32+8*i:])
	}
	return info[0], nr, args
}
