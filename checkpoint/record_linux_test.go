package checkpoint_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A recorder writes down what a process does to the files in a folder, call by
// call, for a disk that loses some of it.
type recorder struct {
	t    *testing.T
	tr   *trace
	disk *disk
	acks []ack

	pending func(result int64) // what the call under way comes to
}

// An ack is one line that the process has printed: a promise, made when so many
// changes were made.
type ack struct {
	at   int
	line string
}

// record runs a role in dir to its end. What is there before is on the medium.
func record(t *testing.T, role, dir string) *recorder {
	t.Helper()
	r := &recorder{t: t, disk: newDisk()}
	for _, name := range namesIn(t, dir) {
		require.Equal(t, storeName, name, "nothing else is there")
	}
	r.tr = &trace{dir: dir, stop: func(int) bool { return false }, enters: r.enters, returns: r.returns}
	status := r.tr.run(t, role)
	require.True(t, status.Exited() && status.ExitStatus() == 0, "it ends as it should: %v", status)
	require.Equal(t, tree(t, dir), r.disk.after(len(r.disk.changes), everything{}), "what was recorded is what is there")
	return r
}

// tree returns the content of a folder, by path; a folder's path ends with a
// slash.
func tree(t *testing.T, dir string) files {
	t.Helper()
	found := files{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		name, _ := filepath.Rel(dir, path)
		switch {
		case err != nil || name == "." || name == ackedName || name == storeName:
			return err
		case d.IsDir():
			found[name+"/"] = ""
			return nil
		}
		text, err := os.ReadFile(path)
		found[name] = string(text)
		return err
	}))
	return found
}

// enters looks at a call before it is made: it is the only one under way.
func (r *recorder) enters(nr uint64, args [6]uint64) {
	r.pending = func(int64) {}
	switch nr {
	case unix.SYS_OPENAT:
		path, flags := r.path(args[0], args[1]), args[2]
		r.pending = func(int64) { r.disk.open(path, flags&unix.O_TRUNC != 0) }
	case unix.SYS_MKDIRAT:
		path := r.path(args[0], args[1])
		r.pending = func(int64) { r.disk.mkdir(path) }
	case unix.SYS_UNLINKAT:
		path := r.path(args[0], args[1])
		r.pending = func(int64) { r.disk.remove(path) }
	case unix.SYS_RENAMEAT:
		from, to := r.path(args[0], args[1]), r.path(args[2], args[3])
		r.pending = func(int64) { r.disk.rename(from, to) }
	case unix.SYS_LINKAT:
		from, to := r.path(args[0], args[1]), r.path(args[2], args[3])
		r.pending = func(int64) { r.disk.link(from, to) }
	case unix.SYS_WRITE, unix.SYS_PWRITE64:
		r.writes(nr, args)
	case unix.SYS_FTRUNCATE:
		path, size := r.file(args[0]), int(args[1])
		r.pending = func(int64) { r.disk.truncate(path, size) }
	case unix.SYS_FSYNC:
		path := r.file(args[0])
		r.pending = func(int64) { r.disk.sync(path) }
	case unix.SYS_FCHMOD:
	default:
		r.t.Errorf("call %d changes files, and the model does not know how", nr)
	}
}

func (r *recorder) writes(nr uint64, args [6]uint64) {
	path, data := r.file(args[0]), r.memory(args[1], int(args[2]))
	if path == ackedName {
		r.acks = append(r.acks, ack{len(r.disk.changes), strings.TrimSuffix(string(data), "\n")})
		return
	}
	at := int(args[3])
	if nr == unix.SYS_WRITE {
		at = r.position(args[0], path)
	}
	r.pending = func(n int64) { r.disk.write(path, at, data[:n]) }
}

// returns notes what a call has done; those that failed have done nothing.
func (r *recorder) returns(result int64) {
	if result >= 0 {
		r.pending(result)
	}
}

// proc returns the path of something of the process in /proc.
func (r *recorder) proc(below string) string {
	return "/proc/" + strconv.Itoa(r.tr.pid) + "/" + below
}

// memory returns n bytes of the process.
func (r *recorder) memory(address uint64, n int) []byte {
	f, err := os.Open(r.proc("mem"))
	require.NoError(r.t, err)
	defer f.Close() //nolint:errcheck // it was only read
	data := make([]byte, n)
	got, err := f.ReadAt(data, int64(address))
	if got < n && n != unix.PathMax { // a path ends before its page does
		require.NoError(r.t, err)
	}
	return data[:got]
}

// path returns which file of the folder a call names.
func (r *recorder) path(folder, address uint64) string {
	name, _, whole := bytes.Cut(r.memory(address, unix.PathMax), []byte{0})
	require.True(r.t, whole)
	path := string(name)
	if !filepath.IsAbs(path) {
		require.NotEqual(r.t, int32(unix.AT_FDCWD), int32(folder), "no process changes its folder: %s", path)
		path = filepath.Join(r.link(folder), path)
	}
	return r.below(path)
}

// file returns which file of the folder is open under a number.
func (r *recorder) file(fd uint64) string { return r.below(r.link(fd)) }

func (r *recorder) link(fd uint64) string {
	path, err := os.Readlink(r.proc("fd/" + strconv.FormatUint(fd, 10)))
	require.NoError(r.t, err)
	return path
}

func (r *recorder) below(path string) string {
	name, err := filepath.Rel(r.tr.dir, path)
	require.NoError(r.t, err)
	if !filepath.IsLocal(name) { // elsewhere: nothing of ours
		return ""
	}
	return name
}

// position returns where in a file the next write of an open file goes.
func (r *recorder) position(fd uint64, path string) int {
	text, err := os.ReadFile(r.proc("fdinfo/" + strconv.FormatUint(fd, 10)))
	require.NoError(r.t, err)
	var pos, flags int
	_, err = fmt.Sscanf(string(text), "pos:%d\nflags:%o", &pos, &flags)
	require.NoError(r.t, err)
	if flags&syscall.O_APPEND != 0 {
		return r.disk.size(path)
	}
	return pos
}
