package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// clockTicks is USER_HZ, in which Linux tells times to programs: 100 on every
// architecture that Go runs on.
const clockTicks = 100

// machineAge returns how long this machine is up: in a container, how long its
// first process is.
func machineAge() (time.Duration, error) {
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return 0, err
	}
	stat, err := os.ReadFile("/proc/1/stat")
	if err != nil {
		return 0, err
	}
	seconds, _, _ := bytes.Cut(uptime, []byte(" "))
	up, err := strconv.ParseFloat(string(seconds), 64)
	if err != nil {
		return 0, fmt.Errorf("read /proc/uptime: %w", err)
	}
	// The name, the second field, may hold anything, so we count behind it.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("read /proc/1/stat: %d fields", len(fields))
	}
	ticks, err := strconv.ParseFloat(string(fields[19]), 64)
	if err != nil {
		return 0, fmt.Errorf("read /proc/1/stat: %w", err)
	}
	return time.Duration((up - ticks/clockTicks) * float64(time.Second)), nil
}
