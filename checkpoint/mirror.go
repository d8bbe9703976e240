package checkpoint

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
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
// checkpoint that is not whole. TakeOver, Saved, Touch, Flush and Pending may be
// called from any goroutine while Run runs.
//
// With TakeOver the mirror is one writer of the run among others that may be:
// see FencedError. Without, it takes itself for the only one.
type Mirror struct {
	Store Store
	URL   string // the store's address: what it has said is noted with it
	Dir   string // data directory
	Name  string // of the run
	Keep  int    // checkpoints of each model to keep in the store
	Best  Best   // which one is kept besides
	Log   *slog.Logger
	// OnDone is called when a checkpoint is whole in the store. It must not block.
	OnDone func(model string, step int64, final bool, d Durability)

	once  sync.Once
	wake  chan struct{} // has one element when there is news
	state mirrorState
	taken atomic.Int64 // grows as long as the store takes what it is given

	// What only Run's goroutine uses.
	claimed bool                      // the store has had our claim
	met     bool                      // the store had the claim of an earlier process
	sent    map[string]durable.Digest // files that grow → what the store has of them
	ours    map[string]bool           // folders in the store → whether this history wrote them
	scores  map[string]score          // folders in the store → how good what is there is
	known   confirmed
}

// mirrorState is what Mirror's goroutines share; it is touched under mu only.
type mirrorState struct {
	mu      sync.Mutex
	queue   []item
	busy    bool
	current item // while busy
	waiters []chan struct{}
	lastErr error
	holds   int // made so far

	writer  *Claim  // who this mirror is; nil without TakeOver
	past    lineage // what this run's folder has been through
	stopped error   // a FencedError: nothing is copied any more
}

// An item is one thing to copy: a checkpoint, or a file of the run.
type item struct {
	file    string // of the run; empty for a checkpoint
	model   string
	step    int64
	score   score  // of a checkpoint
	hold    string // folder with hard links to the checkpoint: pruning does not reach them
	loose   bool   // hold is the checkpoint itself, as links could not be made
	final   bool
	told    bool   // OnDone was called
	there   string // where in the store it is whole; empty before that
	earlier bool   // an earlier process has saved it: what is queued is newer
	since   time.Time
}

// overtakes reports whether it takes the place of old, which waits or has failed:
// a later content of the same file, a later checkpoint, a later final one. A
// checkpoint and a final one do not stand in each other's way.
func (it item) overtakes(old item) bool {
	return it.file == old.file && it.model == old.model && it.final == old.final
}

// drop removes what it holds.
func (it item) drop() {
	if it.hold != "" && !it.loose {
		os.RemoveAll(it.hold) //nolint:errcheck // a leftover costs space, and is swept at the next start
	}
}

func (m *Mirror) init() {
	m.once.Do(func() { m.wake = make(chan struct{}, 1) })
}

// Saved has a checkpoint copied. It never blocks for long. A newer checkpoint
// of a model takes the place of one that still waits; a final one waits for its
// turn.
func (m *Mirror) Saved(model string, step int64, dir string, final bool) {
	m.init()
	m.add(item{model: model, step: step, final: final}, dir)
}

// add queues the checkpoint in dir.
func (m *Mirror) add(it item, dir string) {
	model, step, final := it.model, it.step, it.final
	if manifest, err := manifestOf(dir); err == nil {
		it.score = m.Best.score(manifest)
	}
	hold, err := m.hold(model, step, dir, final)
	if err != nil {
		// A full disk, perhaps. The copy is made from the checkpoint itself, unless
		// it makes way for newer ones first.
		m.Log.Warn("checkpoint not held for its copy", "model", model, "step", step, "error", err)
		hold = dir
	}
	it.hold, it.loose, it.since = hold, err != nil, time.Now()
	m.push(it)
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
	defer s.mu.Unlock()
	if s.stopped != nil || it.earlier && s.waits(it) {
		it.drop()
		return
	}
	s.queue = slices.DeleteFunc(s.queue, func(old item) bool {
		overtaken := it.overtakes(old) && !s.best(old, it)
		if overtaken {
			old.drop()
		}
		return overtaken
	})
	s.queue = append(s.queue, it)
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// waits reports whether it, or what is newer, is queued or being copied. The
// caller has mu.
func (s *mirrorState) waits(it item) bool {
	newer := func(other item) bool { return other.overtakes(it) && other.step >= it.step && !s.best(it, other) }
	return slices.ContainsFunc(s.queue, newer) || s.busy && newer(s.current)
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
	return len(s.queue), oldest, errors.Join(s.stopped, s.lastErr)
}

// Flush waits until nothing is left to copy, or ctx ends. It returns a
// FencedError if nothing will be copied any more.
func (m *Mirror) Flush(ctx context.Context) error {
	m.init()
	s := &m.state
	s.mu.Lock()
	if s.stopped != nil || len(s.queue) == 0 && !s.busy {
		defer s.mu.Unlock()
		return s.stopped
	}
	empty := make(chan struct{})
	s.waiters = append(s.waiters, empty)
	s.mu.Unlock()
	select {
	case <-empty:
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.stopped
	case <-ctx.Done():
		_, _, err := m.Pending()
		return errors.Join(ctx.Err(), err)
	}
}

// Run copies until ctx ends, which is the normal end, or somebody else has taken
// the run over, which is a FencedError. What fails is tried again after a pause
// that doubles; nothing is given up but what this disk no longer has.
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
			return nil //nolint:nilerr // cancelling is the normal end
		}
		if fenced, ok := errors.AsType[*FencedError](err); ok {
			m.stop(fenced)
			return fenced
		}
		if err == nil {
			backoff, failures = firstBackoff, 0
			continue
		}
		failures++
		if failures == 1 || backoff == lastBackoff {
			m.Log.WarnContext(ctx, "copy to the store failed", "model", it.model, "step", it.step, "file", it.file,
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
	s.busy, s.current = true, it
	return it, true
}

// done puts a failed item back, unless a newer one has taken its place or it
// cannot succeed any more, and tells those who wait for the queue to be empty.
func (m *Mirror) done(it item, err error) {
	s := &m.state
	s.mu.Lock()
	defer s.mu.Unlock()
	m.taken.Add(1) // whatever it says, it is an answer
	s.busy = false
	s.lastErr = err
	var spoiled *spoiledError
	switch {
	case errors.As(err, &spoiled):
		s.lastErr = nil // it is over
		m.Log.Error("checkpoint not copied", "model", it.model, "step", it.step, "final", it.final, "error", err)
	case err != nil && !slices.ContainsFunc(s.queue, func(newer item) bool { return newer.overtakes(it) && !s.best(it, newer) }):
		s.queue = append(s.queue, it)
		return
	}
	it.drop()
	if len(s.queue) == 0 {
		s.release()
	}
}

// release tells those who wait for the queue to be empty. The caller has mu.
func (s *mirrorState) release() {
	for _, w := range s.waiters {
		close(w)
	}
	s.waiters = nil
}

// stop ends the copying for good: nobody waits, and nothing is held.
func (m *Mirror) stop(why error) {
	s := &m.state
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = why
	for _, it := range s.queue {
		it.drop()
	}
	s.queue, s.lastErr = nil, nil
	s.release()
}
