package training

import (
	"errors"
	"syscall"
)

func freeSpace(string) (free, total uint64, err error) { return 0, 0, errors.ErrUnsupported }

// fullErrors are ERROR_HANDLE_DISK_FULL and ERROR_DISK_FULL.
func fullErrors() []error { return []error{syscall.Errno(39), syscall.Errno(112)} }
