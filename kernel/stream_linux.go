package kernel

import (
	"syscall"
	"unsafe"
)

// neverBlocks says that Go's connections are descriptors that do not block.
const neverBlocks = true

// readNow and writeNow are read(2) and write(2) on a descriptor that does not
// block. Go's scheduler is not told, as it need not make up for a thread that is
// away: telling it wakes a thread of its own whenever the process was idle,
// which cost more than the call, two context switches a message (Go 1.26,
// entersyscallWakeSysmon).
func readNow(fd uintptr, p []byte) (int, error) { return call(syscall.SYS_READ, fd, p) }

func writeNow(fd uintptr, p []byte) (int, error) { return call(syscall.SYS_WRITE, fd, p) }

func call(number, fd uintptr, p []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall(number, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}
