package training

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheEndOfAProcessIsWaitedFor(t *testing.T) {
	cmd := sleeper(t)
	id := identify(cmd.Process.Pid)
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	require.True(t, id.await(short))
	require.Error(t, short.Err(), "it has not ended")
	go func() {
		time.Sleep(20 * time.Millisecond)
		cmd.Process.Kill() //nolint:errcheck // it is there
	}()
	require.True(t, id.await(t.Context()), "nobody has waited for it yet")
	require.False(t, id.works())
	require.False(t, identity{id.pid, id.began + 1}.await(t.Context()), "it is another one")
	require.False(t, identity{}.await(t.Context()))
}
