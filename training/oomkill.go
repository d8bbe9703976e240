package training

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// oomKills returns how many processes around us the kernel has ended for their
// memory since the machine, or our container, was started; 0 where that cannot
// be told. root is "/", but in tests.
//
// Control groups of version 2 count in memory.events, those of version 1 in
// memory.oom_control; without either there is the count for the whole machine.
func oomKills(root string) int64 {
	group, err := os.Open(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return 0
	}
	defer group.Close() //nolint:errcheck // it was only read
	var files []string
	lines := bufio.NewScanner(group)
	for lines.Scan() {
		parts := strings.SplitN(lines.Text(), ":", 3) // number, controllers, path
		if len(parts) != 3 {
			continue
		}
		// Within a container the path may be that of the world outside.
		for _, path := range []string{parts[2], "/"} {
			if parts[1] == "" {
				files = append(files, filepath.Join("sys/fs/cgroup", path, "memory.events"))
			} else if strings.Contains(","+parts[1]+",", ",memory,") {
				files = append(files, filepath.Join("sys/fs/cgroup/memory", path, "memory.oom_control"))
			}
		}
	}
	for _, file := range append(files, "proc/vmstat") {
		if n, ok := count(filepath.Join(root, file), "oom_kill"); ok {
			return n
		}
	}
	return 0
}

// A killCount tells which attempts the kernel has ended for their memory: each
// kill that it counts accounts for one of those that were killed. It is safe for
// concurrent use.
type killCount struct {
	mu      sync.Mutex
	running int
	settled int64 // as far as the count is accounted for
}

// begin is called when an attempt begins, with the kernel's count.
func (k *killCount) begin(now int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.running++; k.running == 1 {
		k.settled = now
	}
}

// end is called when an attempt has ended, and returns how many kills there are
// that nobody has accounted for. If it was killed, it accounts for one.
func (k *killCount) end(now int64, killed bool) int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.running--
	left := now - k.settled
	if killed && left > 0 {
		k.settled++
	}
	return left
}

// count returns the number behind a key in a file of keys and numbers.
func count(path, key string) (int64, bool) {
	f, err := os.Open(path)
	if err != nil {
		return 0, false
	}
	defer f.Close() //nolint:errcheck // it was only read
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), key+" "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
