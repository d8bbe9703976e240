package kernel

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// unmapProgram lets go of the program's own pages: those that are needed are
// mapped again from the system's cache when they are, at a microsecond for many.
// A start runs through most of the file, and is over in 20 ms; without this its
// pages count as the process's memory for good, whole ones of 2 MiB where the
// system has such, and are the last that it reclaims where memory is short.
func unmapProgram() {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return
	}
	for _, area := range programAreas(string(maps), exe) {
		// Both are advice: what is refused stays as it is.
		unix.Syscall(unix.SYS_MADVISE, area.from, area.size, unix.MADV_NOHUGEPAGE) //nolint:errcheck // see above
		unix.Syscall(unix.SYS_MADVISE, area.from, area.size, unix.MADV_DONTNEED)   //nolint:errcheck // see above
	}
}

// An area is a part of a process's memory, in bytes.
type area struct{ from, size uintptr }

// programAreas returns the areas in smaps that map exe, cannot be written and
// never were: all of their pages are those of the file; see proc_pid_smaps(5).
func programAreas(smaps, exe string) []area {
	var found []area
	var last area
	for line := range strings.Lines(smaps) {
		line = strings.TrimSuffix(line, "\n")
		key, value, _ := strings.Cut(line, " ")
		switch value = strings.TrimSpace(value); {
		case !strings.HasSuffix(key, ":"): // the first line of an area
			last = area{}
			if from, to, ok := strings.Cut(key, "-"); ok && strings.HasSuffix(value, " "+exe) && readOnly(value) {
				begin, beginErr := strconv.ParseUint(from, 16, strconv.IntSize)
				end, endErr := strconv.ParseUint(to, 16, strconv.IntSize)
				if beginErr == nil && endErr == nil {
					last = area{uintptr(begin), uintptr(end - begin)}
				}
			}
		case key == "Anonymous:" && value == "0 kB" && last.size > 0:
			found = append(found, last)
		}
	}
	return found
}

// readOnly reports whether an area's permissions, as in r-xp, allow no writing.
func readOnly(permissions string) bool {
	return len(permissions) > 1 && permissions[0] == 'r' && permissions[1] == '-'
}
