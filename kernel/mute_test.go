//go:build unix

package kernel_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/kernel"
	"outlast/kernel/jupyter"
	"outlast/kernel/kerneltest"
)

// A widget has as many buffers as it likes.
func TestAMessageOfManyFramesReachesTheFrontEnd(t *testing.T) {
	r := start(t, kerneltest.Child{})
	m := odd("comm_msg", `{}`)
	m.Identities = [][]byte{[]byte("topic")}
	m.Buffers = make([][]byte, 5000)
	sent := r.Sign(m)
	raw, err := json.Marshal(kerneltest.Record{Channel: kerneltest.IOPub, Frames: sent})
	require.NoError(t, err)
	require.Equal(t, jupyter.OK, r.Run("send "+string(raw)).Status())
	for _, got := range r.Log() {
		if got.Header.Type == "comm_msg" {
			assert.Equal(t, readable(sent), readable(got.Frames))
			return
		}
	}
	t.Error("it is lost")
}

// A child that cannot be heard any more would leave every cell waiting.
func TestAChildThatBreaksAConnectionIsReplaced(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ code, why string }{
		"iopub, no frame":   {"garble iopub", "it sent a message of more than 1 GiB"},
		"shell, no frame":   {"garble shell", "it sent a message of more than 1 GiB"},
		"iopub, closed":     {"hangup iopub", "it closed a connection and did not end"},
		"shell, closed":     {"hangup shell", "it closed a connection and did not end"},
		"it ends after all": {"hangup iopub\nsleep 100ms\nexit 7", "it ended by itself, with exit status 7"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, kerneltest.Child{}, func(c *kernel.Config) { c.Aftermath = func() string { return "The run goes on." } })
			result := r.Run(c.code + "\nhang")
			assert.Contains(t, result.Failure().Value, c.why)
			assert.Contains(t, result.Failure().Traceback, "The run goes on.")
			r.Await("restarting, then idle", restarted)
			assert.Equal(t, "back\n", r.Run("print back").Text())
		})
	}
}
