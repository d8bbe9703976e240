//go:build unix

package drive_test

import (
	"os/signal"
	"syscall"
)

// limitFiles has this process's files end as on a full disk.
func limitFiles(bytes int) error {
	if bytes == 0 {
		return nil
	}
	signal.Ignore(syscall.SIGXFSZ)
	limit := syscall.Rlimit{Cur: uint64(bytes), Max: uint64(bytes)}
	return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit)
}
