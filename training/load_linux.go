package training

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ticks is how many units of processor time Linux counts a second, on every
// machine that Go knows: see proc_pid_stat(5).
const ticks = 100

// groupsUsage returns what the processes of each process group have, and have
// used. ok is false where that cannot be told.
func groupsUsage(groups []int) (all map[int]usage, ok bool) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, false
	}
	all = map[int]usage{}
	for _, g := range groups {
		all[g] = usage{}
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		group, cpu := groupOf(pid)
		if u, wanted := all[group]; wanted {
			u.cpu += cpu
			u.memory += privateMiB(pid)
			all[group] = u
		}
	}
	return all, true
}

// groupOf returns the process group of a process, and the seconds of processor
// time that it has used, with its children that have ended.
func groupOf(pid int) (group int, cpu float64) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0 // it has just ended
	}
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:]) // a name may hold anything
	const first, groupField, userField, childField = 3, 5, 14, 17
	if len(fields) <= childField-first {
		return 0, 0
	}
	for i := userField; i <= childField; i++ {
		n, _ := strconv.ParseFloat(string(fields[i-first]), 64) // the system writes numbers
		cpu += n / ticks
	}
	group, _ = strconv.Atoi(string(fields[groupField-first])) // likewise
	return group, cpu
}

// privateMiB returns how much memory a process has that is no file's.
func privateMiB(pid int) float64 {
	path := "/proc/" + strconv.Itoa(pid) + "/status"
	var sum int64
	for _, key := range []string{"RssAnon:", "RssShmem:"} {
		if n, ok := keyed(path, key); ok {
			sum += n
		}
	}
	return float64(sum) / 1024
}

// keyed returns the first number behind a key in a file such as /proc/meminfo.
func keyed(path, key string) (int64, bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(data)) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == key {
			n, err := strconv.ParseInt(words[1], 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// hostMemory returns how much memory the machine has for us, in MiB: less where
// a control group has a limit. root is "/", but in tests.
func hostMemory(root string) (free, total float64, ok bool) {
	info := filepath.Join(root, "proc/meminfo")
	available, ok := keyed(info, "MemAvailable:")
	all, known := keyed(info, "MemTotal:")
	if !ok || !known {
		return 0, 0, false
	}
	free, total = float64(available)/1024, float64(all)/1024
	for _, g := range memoryGroups(root) {
		limit, used, ok := g.read()
		if !ok || limit >= total {
			continue
		}
		total = limit
		free = min(free, max(0, limit-used))
	}
	return free, total, true
}

// A memoryGroup is a folder of a control group, and the names of its files.
type memoryGroup struct{ dir, limit, used, cache string }

// memoryGroups returns the control groups that we are in, from the innermost on.
func memoryGroups(root string) []memoryGroup {
	data, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return nil
	}
	var groups []memoryGroup
	for line := range strings.Lines(string(data)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3) // number, controllers, path
		if len(parts) != 3 {
			continue
		}
		g := memoryGroup{filepath.Join(root, "sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"}
		if parts[1] != "" {
			if !strings.Contains(","+parts[1]+",", ",memory,") {
				continue
			}
			g = memoryGroup{filepath.Join(root, "sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"}
		}
		top := g.dir
		for path := filepath.Join("/", parts[2]); ; path = filepath.Dir(path) { // within a container the path may be that of the world outside
			g.dir = filepath.Join(top, path)
			groups = append(groups, g)
			if path == "/" {
				break
			}
		}
	}
	return groups
}

// read returns the limit of the group and what it uses of it, in MiB, without
// what the system would give back. ok is false if it has no limit.
func (g memoryGroup) read() (limit, used float64, ok bool) {
	most, ok := number(filepath.Join(g.dir, g.limit))
	now, known := number(filepath.Join(g.dir, g.used))
	if !ok || !known {
		return 0, 0, false
	}
	cache, _ := count(filepath.Join(g.dir, "memory.stat"), g.cache) // none is none
	return float64(most) / (1 << 20), float64(max(0, now-cache)) / (1 << 20), true
}

// number reads a file that holds one.
func number(path string) (int64, bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return n, err == nil
}
