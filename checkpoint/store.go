package checkpoint

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"time"

	"outlast/checkpoint/durable"
)

// ErrNotFound says that a store has nothing of that name.
var ErrNotFound = errors.New("not in the store")

// An Entry is one file of a store.
type Entry struct {
	Name string
	Size int64 // bytes
}

// A Store keeps files under slash-separated names such as
// digits/models/cnn/checkpoints/40/model.pt. All methods may be called
// concurrently; they stop when ctx ends, and leave nothing half visible.
type Store interface {
	// Put replaces the file called name. Content that is not want is refused;
	// an empty want.SHA256 means that it is not known. A reader that is an
	// io.Seeker too may be read again, from where it stands, while Put runs: give
	// a large file as one, and a fault on the way costs little. The result says
	// how safe the file now is.
	Put(ctx context.Context, name string, r io.Reader, want durable.Digest) (Durability, error)
	// Get returns the content of a file, or ErrNotFound.
	Get(ctx context.Context, name string) (io.ReadCloser, error)
	// List returns every file whose name begins with prefix, a folder's name
	// with its slash or nothing. An empty list is no proof that nothing is there.
	List(ctx context.Context, prefix string) ([]Entry, error)
	// Delete removes a file; that it is gone already is no error.
	Delete(ctx context.Context, name string) error
}

// A RetryPolicy says how often and how patiently to try again. The zero value
// is usable.
type RetryPolicy struct {
	Tries int           // in all; 0 means 4
	Pause time.Duration // before the second try, doubled each time; 0 means 250 ms
}

// WithRetry returns store with each call but Put tried again after a passing
// error. Put is not: its reader has been read; the mirror repeats whole files.
func WithRetry(store Store, policy RetryPolicy) Store {
	if policy.Tries == 0 {
		policy.Tries = 4
	}
	if policy.Pause == 0 {
		policy.Pause = 250 * time.Millisecond
	}
	return &retrying{store, policy}
}

type retrying struct {
	Store
	policy RetryPolicy
}

var _ Store = (*retrying)(nil)

// Get implements Store.
func (s *retrying) Get(ctx context.Context, name string) (r io.ReadCloser, err error) {
	err = s.try(ctx, func() error {
		r, err = s.Store.Get(ctx, name)
		return err
	})
	return r, err
}

// List implements Store.
func (s *retrying) List(ctx context.Context, prefix string) (entries []Entry, err error) {
	err = s.try(ctx, func() error {
		entries, err = s.Store.List(ctx, prefix)
		return err
	})
	return entries, err
}

// Delete implements Store.
func (s *retrying) Delete(ctx context.Context, name string) error {
	return s.try(ctx, func() error { return s.Store.Delete(ctx, name) })
}

func (s *retrying) try(ctx context.Context, call func() error) error {
	pause := s.policy.Pause
	for n := 1; ; n++ {
		err := call()
		if err == nil || n == s.policy.Tries || errors.Is(err, ErrNotFound) || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause + rand.N(pause)): // spread out: others fail at the same time
		}
		pause *= 2
	}
}
