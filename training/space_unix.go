//go:build unix

package training

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// freeSpace returns the bytes that we may still write at path, and the size of
// that disk.
func freeSpace(path string) (free, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, 0, err
	}
	block := uint64(st.Bsize)
	return uint64(st.Bavail) * block, uint64(st.Blocks) * block, nil //nolint:unconvert // likewise
}

func fullErrors() []error { return []error{syscall.ENOSPC, syscall.EDQUOT} }
