package checkpoint_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/checkpointtest"
)

// Whoever is asked to stop waits for a store as long as it takes what it is given,
// and not long for one that does not.
func TestTheLastFlush(t *testing.T) {
	const limit = 10 * time.Minute
	slow := func(pause time.Duration) func(context.Context, checkpointtest.Op) error {
		return func(ctx context.Context, op checkpointtest.Op) error {
			if op.Method != "Put" {
				return nil
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(pause):
				return nil
			}
		}
	}
	for name, test := range map[string]struct {
		store  func(context.Context, checkpointtest.Op) error
		asked  time.Duration // to stop; 0: never
		err    error         // nil: the store has everything
		within time.Duration
	}{
		"nobody stops, and it never answers": {slow(time.Hour), 0, context.DeadlineExceeded, limit},
		"it never answers":                   {slow(time.Hour), time.Second, checkpoint.ErrCutShort, 33 * time.Second},
		"it was asked to stop before":        {slow(time.Hour), -1, checkpoint.ErrCutShort, 32 * time.Second},
		"it cannot be reached":               {failing("Put"), time.Second, checkpoint.ErrCutShort, 18 * time.Second},
		"it is slow, and takes everything":   {slow(20 * time.Second), time.Second, nil, limit},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(checkpointtest.Memory)
				r := newRig(t, s, 3)
				s.Fail(test.store)
				stop := r.start(t)
				for step := range 6 {
					r.save(t, int64(10*step), "content")
					r.mirror.Touch("run.json")
				}
				asked, ask := context.WithCancel(t.Context())
				defer ask()
				if test.asked < 0 {
					ask()
				} else if test.asked > 0 {
					time.AfterFunc(test.asked, ask)
				}
				began := time.Now()
				err := r.mirror.LastFlush(asked, limit)
				assert.LessOrEqual(t, time.Since(began), test.within)
				if test.err == nil {
					require.NoError(t, err)
					assert.Greater(t, time.Since(began), 32*time.Second, "it took longer than it may be silent")
				} else {
					require.ErrorIs(t, err, test.err)
				}
				if errors.Is(err, checkpoint.ErrCutShort) {
					assert.NotContains(t, err.Error(), "context canceled", "a person reads it")
				}
				stop()
				if n, _, _ := r.mirror.Pending(); test.err != nil {
					assert.NotZero(t, n, "it waits for the next time")
				}
			})
		})
	}
}
