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

	"outlast/checkpoint"
	"outlast/checkpoint/durable"
)

// A Store is a folder. It is safe for concurrent use.
type Store struct {
	root string
}

var _ checkpoint.Store = (*Store)(nil)

// Parse returns the folder that a store's URL names: a path, or file:/path. It
// reports false for another kind of URL.
func Parse(url string) (path string, ok bool) {
	if rest, found := strings.CutPrefix(url, "file:"); found {
		return strings.TrimPrefix(rest, "//"), rest != ""
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
	f, err := os.CreateTemp(root, ".outlast-probe-")
	if err != nil {
		return nil, &AccessError{root, err}
	}
	f.Close()           //nolint:errcheck // it is empty
	os.Remove(f.Name()) //nolint:errcheck // it is empty, and named as what it is
	return &Store{root}, nil
}

// path returns where a name lives, and refuses one that would leave the root.
func (s *Store) path(name string) (string, error) {
	local := filepath.FromSlash(name)
	if !filepath.IsLocal(local) {
		return "", fmt.Errorf("name %q leads outside the store", name)
	}
	return filepath.Join(s.root, local), nil
}

// Put implements checkpoint.Store. It reads the file back before it says
// handed: some drives accept what they do not keep.
func (s *Store) Put(ctx context.Context, name string, r io.Reader, want durable.Digest) (checkpoint.Durability, error) {
	path, err := s.path(name)
	if err != nil {
		return "", err
	}
	written, err := durable.WriteFile(path, reader{ctx, r}, &want)
	if err != nil {
		return "", err
	}
	back, err := durable.HashFile(path)
	if err != nil {
		return "", fmt.Errorf("read %s back: %w", name, err)
	}
	if !back.Matches(written) {
		return "", fmt.Errorf("read %s back: %w", name, durable.ErrContent)
	}
	return checkpoint.Handed, nil
}

// Get implements checkpoint.Store.
func (s *Store) Get(_ context.Context, name string) (io.ReadCloser, error) {
	path, err := s.path(name)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", name, checkpoint.ErrNotFound)
	}
	return f, err
}

// List implements checkpoint.Store.
func (s *Store) List(ctx context.Context, prefix string) ([]checkpoint.Entry, error) {
	path, err := s.path(strings.TrimSuffix(prefix, "/"))
	if prefix == "" {
		path, err = s.root, nil
	}
	if err != nil {
		return nil, err
	}
	var entries []checkpoint.Entry
	err = filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
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
		name, err := filepath.Rel(s.root, path)
		if err != nil {
			return err
		}
		entries = append(entries, checkpoint.Entry{Name: filepath.ToSlash(name), Size: info.Size()})
		return nil
	})
	return entries, err
}

// Delete implements checkpoint.Store. Folders that become empty go too, so that
// the store is pleasant to look at.
func (s *Store) Delete(_ context.Context, name string) error {
	path, err := s.path(name)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for dir := filepath.Dir(path); dir != s.root; dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil { // not empty
			break
		}
	}
	return nil
}

// reader ends with its context.
type reader struct {
	ctx context.Context //nolint:containedctx // it lives for one copy
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
