package checkpoint_test

import (
	"context"
	"path"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/checkpointtest"
)

func TestFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(checkpointtest.Memory)
		r := newRig(t, s, 3)
		require.NoError(t, r.mirror.Flush(t.Context()), "there is nothing to wait for")

		s.Fail(failing("Put"))
		r.start(t)
		r.save(t, 10, "10")
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		err := r.mirror.Flush(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, errDown, "it says why")

		s.Fail(nil)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { assert.NoError(t, r.mirror.Flush(t.Context())) })
		}
		wg.Wait()
		r.flush(t)
	})
}

// Flush waits for the copy that is on the way, not only for those that wait.
func TestFlushWaitsForTheCopyOnTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(checkpointtest.Memory)
		r := newRig(t, s, 3)
		s.Fail(func(_ context.Context, op checkpointtest.Op) error {
			if path.Base(op.Name) == checkpoint.ManifestName && op.Method == "Put" {
				time.Sleep(time.Hour)
			}
			return nil
		})
		r.start(t)
		start := time.Now()
		r.save(t, 10, "10")
		synctest.Wait()
		n, _, _ := r.mirror.Pending()
		require.Zero(t, n, "it is on the way")
		r.flush(t)
		require.Equal(t, time.Hour, time.Since(start))
	})
}

// Cancelling ends a copy that hangs; another Run goes on with what is left.
func TestMirrorStopsAndGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(checkpointtest.Memory)
		r := newRig(t, s, 3)
		s.Fail(func(ctx context.Context, _ checkpointtest.Op) error {
			<-ctx.Done()
			return ctx.Err()
		})
		stop := r.start(t)
		r.save(t, 10, "10")
		synctest.Wait()
		stop()
		n, _, _ := r.mirror.Pending()
		require.Equal(t, 1, n)

		s.Fail(nil)
		r.start(t)
		r.flush(t)
		require.Equal(t, []string{"10"}, stepsInStore(s))
	})
}
