package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sync/errgroup"

	"outlast/checkpoint/durable"
)

// Verify reads the manifest of the checkpoint in dir and compares every file
// with it. The error wraps ErrNoManifest or is a *DamagedError if the
// checkpoint is not to be used; any other says that nobody knows.
func Verify(dir string) (Manifest, error) { return verify(context.Background(), dir) }

func verify(ctx context.Context, dir string) (Manifest, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return Manifest{}, ErrNoManifest
	}
	if err != nil {
		return Manifest{}, err
	}
	defer root.Close() //nolint:errcheck // it was only read
	m, err := manifestIn(root)
	if err != nil {
		return m, err
	}
	// Each file is hashed by one goroutine: more than there are cores do no more.
	g, working := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, f := range m.Files {
		g.Go(func() error {
			if err := working.Err(); err != nil {
				return err
			}
			return verifyFile(working, root, f)
		})
	}
	return m, cmp.Or(g.Wait(), ctx.Err())
}

// manifestOf reads the manifest of the checkpoint in dir, and no more of it.
func manifestOf(dir string) (Manifest, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return Manifest{}, ErrNoManifest
	}
	if err != nil {
		return Manifest{}, err
	}
	defer root.Close() //nolint:errcheck // it was only read
	return manifestIn(root)
}

func manifestIn(root *os.Root) (Manifest, error) {
	f, err := openRegular(root, ManifestName)
	if errors.Is(err, fs.ErrNotExist) {
		return Manifest{}, ErrNoManifest
	}
	if err != nil {
		return Manifest{}, damagedBy(ManifestName, err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	m, err := ReadManifest(f)
	if err != nil {
		return m, damagedBy(ManifestName, err)
	}
	return m, nil
}

func verifyFile(ctx context.Context, root *os.Root, f File) error {
	in, err := openRegular(root, filepath.FromSlash(f.Path))
	if err != nil {
		return damagedBy(f.Path, err)
	}
	defer in.Close() //nolint:errcheck // it was only read
	info, err := in.Stat()
	if err != nil {
		return damagedBy(f.Path, err)
	}
	if info.Size() != f.Size {
		return &DamagedError{f.Path, fmt.Sprintf("it has %d bytes instead of %d", info.Size(), f.Size)}
	}
	d, err := durable.Hash(durable.Reader(ctx, in))
	if err != nil {
		return damagedBy(f.Path, err)
	}
	if d.SHA256 != f.SHA256 {
		return &DamagedError{f.Path, "its SHA-256 differs"}
	}
	return nil
}

var errIrregular = errors.New("it is no regular file")

// openRegular opens a file below root and nothing else: a pipe would never be
// open, and a link, also one on the way, is not what was saved.
func openRegular(root *os.Root, name string) (*os.File, error) {
	for dir := filepath.Dir(name); dir != "."; dir = filepath.Dir(dir) {
		if info, err := root.Lstat(dir); err != nil || !info.IsDir() {
			return nil, cmp.Or(err, errIrregular)
		}
	}
	info, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errIrregular
	}
	return root.Open(name)
}

// damagedBy says which errors are those of the file: it is not there, or its
// medium does not give it back. The others are this process's or this moment's,
// such as too many open files, and condemn nothing.
func damagedBy(path string, err error) error {
	var already *DamagedError
	switch {
	case errors.As(err, &already):
		return err
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return &DamagedError{path, "it is missing"}
	case errors.Is(err, errIrregular):
		return &DamagedError{path, err.Error()}
	case errors.Is(err, syscall.EIO):
		return &DamagedError{path, "it cannot be read: " + err.Error()}
	}
	return fmt.Errorf("verify %s: %w", path, err)
}
