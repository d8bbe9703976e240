//go:build !linux

package main

import (
	"errors"
	"time"
)

// machineAge is known on Linux only, where the limited hosts are.
func machineAge() (time.Duration, error) { return 0, errors.ErrUnsupported }
