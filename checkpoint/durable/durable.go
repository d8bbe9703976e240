// Package durable is the one durable write: what it has returned from survives
// a power cut, and what it has not finished does not exist.
//
// It knows nothing of checkpoints or runs. The order of steps follows what
// POSIX promises about rename and fsync; see rename(2) and fsync(2).
package durable

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// TempMark is in the name of every file that is being written. Leftovers of a
// crash are recognised by it.
const TempMark = ".outlast-tmp-"

// createTries is how often a folder that vanishes at once is made again.
const createTries = 100

// IsTemp reports whether a file of this name is being written, or is the
// leftover of a write that a crash interrupted.
func IsTemp(name string) bool { return strings.Contains(name, TempMark) }

// A Digest says what a file holds.
type Digest struct {
	Size   int64  // bytes
	SHA256 string // hex, lower case; empty means unknown
	Synced bool   // the file system confirmed that the content is on its medium
}

// Matches reports whether d and want are the same content; an unknown SHA-256
// in want matches any.
func (d Digest) Matches(want Digest) bool {
	return d.Size == want.Size && (want.SHA256 == "" || d.SHA256 == want.SHA256)
}

// ErrContent says that what was read is not what was announced.
var ErrContent = errors.New("content differs from its digest")

// ErrLost says that a file could not be synced: its content may be something
// else from now on, whatever a later sync says.
var ErrLost = errors.New("what was written may be lost")

// WriteFile writes r to path so that path has the old content or the new one,
// whatever happens. If want is given, other content is refused with ErrContent
// and path keeps what it had. Folders that are missing are made.
func WriteFile(path string, r io.Reader, want *Digest) (Digest, error) {
	f, err := create(path)
	if err != nil {
		return Digest{}, fmt.Errorf("write %s: %w", path, err)
	}
	d, err := fill(f, f, r, want)
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = SyncDir(filepath.Dir(path))
	}
	if err != nil {
		os.Remove(f.Name()) //nolint:errcheck // a leftover is swept at the next start
		return Digest{}, fmt.Errorf("write %s: %w", path, err)
	}
	return d, nil
}

// NewFile writes r to path, which must not be there, durably. It is for a folder
// that nobody takes for whole yet: a crash leaves half a file. A large content
// does not stay in the page cache: it is not expected to be read soon.
func NewFile(path string, r io.Reader) (Digest, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return Digest{}, err
	}
	d, err := fill(f, &bypass{f: f}, r, nil)
	if err != nil {
		return Digest{}, fmt.Errorf("write %s: %w", path, err)
	}
	return d, nil
}

// create makes the temporary file for path, beside it: a rename is atomic only
// within one file system. Somebody who removes empty folders may take the folder
// away before the file is in it; then it is made again.
func create(path string) (f *os.File, err error) {
	for range createTries {
		if err = MkdirAll(filepath.Dir(path)); err == nil {
			f, err = os.CreateTemp(filepath.Dir(path), tempPattern(filepath.Base(path)))
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return f, err
}

// tempPattern returns the pattern of temporary names for base. Only its begin is
// for people: a name may be as long as the file system lets it be.
func tempPattern(base string) string {
	const begin = 100 // bytes
	if len(base) > begin {
		base = strings.ToValidUTF8(base[:begin], "")
	}
	return base + TempMark
}

// fill copies r into f by way of w, syncs and closes it.
func fill(f *os.File, w io.Writer, r io.Reader, want *Digest) (Digest, error) {
	d, err := copyHashed(w, r)
	if err == nil && want != nil && !d.Matches(*want) {
		err = fmt.Errorf("%w: %d bytes with SHA-256 %s", ErrContent, d.Size, d.SHA256)
	}
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		d.Synced, err = syncFile(f)
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return d, err
}

// WriteJSON writes v as indented JSON, durably.
func WriteJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	_, err = WriteFile(path, strings.NewReader(string(data)+"\n"), nil)
	return err
}

// syncFile syncs f. A file system that has no fsync is no error: the caller is
// told. Any other failure is final for what f holds, also that of a full disk:
// the kernel drops the pages that it could not write, or calls them clean, and
// tells so once. Whoever has the content elsewhere writes it to another file;
// SyncFile has not, and says ErrLost. What a Log has lost are lines since its
// last sync.
func syncFile(f *os.File) (bool, error) {
	err := f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return false, nil
	}
	return err == nil, err
}

// SyncDir makes the entries of a folder durable, as far as its file system
// knows how to.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close() //nolint:errcheck // it was only read
	if _, err := syncFile(d); err != nil && !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("sync folder %s: %w", path, err)
	}
	return nil // Windows refuses to sync folders, and needs no such sync
}

// MkdirAll makes a folder and its missing parents, and makes each of them
// durable.
func MkdirAll(path string) error {
	if info, err := os.Stat(path); err == nil {
		if !info.IsDir() {
			return fmt.Errorf("make folder %s: a file of this name is in the way", path)
		}
		return nil
	}
	parent := filepath.Dir(path)
	if parent != path {
		if err := MkdirAll(parent); err != nil {
			return err
		}
	}
	made := os.Mkdir(path, 0o755)
	if made != nil && !errors.Is(made, fs.ErrExist) {
		return fmt.Errorf("make folder: %w", made)
	}
	err := SyncDir(parent)
	if err != nil && made == nil {
		os.Remove(path) //nolint:errcheck // whoever asks again must not find it, and take it for durable
	}
	return err
}

// Rename moves a folder or file within one file system, durably.
func Rename(from, to string) error {
	if err := MkdirAll(filepath.Dir(to)); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	if err := SyncDir(filepath.Dir(to)); err != nil {
		return err
	}
	if filepath.Dir(from) == filepath.Dir(to) {
		return nil
	}
	return SyncDir(filepath.Dir(from))
}

// Sweep removes the leftovers of writes that a crash interrupted, below dir.
// Nobody may be writing there.
func Sweep(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if !d.IsDir() && IsTemp(d.Name()) {
			return os.Remove(path)
		}
		return nil
	})
}
