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

// childDir makes a folder for sockets, below temp if that is short enough.
func childDir(temp string) (string, error) {
	if len(temp) > maxSocketPath-len("/outlast-4194304-0123456789/s-1") {
		temp = "/tmp"
	}
	return ownDir(temp)
}

// ownDir makes a folder below parent that only we can look into, and sweeps those
// of kernels that were killed. Its user occupies it.
func ownDir(parent string) (string, error) {
	old, err := filepath.Glob(filepath.Join(parent, "outlast-*-*"))
	if err != nil {
		return "", err
	}
	for _, dir := range old {
		if unused(dir) {
			os.RemoveAll(dir) //nolint:errcheck // another user's, perhaps
		}
	}
	return os.MkdirTemp(parent, fmt.Sprintf("outlast-%d-", os.Getpid()))
}

// occupy says that a folder is in use, until leave is called or this process
// ends. A lock says so to other containers and machines too, where the number of
// a process means nothing.
func occupy(dir string) (leave func()) {
	lock := flock.New(filepath.Join(dir, lockName), flock.SetFlag(os.O_CREATE|os.O_RDWR))
	lock.TryLock()                 //nolint:errcheck // where there are no locks nobody else gets it, and sweeps
	return func() { lock.Close() } //nolint:errcheck // it is to be removed
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
