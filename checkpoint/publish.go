package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sync/errgroup"

	"outlast/checkpoint/durable"
)

// copyLimit is how many files are sent to the store, or brought from it, at
// once: small ones cost a round trip each, large ones fill the line alone.
const copyLimit = 4

// A spoiledError says that this disk no longer has what was to be copied: it
// would fail for ever.
type spoiledError struct{ err error }

func (e *spoiledError) Error() string { return "what was saved is no longer here: " + e.err.Error() }

func (e *spoiledError) Unwrap() error { return e.err }

// copy brings one item to the store.
func (m *Mirror) copy(ctx context.Context, it *item) error {
	if err := m.own(ctx); err != nil {
		return err
	}
	if it.file != "" {
		return m.putFile(ctx, it.file)
	}
	return m.publish(ctx, it)
}

// folderOf returns where a checkpoint is below its run, with slashes.
func folderOf(model string, step int64, final bool) string {
	if final {
		return path.Join(modelsName, model, finalName)
	}
	return path.Join(modelsName, model, checkpointsName, strconv.FormatInt(step, 10))
}

// publish copies a checkpoint: its files, then what its model has logged, then
// the manifest, if the run is still ours.
func (m *Mirror) publish(ctx context.Context, it *item) error {
	folder := folderOf(it.model, it.step, it.final)
	ours, manifest, err := manifestBytes(it.hold)
	if err != nil {
		return &spoiledError{err}
	}
	name := path.Join(m.Name, folder, ManifestName)
	whole, err := m.clear(ctx, name, ours, manifest)
	if err != nil {
		return err
	}
	if whole {
		m.tell(it, m.known.durability(it, ours))
		return m.prune(ctx, *it)
	}
	d, err := m.putFiles(ctx, folder, it.hold, manifest.Files)
	if err != nil {
		return err
	}
	for _, record := range []string{metricsName, logName} {
		if err := m.putFile(ctx, path.Join(modelsName, it.model, record)); err != nil {
			return err
		}
	}
	if err := m.own(ctx); err != nil {
		return err
	}
	sealed, err := m.Store.Put(ctx, name, bytes.NewReader(ours), digestOf(ours))
	if err != nil {
		return err
	}
	m.remember(it, ours, name, d.atMost(sealed))
	return m.prune(ctx, *it)
}

// remember notes what the store has said of a checkpoint, and tells it.
func (m *Mirror) remember(it *item, manifest []byte, name string, d Durability) {
	m.wrote(name)
	m.tell(it, d)
	m.known.add(it, manifest, d)
	if !m.claimed { // whose word it is would not be known
		return
	}
	if err := m.known.save(m.runDir()); err != nil {
		m.Log.Warn("confirmation not noted; it will be asked for again", "model", it.model, "step", it.step, "error", err)
	}
}

func (m *Mirror) runDir() string { return filepath.Join(m.Dir, m.Name) }

// manifestBytes reads the manifest of the checkpoint in dir as it is written.
func manifestBytes(dir string) ([]byte, Manifest, error) {
	data, err := os.ReadFile(filepath.Join(dir, ManifestName))
	if err != nil {
		return nil, Manifest{}, err
	}
	m, err := ReadManifest(bytes.NewReader(data))
	return data, m, err
}

func digestOf(data []byte) durable.Digest {
	d, err := durable.Hash(bytes.NewReader(data))
	if err != nil {
		return durable.Digest{Size: -1} // memory does not fail, and no content is that
	}
	return d
}

// clear reports whether the store's manifest called name is ours already; it was
// written after everything that it lists. One that lists other content goes,
// before its files are replaced, unless it is of a history that is not ours:
// then all of it is set aside.
func (m *Mirror) clear(ctx context.Context, name string, ours []byte, manifest Manifest) (whole bool, err error) {
	theirs, err := m.read(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if bytes.Equal(ours, theirs) {
		m.wrote(name)
		return true, nil
	}
	old, err := ReadManifest(bytes.NewReader(theirs))
	if err == nil && slices.Equal(old.Files, manifest.Files) {
		return false, nil
	}
	if err == nil && !m.isOurs(old) {
		if err := m.setAside(ctx, path.Dir(name), old, theirs); err != nil {
			return false, fmt.Errorf("set the other history's checkpoint %d aside: %w", old.Step, err)
		}
	}
	return false, m.Store.Delete(ctx, name)
}

// read returns the content of a small file of the store.
func (m *Mirror) read(ctx context.Context, name string) ([]byte, error) {
	f, err := m.Store.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	return io.ReadAll(io.LimitReader(f, maxManifestBytes))
}

// tell calls OnDone, once for each item: what follows may be tried again.
func (m *Mirror) tell(it *item, d Durability) {
	if it.told {
		return
	}
	it.told = true
	if m.OnDone != nil {
		m.OnDone(it.model, it.step, d)
	}
}

// putFiles copies a checkpoint's files, and returns what can be said of all.
func (m *Mirror) putFiles(ctx context.Context, folder, source string, files []File) (Durability, error) {
	said := make([]Durability, len(files))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(copyLimit)
	for i, f := range files {
		g.Go(func() (err error) {
			if err := ctx.Err(); err != nil {
				return err
			}
			said[i], err = m.put(ctx, path.Join(folder, f.Path), filepath.Join(source, filepath.FromSlash(f.Path)), f)
			return err
		})
	}
	err := g.Wait()
	all := Mirrored
	for _, d := range said {
		all = all.atMost(d)
	}
	return all, err
}

func (m *Mirror) put(ctx context.Context, name, source string, f File) (Durability, error) {
	in, err := os.Open(source)
	if errors.Is(err, fs.ErrNotExist) {
		return "", &spoiledError{err}
	}
	if err != nil {
		return "", err
	}
	defer in.Close() //nolint:errcheck // it was only read
	want := durable.Digest{Size: f.Size, SHA256: f.SHA256}
	d, err := m.Store.Put(ctx, path.Join(m.Name, name), in, want)
	if errors.Is(err, durable.ErrContent) { // the store's fault, or ours?
		if is, hashErr := durable.HashFile(source); hashErr == nil && !is.Matches(want) {
			return "", &spoiledError{&DamagedError{f.Path, "it is not what was saved"}}
		}
	}
	return d, err
}

// putFile copies a file that may grow meanwhile: what it holds now. What the
// store has of it already is not sent again.
func (m *Mirror) putFile(ctx context.Context, name string) error {
	f, err := os.Open(filepath.Join(m.runDir(), filepath.FromSlash(name)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	now, err := durable.Hash(io.LimitReader(f, info.Size()))
	if err != nil {
		return err
	}
	if m.sent[name] == now {
		return nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err = m.Store.Put(ctx, path.Join(m.Name, name), io.LimitReader(f, now.Size), now)
	if err != nil {
		return err
	}
	if m.sent == nil {
		m.sent = map[string]durable.Digest{}
	}
	m.sent[name] = now
	return nil
}
