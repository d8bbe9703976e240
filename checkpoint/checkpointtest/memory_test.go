package checkpointtest_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/checkpointtest"
	"outlast/checkpoint/durable"
)

func TestMemoryIsAStore(t *testing.T) {
	checkpointtest.TestStore(t, func(*testing.T) checkpoint.Store { return new(checkpointtest.Memory) })
}

func TestRetryingIsAStore(t *testing.T) {
	checkpointtest.TestStore(t, func(*testing.T) checkpoint.Store {
		return checkpoint.WithRetry(new(checkpointtest.Memory), checkpoint.RetryPolicy{Pause: time.Microsecond})
	})
}

func TestMemoryFailsWhenTold(t *testing.T) {
	s := new(checkpointtest.Memory)
	broken := errors.New("broken")
	_, err := s.Put(t.Context(), "a", strings.NewReader("1"), durable.Digest{Size: 1})
	require.NoError(t, err)

	s.Fail(func(_ context.Context, op checkpointtest.Op) error {
		if op == (checkpointtest.Op{Method: "Delete", Name: "a"}) {
			return broken
		}
		return nil
	})
	require.ErrorIs(t, s.Delete(t.Context(), "a"), broken)
	require.Equal(t, []string{"a"}, s.Names())

	s.Fail(nil)
	require.NoError(t, s.Delete(t.Context(), "a"))
	require.Empty(t, s.Names())
	require.Equal(t, []checkpointtest.Op{{"Put", "a"}, {"Delete", "a"}, {"Delete", "a"}}, s.Ops())
}
