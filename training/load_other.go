//go:build !linux

package training

// groupsUsage returns what the processes of each process group have, and have
// used. ok is false where that cannot be told.
func groupsUsage([]int) (all map[int]usage, ok bool) { return nil, false }

// hostMemory returns how much memory the machine has for us, in MiB.
func hostMemory(string) (free, total float64, ok bool) { return 0, 0, false }
