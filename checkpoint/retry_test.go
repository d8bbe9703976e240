package checkpoint_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/checkpointtest"
	"outlast/checkpoint/durable"
)

// callOf has a store called once by method, and returns the error.
func callOf(ctx context.Context, s checkpoint.Store, method string) error {
	switch method {
	case "Put":
		_, err := s.Put(ctx, "file", strings.NewReader("x"), durable.Digest{Size: 1})
		return err
	case "Get":
		r, err := s.Get(ctx, "file")
		if err == nil {
			err = r.Close()
		}
		return err
	case "List":
		_, err := s.List(ctx, "")
		return err
	default:
		return s.Delete(ctx, "file")
	}
}

func TestWithRetry(t *testing.T) {
	broken := errors.New("broken")
	for name, test := range map[string]struct {
		method string
		fails  int // times in a row
		err    error
		calls  int
	}{
		"get, one hiccup":          {"Get", 1, nil, 2},
		"list, three hiccups":      {"List", 3, nil, 4},
		"delete, three hiccups":    {"Delete", 3, nil, 4},
		"get, in vain":             {"Get", 100, broken, 4},
		"list, in vain":            {"List", 100, broken, 4},
		"delete, in vain":          {"Delete", 100, broken, 4},
		"put: its reader was read": {"Put", 1, broken, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := new(checkpointtest.Memory)
				require.NoError(t, callOf(t.Context(), memory, "Put"))
				left := test.fails
				memory.Fail(func(context.Context, checkpointtest.Op) error {
					if left--; left >= 0 {
						return broken
					}
					return nil
				})
				start := time.Now()
				err := callOf(t.Context(), checkpoint.WithRetry(memory, checkpoint.RetryPolicy{}), test.method)
				require.ErrorIs(t, err, test.err)
				require.Len(t, memory.Ops(), 1+test.calls)
				require.LessOrEqual(t, time.Since(start), 4*time.Second)
				if test.calls == 4 {
					require.GreaterOrEqual(t, time.Since(start), 1750*time.Millisecond, "the pauses double")
				}
			})
		})
	}
}

func TestWithRetryTakesNotFoundForAnAnswer(t *testing.T) {
	memory := new(checkpointtest.Memory)
	err := callOf(t.Context(), checkpoint.WithRetry(memory, checkpoint.RetryPolicy{}), "Get")
	require.ErrorIs(t, err, checkpoint.ErrNotFound)
	require.Len(t, memory.Ops(), 1)
}

func TestWithRetryStopsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := new(checkpointtest.Memory)
		memory.Fail(failing("Get", "List", "Delete"))
		s := checkpoint.WithRetry(memory, checkpoint.RetryPolicy{Tries: 1000, Pause: time.Hour})
		for n, method := range []string{"Get", "List", "Delete"} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			start := time.Now()
			require.ErrorIs(t, callOf(ctx, s, method), errDown)
			require.Equal(t, time.Minute, time.Since(start))
			require.Len(t, memory.Ops(), n+1)
			cancel()
		}
	})
}
