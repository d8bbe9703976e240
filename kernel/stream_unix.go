//go:build unix && !linux

package kernel

import (
	"errors"
	"syscall"
)

// neverBlocks says that Go's connections are descriptors that do not block.
const neverBlocks = true

func readNow(fd uintptr, p []byte) (int, error) { return call(syscall.Read, fd, p) }

func writeNow(fd uintptr, p []byte) (int, error) { return call(syscall.Write, fd, p) }

func call(f func(int, []byte) (int, error), fd uintptr, p []byte) (int, error) {
	for {
		n, err := f(int(fd), p)
		if !errors.Is(err, syscall.EINTR) {
			return max(n, 0), err
		}
	}
}
