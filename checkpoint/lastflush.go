package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// silentLimit is how long a store may take nothing until whoever was asked to
	// stop no longer waits for it: Drive may think for seconds after a large file.
	silentLimit = 30 * time.Second
	// failingLimit is the same where copies fail: enough for a hiccup.
	failingLimit = 15 * time.Second
	// lookInterval is how often that is looked at.
	lookInterval = time.Second
)

// ErrCutShort says that somebody who was asked to stop did not wait for the store
// any longer.
var ErrCutShort = errors.New("asked to stop, it did not wait for the store any longer; what is not there stays on this disk, and the next resume sends it")

// LastFlush waits as Flush does, limit at most. Once asked has ended, it waits only
// as long as the store takes what it is given: its error is then ErrCutShort.
func (m *Mirror) LastFlush(asked context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(asked), limit, context.DeadlineExceeded)
	defer cancel()
	ctx, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	defer context.AfterFunc(asked, func() { m.watch(ctx, cut) })()
	err := m.Flush(ctx)
	if !errors.Is(context.Cause(ctx), ErrCutShort) || !errors.Is(err, context.Canceled) {
		return err
	}
	if _, _, why := m.Pending(); why != nil {
		return fmt.Errorf("%w (%w)", ErrCutShort, why)
	}
	return ErrCutShort
}

// watch cuts a flush short when the store takes nothing any more.
func (m *Mirror) watch(ctx context.Context, cut context.CancelCauseFunc) {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	had, since := m.taken.Load(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		_, _, failure := m.Pending()
		limit := failingLimit
		if failure == nil { // else the same is read again and again
			limit = silentLimit
			if now := m.taken.Load(); now != had {
				had, since = now, time.Now()
			}
		}
		if time.Since(since) >= limit {
			cut(ErrCutShort)
			return
		}
	}
}

// given is a file that a store is given. What it reads for the first time is
// counted.
type given struct {
	f     *os.File
	taken *atomic.Int64

	mu   sync.Mutex
	high int64 // how far it was read with ReadAt
}

// Read implements io.Reader.
func (g *given) Read(p []byte) (int, error) {
	n, err := g.f.Read(p)
	g.taken.Add(int64(n))
	return n, err
}

// ReadAt implements io.ReaderAt: it is how a store reads that may do so again.
func (g *given) ReadAt(p []byte, offset int64) (int, error) {
	n, err := g.f.ReadAt(p, offset)
	g.mu.Lock()
	defer g.mu.Unlock()
	if end := offset + int64(n); end > g.high {
		g.taken.Add(end - g.high)
		g.high = end
	}
	return n, err
}

// Seek implements io.Seeker.
func (g *given) Seek(offset int64, whence int) (int64, error) { return g.f.Seek(offset, whence) }
