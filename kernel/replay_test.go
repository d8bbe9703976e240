//go:build unix

package kernel_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/kernel"
	"outlast/kernel/jupyter"
	"outlast/kernel/kerneltest"
)

func TestAReplayJoinsWhatWasPrintedInPieces(t *testing.T) {
	const lines, size = 40_000, 101
	r := start(t, kerneltest.Child{}, func(c *kernel.Config) { c.JournalDir = c.TempDir + "/journal" })
	before := r.Run(fmt.Sprintf("flood %d %d", lines, size))
	require.Len(t, before.Text(), lines*size)
	after := r.Run("%replay")
	if before.Text() != after.Text() { // megabytes that nobody wants to see compared
		t.Fatalf("%.200s", after.Text())
	}
	texts := 0
	for _, m := range after.Output {
		if m.Header.Type == jupyter.TypeStream {
			texts++
			assert.LessOrEqual(t, len(kerneltest.ContentOf[jupyter.StreamContent](m).Text), 1<<20)
		}
	}
	assert.Equal(t, 4, texts, "no message is larger than a front end likes")
}

// The journal is a convenience: a home that is full or read-only is no reason
// to have no kernel.
func TestWithoutAFolderForTheJournalNothingIsKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	r := start(t, kerneltest.Child{}, func(c *kernel.Config) { c.JournalDir = filepath.Join(file, "journal") })
	assert.Equal(t, "printed\n", r.Run("print printed").Text())
	assert.Contains(t, r.log.String(), "output is not kept")
	replay := r.Run("%replay").Failure()
	assert.Contains(t, replay.Value, "its output is not kept: ")
	assert.Contains(t, replay.Value, file)
	assert.Contains(t, replay.Value, "restart the kernel")
}

func TestAReplayCanBeInterrupted(t *testing.T) {
	r := start(t, kerneltest.Child{}, func(c *kernel.Config) { c.JournalDir = c.TempDir + "/journal" })
	require.NotEmpty(t, r.Run("flood 3 10").Text())
	stopped := r.Run("%replay interrupted")
	assert.Equal(t, jupyter.Failed, stopped.Status())
	assert.Empty(t, stopped.Text())
}
