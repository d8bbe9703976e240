package training

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// shelfPrefix begins the names of shelves.
	shelfPrefix = "outlast-staging-"
	// shelfTries is how often a shelf is made again that was swept before it was
	// held.
	shelfTries = 10
)

// openShelf makes a shelf below root, for this user alone, and holds it. Root has
// to be in memory.
func openShelf(root string) (dir string, held *os.File, err error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(root, &fs); err != nil {
		return "", nil, err
	}
	if fs.Type != unix.TMPFS_MAGIC {
		return "", nil, fmt.Errorf("%s is not in memory", root)
	}
	for range shelfTries {
		if dir, err = os.MkdirTemp(root, shelfPrefix); err != nil { // its mode is 0700
			return "", nil, err
		}
		if held = holdShelf(dir); held != nil {
			return dir, held, nil
		}
	}
	return "", nil, errors.New("it was swept again and again")
}

// holdShelf locks a shelf, which says that it is in use; nil if somebody else has,
// or it is not there any more. The lock ends with its holder, and is seen in every
// container that shares the memory.
func holdShelf(dir string) *os.File {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	var is, there os.FileInfo
	if err == nil {
		is, err = f.Stat()
	}
	if err == nil {
		there, err = os.Lstat(dir) // who swept it meanwhile held it, too
	}
	if err != nil || !os.SameFile(is, there) {
		f.Close() //nolint:errcheck // it was only looked at
		return nil
	}
	return f
}

// sweepShelves removes this user's shelves that nobody holds: their supervisors
// were killed.
func sweepShelves(root string) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), shelfPrefix) {
			continue
		}
		dir := filepath.Join(root, e.Name())
		held := holdShelf(dir)
		if held == nil {
			continue
		}
		if info, err := held.Stat(); err == nil && ownedByUs(info) {
			os.RemoveAll(dir) //nolint:errcheck // it is tried again at the next start
		}
		held.Close() //nolint:errcheck // it was only held
	}
}

func ownedByUs(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}
