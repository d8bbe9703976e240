package kernel

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Where Linux tells of control groups.
const (
	procFolder   = "/proc"
	cgroupFolder = "/sys/fs/cgroup"
)

// An oomCounter is the file in which a control group counts the processes that
// were killed because memory ran out: https://docs.kernel.org/admin-guide/cgroup-v2.html.
// The empty one counts nothing.
type oomCounter string

// oomCounterOf returns the counter of the group that process pid is in.
func oomCounterOf(proc, cgroup string, pid int) oomCounter {
	data, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return "" // no Linux, or the process has ended
	}
	var unified, memory string
	for line := range strings.Lines(string(data)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(fields) != 3:
		case fields[0] == "0" && fields[1] == "":
			unified = fields[2]
		case strings.Contains(","+fields[1]+",", ",memory,"):
			memory = fields[2]
		}
	}
	// In a container the path may be the host's: then the group is the root of
	// what can be seen.
	for _, path := range []string{
		filepath.Join(cgroup, "memory", memory, "memory.oom_control"),
		filepath.Join(cgroup, unified, "memory.events"),
		filepath.Join(cgroup, "memory", "memory.oom_control"),
		filepath.Join(cgroup, "memory.events"),
	} {
		if _, ok := oomCounter(path).read(); ok {
			return oomCounter(path)
		}
	}
	return ""
}

// read returns the count, if there is one.
func (c oomCounter) read() (int64, bool) {
	if c == "" {
		return 0, false
	}
	file, err := os.Open(string(c))
	if err != nil {
		return 0, false
	}
	defer file.Close() //nolint:errcheck // it was only read
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "oom_kill "); ok {
			n, err := strconv.ParseInt(value, 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
