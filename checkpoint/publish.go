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
	if it.there != "" { // only the rest has failed
		return m.prune(ctx, it, it.there)
	}
	ours, manifest, err := manifestBytes(it.hold)
	if err != nil {
		return &spoiledError{err}
	}
	folder, whole, err := m.place(ctx, it, ours, manifest)
	if err != nil {
		return err
	}
	if whole {
		d, err := m.confirm(ctx, it, folder, manifest, ours)
		if err == nil {
			return m.published(ctx, it, folder, ours, d)
		}
		if !errors.Is(err, ErrNotFound) {
			return err
		}
		m.Log.WarnContext(ctx, "the store lacks a part of a checkpoint, which is sent again", "model", it.model, "step", it.step, "error", err)
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
	sealed, err := m.Store.Put(ctx, path.Join(folder, ManifestName), bytes.NewReader(ours), digestOf(ours))
	if err != nil {
		return err
	}
	return m.published(ctx, it, folder, ours, d.atMost(sealed))
}

// published notes that a checkpoint is whole in a folder of the store, and what
// the store has said of it, and removes those that are too old.
func (m *Mirror) published(ctx context.Context, it *item, folder string, manifest []byte, d Durability) error {
	it.there = folder
	m.wrote(folder)
	m.remember(it, manifest, d)
	return m.prune(ctx, it, folder)
}

// remember notes what the store has said of a checkpoint, and tells it.
func (m *Mirror) remember(it *item, manifest []byte, d Durability) {
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

// place returns where in the store a checkpoint goes, and whether its manifest is
// there already, so that it should be whole. What is whole is never written over:
// a crash in the middle must not leave less than there was. So a step that is
// saved again with another content, here or by another history, gets a folder
// beside the first: 20.1. The final checkpoint has one place, as its model's last
// checkpoint stands in for it.
func (m *Mirror) place(ctx context.Context, it *item, ours []byte, manifest Manifest) (folder string, whole bool, err error) {
	base := path.Join(m.Name, folderOf(it.model, it.step, it.final))
	for revision := 0; ; revision++ {
		if folder = base; revision > 0 {
			folder += "." + strconv.Itoa(revision)
		}
		theirs, err := m.read(ctx, path.Join(folder, ManifestName))
		if errors.Is(err, ErrNotFound) {
			return folder, false, nil
		}
		if err != nil {
			return "", false, err
		}
		if bytes.Equal(ours, theirs) {
			return folder, true, nil
		}
		old, err := ReadManifest(bytes.NewReader(theirs))
		switch {
		case err != nil: // nobody could use it
			return folder, false, m.Store.Delete(ctx, path.Join(folder, ManifestName))
		case slices.Equal(old.Files, manifest.Files):
			return folder, false, nil
		case it.final:
			return folder, false, m.makeWay(ctx, folder, old, theirs)
		}
	}
}

// makeWay removes a final checkpoint of other content from its place, manifest
// first; one of a history that is not ours is set aside.
func (m *Mirror) makeWay(ctx context.Context, folder string, old Manifest, manifest []byte) error {
	if m.isOurs(old) {
		return m.Store.Delete(ctx, path.Join(folder, ManifestName))
	}
	if err := m.setAside(ctx, folder, old, manifest); err != nil {
		return fmt.Errorf("set the other history's result aside: %w", err)
	}
	return nil
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
		m.OnDone(it.model, it.step, it.final, d)
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
	d, err := m.Store.Put(ctx, name, &given{f: in, taken: &m.taken}, want)
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
	_, err = m.Store.Put(ctx, path.Join(m.Name, name), io.NewSectionReader(f, 0, now.Size), now) // which can go back
	if err != nil {
		return err
	}
	if m.sent == nil {
		m.sent = map[string]durable.Digest{}
	}
	m.sent[name] = now
	m.taken.Add(now.Size)
	return nil
}
