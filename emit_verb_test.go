//go:build unix

package main_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A line that a pipe does not hold at once must not be torn by another one.
func TestEventsOfSeveralProcessesAreWhole(t *testing.T) {
	const writers, length = 8, 100_000
	binary := build(t)
	job := filepath.Join(t.TempDir(), "job.json")
	require.NoError(t, os.WriteFile(job, []byte("{}"), 0o600))
	events, theirs, err := os.Pipe()
	require.NoError(t, err)
	defer events.Close() //nolint:errcheck // it was only read
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var emits []*exec.Cmd
	for range writers {
		emit := exec.CommandContext(ctx, binary, "emit", "failed", strings.Repeat("x", length))
		emit.Env = append(os.Environ(), "OUTLAST_EVENTS_FD=3", "OUTLAST_JOB="+job, "OUTLAST_STAGING="+t.TempDir())
		emit.ExtraFiles, emit.Stderr = []*os.File{theirs}, os.Stderr
		require.NoError(t, emit.Start())
		emits = append(emits, emit)
	}
	require.NoError(t, theirs.Close())
	lines := bufio.NewReaderSize(events, 4096)
	for range writers {
		line, err := lines.ReadBytes('\n')
		require.NoError(t, err)
		var e struct{ Event, Message string }
		require.NoError(t, json.Unmarshal(line, &e), "%.200s", line)
		assert.Equal(t, "failed", e.Event)
		assert.Len(t, e.Message, length)
	}
	_, err = lines.ReadByte()
	require.ErrorIs(t, err, io.EOF)
	for _, emit := range emits {
		require.NoError(t, emit.Wait())
	}
}
