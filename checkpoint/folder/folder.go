// Package folder is the store in a folder: a second disk, a network drive, a
// mounted cloud drive. It vouches for no more than that the folder has accepted
// a file and reads it back the same.
package folder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"outlast/checkpoint"
	"outlast/checkpoint/durable"
)

// leftoverAge is when a file that is still being written is a leftover: no write
// rests that long, and no clock of a network drive is that wrong.
const leftoverAge = 48 * time.Hour

// A Store is a folder. It is safe for concurrent use.
type Store struct {
	root string

	mu   sync.Mutex
	busy map[string]chan struct{} // path → closed when its change has ended
}

var _ checkpoint.Store = (*Store)(nil)

// Parse returns the folder that a store's URL names: a path, or file:/path. It
// reports false for another kind of URL.
func Parse(url string) (path string, ok bool) {
	if rest, found := strings.CutPrefix(url, "file:"); found {
		path = strings.TrimPrefix(rest, "//")
		return path, path != ""
	}
	scheme, _, found := strings.Cut(url, ":")
	if found && len(scheme) > 1 && !strings.ContainsAny(scheme, `/\.`) { // one letter is a Windows drive
		return "", false
	}
	return url, url != ""
}

// AccessError says that a folder cannot serve as a store.
type AccessError struct {
	Path string
	Err  error
}

func (e *AccessError) Error() string {
	return "use the folder " + e.Path + " as store: " + e.Err.Error()
}

// Unwrap returns the reason.
func (e *AccessError) Unwrap() error { return e.Err }

// Cure says what to do.
func (e *AccessError) Cure() string {
	return "choose a folder that you may write to; it is made if it is missing"
}

// New returns the store in root, which is made if it is missing, and tries
// whether it can be written to.
func New(root string) (*Store, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, &AccessError{root, err}
	}
	if err := durable.MkdirAll(root); err != nil {
		return nil, &AccessError{root, err}
	}
	// A walk does not follow a link, not even where it begins.
	root, err = filepath.EvalSymlinks(root)
	if err != nil {
		return nil, &AccessError{root, err}
	}
	f, err := os.CreateTemp(root, "probe"+durable.TempMark)
	if err != nil {
		return nil, &AccessError{root, err}
	}
	f.Close()           //nolint:errcheck // it is empty
	os.Remove(f.Name()) //nolint:errcheck // it is empty, and named as what it is
	return &Store{root: root, busy: map[string]chan struct{}{}}, nil
}

// lock waits until nobody else changes path. Without it a Put would read back
// what another has just put there.
func (s *Store) lock(ctx context.Context, path string) (unlock func(), err error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s.mu.Lock()
		other := s.busy[path]
		if other == nil {
			mine := make(chan struct{})
			s.busy[path] = mine
			s.mu.Unlock()
			return func() {
				s.mu.Lock()
				delete(s.busy, path)
				s.mu.Unlock()
				close(mine)
			}, nil
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-other:
		}
	}
}

// path returns where a name lives, and refuses one that would leave the root or
// is the root.
func (s *Store) path(name string) (string, error) {
	local := filepath.FromSlash(name)
	if !filepath.IsLocal(local) || filepath.Clean(local) == "." {
		return "", fmt.Errorf("name %q leads outside the store", name)
	}
	return filepath.Join(s.root, local), nil
}

// absent reports whether an error says that there is no file of a name.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// Put implements checkpoint.Store. It reads the file back before it says
// handed: some drives accept what they do not keep.
func (s *Store) Put(ctx context.Context, name string, r io.Reader, want durable.Digest) (checkpoint.Durability, error) {
	path, err := s.path(name)
	if err != nil {
		return "", err
	}
	unlock, err := s.lock(ctx, path)
	if err != nil {
		return "", err
	}
	defer unlock()
	written, err := durable.WriteFile(path, durable.Reader(ctx, r), &want)
	if err != nil {
		return "", err
	}
	back, err := readBack(ctx, path)
	if err != nil {
		return "", fmt.Errorf("read %s back: %w", name, err)
	}
	if !back.Matches(written) {
		return "", fmt.Errorf("read %s back: %w", name, durable.ErrContent)
	}
	return checkpoint.Handed, nil
}

// readBack returns what path holds now.
func readBack(ctx context.Context, path string) (durable.Digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return durable.Digest{}, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	return durable.Hash(durable.Reader(ctx, f))
}

// Get implements checkpoint.Store.
func (s *Store) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	path, err := s.path(name)
	if err = errors.Join(err, ctx.Err()); err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if absent(err) || err == nil && !info.Mode().IsRegular() { // a pipe would never be open
		return nil, fmt.Errorf("%s: %w", name, checkpoint.ErrNotFound)
	}
	f, err := os.Open(path)
	if absent(err) { // removed meanwhile
		return nil, fmt.Errorf("%s: %w", name, checkpoint.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{durable.Reader(ctx, f), f}, nil
}

// List implements checkpoint.Store. What a crash left of a write is not listed,
// and removed once nobody can be at it any more.
func (s *Store) List(ctx context.Context, prefix string) ([]checkpoint.Entry, error) {
	path, err := s.path(strings.TrimSuffix(prefix, "/"))
	if prefix == "" {
		path, err = s.root, nil
	}
	if err = errors.Join(err, ctx.Err()); err != nil {
		return nil, err
	}
	var entries []checkpoint.Entry
	err = filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
		if absent(err) {
			return nil // removed meanwhile
		}
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if durable.IsTemp(d.Name()) {
			if time.Since(info.ModTime()) > leftoverAge {
				os.Remove(path) //nolint:errcheck // it costs space only, and the next List tries again
				s.tidy(path)
			}
			return nil
		}
		name, err := filepath.Rel(s.root, path)
		if err != nil {
			return err
		}
		if name = filepath.ToSlash(name); strings.HasPrefix(name, prefix) {
			entries = append(entries, checkpoint.Entry{Name: name, Size: info.Size()})
		}
		return nil
	})
	return entries, err
}

// Delete implements checkpoint.Store. Folders that become empty go too, so that
// the store is pleasant to look at.
func (s *Store) Delete(ctx context.Context, name string) error {
	path, err := s.path(name)
	if err != nil {
		return err
	}
	unlock, err := s.lock(ctx, path)
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.Remove(path); err != nil && !absent(err) {
		return err
	}
	s.tidy(path)
	return nil
}

// tidy removes the folders that path was the last file of.
func (s *Store) tidy(path string) {
	for dir := filepath.Dir(path); dir != s.root; dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil { // not empty
			break
		}
	}
}
