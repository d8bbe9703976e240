//go:build unix

package main

import "golang.org/x/sys/unix"

// freeDisk returns the bytes free for this user at path.
func freeDisk(path string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, err
	}
	return st.Bavail * uint64(st.Bsize), nil
}
