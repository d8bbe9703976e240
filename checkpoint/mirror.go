package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"outlast/checkpoint/durable"
)

// Bounds of the pause after a failed copy: soon enough for a hiccup, slow
// enough for an outage.
const (
	firstBackoff = time.Second
	lastBackoff  = time.Minute
)

// A Mirror copies what a run saves to its store: a checkpoint's files, then its
// model's metrics, then the manifest, so that the store never shows a
// checkpoint that is not whole. Saved, Touch, Flush and Pending may be called
// from any goroutine while Run runs.
type Mirror struct {
	Store Store
	Dir   string // data directory
	Name  string // of the run
	Keep  int    // checkpoints of each model to keep in the store
	Log   *slog.Logger
	// OnDone is called when a checkpoint is whole in the store. It must not block.
	OnDone func(model string, step int64, d Durability)

	once  sync.Once
	wake  chan struct{} // has one element when there is news
	state mirrorState
}

// mirrorState is what Mirror's goroutines share; it is touched under mu only.
type mirrorState struct {
	mu      sync.Mutex
	queue   []item
	busy    bool
	waiters []chan struct{}
	lastErr error
	holds   int // made so far
}

// An item is one thing to copy: a checkpoint, or a file of the run.
type item struct {
	file  string // of the run; empty for a checkpoint
	model string
	step  int64
	hold  string // folder with hard links to the checkpoint: pruning does not reach them
	final bool
	told  bool // OnDone was called
	since time.Time
}

// overtakes reports whether it takes the place of old, which waits or has failed:
// a later content of the same file, a later checkpoint, a later final one. A
// checkpoint and a final one do not stand in each other's way.
func (it item) overtakes(old item) bool {
	return it.file == old.file && it.model == old.model && it.final == old.final
}

func (m *Mirror) init() {
	m.once.Do(func() { m.wake = make(chan struct{}, 1) })
}

// Saved has a checkpoint copied. It never blocks for long. A newer checkpoint
// of a model takes the place of one that still waits; a final one waits for its
// turn.
func (m *Mirror) Saved(model string, step int64, dir string, final bool) {
	m.init()
	hold, err := m.hold(model, step, dir, final)
	if err != nil {
		m.Log.Error("checkpoint not held for its copy", "model", model, "step", step, "error", err)
		return
	}
	m.push(item{model: model, step: step, hold: hold, final: final, since: time.Now()})
}

// Touch has files of the run copied, such as run.json.
func (m *Mirror) Touch(names ...string) {
	m.init()
	for _, name := range names {
		m.push(item{file: name, since: time.Now()})
	}
}

// hold links a checkpoint's files into a folder of the mirror's own. Each call
// has a folder of its own: the same step may be saved again while it is copied.
func (m *Mirror) hold(model string, step int64, dir string, final bool) (string, error) {
	kind := strconv.FormatInt(step, 10)
	if final {
		kind = finalName
	}
	m.state.mu.Lock()
	m.state.holds++
	hold := filepath.Join(m.Dir, m.Name, "outbox", model, kind+"-"+strconv.Itoa(m.state.holds))
	m.state.mu.Unlock()
	if err := os.RemoveAll(hold); err != nil {
		return "", err
	}
	manifest, err := manifestOf(dir)
	if err != nil {
		return "", err
	}
	for _, f := range append(manifest.Files, File{Path: ManifestName}) {
		if err := link(dir, hold, f.Path, nil); err != nil {
			os.RemoveAll(hold) //nolint:errcheck // a leftover costs space, and is swept at the next start
			return "", err
		}
	}
	return hold, nil
}

func (m *Mirror) push(it item) {
	s := &m.state
	s.mu.Lock()
	s.queue = slices.DeleteFunc(s.queue, func(old item) bool {
		overtaken := it.overtakes(old)
		if overtaken && old.hold != "" {
			os.RemoveAll(old.hold) //nolint:errcheck // a leftover costs space, and is swept at the next start
		}
		return overtaken
	})
	s.queue = append(s.queue, it)
	s.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Pending returns how much waits, since when, and why if copies fail.
func (m *Mirror) Pending() (n int, oldest time.Time, err error) {
	s := &m.state
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, it := range s.queue {
		if oldest.IsZero() || it.since.Before(oldest) {
			oldest = it.since
		}
	}
	return len(s.queue), oldest, s.lastErr
}

// Flush waits until nothing is left to copy, or ctx ends.
func (m *Mirror) Flush(ctx context.Context) error {
	m.init()
	s := &m.state
	s.mu.Lock()
	if len(s.queue) == 0 && !s.busy {
		s.mu.Unlock()
		return nil
	}
	empty := make(chan struct{})
	s.waiters = append(s.waiters, empty)
	s.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		_, _, err := m.Pending()
		return errors.Join(ctx.Err(), err)
	}
}

// Run copies until ctx ends. What fails is tried again after a pause that
// doubles; nothing is given up.
func (m *Mirror) Run(ctx context.Context) error {
	m.init()
	backoff := firstBackoff
	failures := 0
	for {
		it, ok := m.next()
		if !ok {
			select {
			case <-ctx.Done():
				return nil
			case <-m.wake:
			}
			continue
		}
		err := m.copy(ctx, &it)
		m.done(it, err)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			backoff, failures = firstBackoff, 0
			continue
		}
		failures++
		if failures == 1 || backoff == lastBackoff {
			m.Log.Warn("copy to the store failed", "model", it.model, "step", it.step, "file", it.file,
				"consecutive_errors", failures, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, lastBackoff)
	}
}

func (m *Mirror) next() (item, bool) {
	s := &m.state
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return item{}, false
	}
	it := s.queue[0]
	s.queue = s.queue[1:]
	s.busy = true
	return it, true
}

// done puts a failed item back, unless a newer one has taken its place, and
// tells those who wait for the queue to be empty.
func (m *Mirror) done(it item, err error) {
	s := &m.state
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = false
	s.lastErr = err
	if err != nil {
		if !slices.ContainsFunc(s.queue, func(newer item) bool { return newer.overtakes(it) }) {
			s.queue = append(s.queue, it)
			return
		}
	}
	if it.hold != "" {
		os.RemoveAll(it.hold) //nolint:errcheck // a leftover costs space, and is swept at the next start
	}
	if len(s.queue) == 0 {
		for _, w := range s.waiters {
			close(w)
		}
		s.waiters = nil
	}
}

// copy brings one item to the store.
func (m *Mirror) copy(ctx context.Context, it *item) error {
	if it.file != "" {
		return m.putFile(ctx, it.file)
	}
	folder := path.Join(modelsName, it.model, checkpointsName, strconv.FormatInt(it.step, 10))
	if it.final {
		folder = path.Join(modelsName, it.model, finalName)
	}
	manifest, err := manifestOf(it.hold)
	if err != nil {
		return err
	}
	source := filepath.Join(it.hold, ManifestName)
	whole, err := m.clear(ctx, path.Join(m.Name, folder, ManifestName), source, manifest)
	if err != nil {
		return err
	}
	if whole {
		m.tell(it, Handed)
		return m.prune(ctx, *it)
	}
	for _, f := range manifest.Files {
		if err := m.put(ctx, path.Join(folder, f.Path), filepath.Join(it.hold, f.Path), durable.Digest{Size: f.Size, SHA256: f.SHA256}); err != nil {
			return err
		}
	}
	for _, name := range []string{metricsName, logName} {
		if err := m.putFile(ctx, path.Join(modelsName, it.model, name)); err != nil {
			return err
		}
	}
	digest, err := durable.HashFile(source)
	if err != nil {
		return err
	}
	f, err := os.Open(source)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	d, err := m.Store.Put(ctx, path.Join(m.Name, folder, ManifestName), f, digest)
	if err != nil {
		return err
	}
	m.tell(it, d)
	return m.prune(ctx, *it)
}

// clear reports whether the store's manifest called name is the one in the file
// source already; it was written after everything that it lists. One that lists
// other content goes, before its files are replaced.
func (m *Mirror) clear(ctx context.Context, name, source string, manifest Manifest) (whole bool, err error) {
	ours, err := os.ReadFile(source)
	if err != nil {
		return false, err
	}
	there, err := m.Store.Get(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer there.Close() //nolint:errcheck // it was only read
	theirs, err := io.ReadAll(io.LimitReader(there, maxManifestBytes))
	if err != nil {
		return false, err
	}
	if bytes.Equal(ours, theirs) {
		return true, nil
	}
	old, err := ReadManifest(bytes.NewReader(theirs))
	if err == nil && slices.Equal(old.Files, manifest.Files) {
		return false, nil
	}
	return false, m.Store.Delete(ctx, name)
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

func (m *Mirror) put(ctx context.Context, name, source string, want durable.Digest) error {
	f, err := os.Open(source)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	_, err = m.Store.Put(ctx, path.Join(m.Name, name), f, want)
	return err
}

// putFile copies a file that may grow meanwhile: what it holds now.
func (m *Mirror) putFile(ctx context.Context, name string) error {
	data, err := os.ReadFile(filepath.Join(m.Dir, m.Name, filepath.FromSlash(name)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = m.Store.Put(ctx, path.Join(m.Name, name), bytes.NewReader(data), durable.Digest{Size: int64(len(data))})
	return err
}

// prune removes the model's oldest checkpoints in the store beyond Keep, of
// those that are not newer than the one just copied: manifest first, so that
// what is left of one is not taken for whole.
func (m *Mirror) prune(ctx context.Context, it item) error {
	if it.final {
		return nil
	}
	prefix := path.Join(m.Name, modelsName, it.model, checkpointsName) + "/"
	entries, err := m.Store.List(ctx, prefix)
	if err != nil {
		return err
	}
	files := map[int64][]string{}
	for _, e := range entries {
		if step, ok := stepOf(e.Name[len(prefix):]); ok && step <= it.step {
			files[step] = append(files[step], e.Name)
		}
	}
	steps := newestFirst(files)
	for _, step := range steps[min(max(m.Keep, 1), len(steps)):] {
		names := files[step]
		slices.SortFunc(names, manifestFirst)
		for _, name := range names {
			if err := m.Store.Delete(ctx, name); err != nil {
				return err
			}
		}
	}
	return nil
}
