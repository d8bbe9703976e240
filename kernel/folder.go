package kernel

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

const (
	// maxSocketPath is what the shortest sockaddr_un of our platforms can hold.
	maxSocketPath = 100
	// lockName is the file that the user of a folder has locked.
	lockName = "lock"
	// settling is how long a folder counts as new: its maker may not have locked
	// it yet.
	settling = time.Minute
)

// A folder is one that only we can look into, until it is removed or this process
// ends. Its lock says so to other containers and machines too, where the number of
// a process means nothing.
type folder struct {
	path string
	lock *flock.Flock
}

// socketFolder makes a folder for sockets, below temp if that is short enough.
func socketFolder(temp string) (*folder, error) {
	if len(temp) > maxSocketPath-len("/outlast-4194304-0123456789/s-1") {
		temp = "/tmp"
	}
	return newFolder(temp)
}

// newFolder makes a folder below parent, and sweeps those of kernels that were
// killed.
func newFolder(parent string) (*folder, error) {
	old, err := filepath.Glob(filepath.Join(parent, "outlast-*-*"))
	if err != nil {
		return nil, err
	}
	for _, dir := range old {
		if unused(dir) {
			os.RemoveAll(dir) //nolint:errcheck // another user's, perhaps
		}
	}
	path, err := os.MkdirTemp(parent, fmt.Sprintf("outlast-%d-", os.Getpid()))
	if err != nil {
		return nil, err
	}
	return lockFolder(path), nil
}

func lockFolder(path string) *folder {
	lock := flock.New(filepath.Join(path, lockName), flock.SetFlag(os.O_CREATE|os.O_RDWR))
	lock.TryLock() //nolint:errcheck // where there are no locks nobody else gets it, and sweeps
	return &folder{path, lock}
}

// remove removes the folder. It may be called again.
func (f *folder) remove() {
	f.lock.Close()       //nolint:errcheck // it goes with the folder
	os.RemoveAll(f.path) //nolint:errcheck // swept at the next start
}

// unused reports whether nobody uses a folder any more.
func unused(dir string) bool {
	path := filepath.Join(dir, lockName)
	info, err := os.Stat(path)
	if err != nil || time.Since(info.ModTime()) < settling {
		return false
	}
	lock := flock.New(path, flock.SetFlag(os.O_RDWR))
	free, err := lock.TryLock()
	if free {
		lock.Close() //nolint:errcheck // it was only tried
	}
	return free && err == nil
}
