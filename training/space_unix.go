//go:build unix

package training

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// freeSpace returns the bytes that we may still write at path.
func freeSpace(path string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, err
	}
	return uint64(st.Bavail) * uint64(st.Bsize), nil //nolint:unconvert // signed on some systems
}

func fullErrors() []error { return []error{syscall.ENOSPC, syscall.EDQUOT} }
