package training

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// identitySize is the length of an identity on disk. It is always written
// whole, over the one before, so that no reader finds half of one.
const identitySize = 40

// An identity names a process so that a later one with the same number is not
// taken for it.
type identity struct {
	pid   int
	began uint64 // in units of the system; 0 where it cannot be told
}

// identify returns the identity of the process that has the number pid now.
func identify(pid int) identity { return identity{pid, startTime(pid)} }

// line returns id as it is written to lock files.
func (id identity) line() []byte {
	if id.pid == 0 {
		return fmt.Appendf(nil, "%*s\n", identitySize-1, "")
	}
	return fmt.Appendf(nil, "%-*s\n", identitySize-1, fmt.Sprintf("%d %d", id.pid, id.began))
}

// writeIdentity says in a lock file who holds it; the zero identity takes that
// back.
func writeIdentity(path string, id identity) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(id.line(), 0)
	return errors.Join(err, f.Close())
}

// readIdentity returns what a lock file says of its holder. The zero identity
// means that it does not say.
func readIdentity(path string) identity {
	data, err := os.ReadFile(path)
	if err != nil {
		return identity{}
	}
	var id identity
	words := strings.Fields(string(data))
	if len(words) != 2 {
		return identity{}
	}
	if id.pid, err = strconv.Atoi(words[0]); err != nil || id.pid < 2 {
		return identity{}
	}
	if id.began, err = strconv.ParseUint(words[1], 10, 64); err != nil {
		return identity{}
	}
	return id
}

// replaced reports whether another process has the number now.
func (id identity) replaced() bool {
	now := startTime(id.pid)
	return now != 0 && id.began != 0 && now != id.began
}

// here reports whether the process is there. Where start times cannot be told,
// any process of its number will do.
func (id identity) here() bool {
	return id.pid != 0 && !id.replaced() && exists(id.pid)
}

// signal sends a signal to the process and to no other.
func (id identity) signal(sig os.Signal) error {
	p, err := os.FindProcess(id.pid) // on Linux this holds on to the process
	if err != nil {
		return err
	}
	defer p.Release() //nolint:errcheck // it was only named
	if id.pid == 0 || id.replaced() {
		return os.ErrProcessDone
	}
	return p.Signal(sig)
}

// killGroup ends everything in the group that the process leads or led. Its
// number is not given to another process as long as the group has members.
func (id identity) killGroup() error {
	if id.pid == 0 || id.replaced() {
		return os.ErrProcessDone
	}
	return killGroup(id.pid)
}
