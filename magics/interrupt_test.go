package magics

import (
	"bytes"
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/training"
)

func TestAnInterruptEndsAnArchiveInTheMiddle(t *testing.T) {
	run := logged(t, []float64{2, 1})
	const size = 4 << 20
	require.NoError(t, os.WriteFile(run.ModelPath("m", "final.pt"), make([]byte, size), 0o644))
	results := training.Results{Run: "digits", Models: []training.ModelResult{{Name: "m", Final: run.ModelPath("m", "final.pt")}}}
	ctx, interrupt := context.WithCancel(t.Context())
	written := 0
	err := archive(ctx, writerFunc(func(block []byte) (int, error) {
		if written += len(block); written > size/2 {
			interrupt()
		}
		return len(block), nil
	}), run, results, nil)
	require.ErrorIs(t, err, context.Canceled)
	assert.Greater(t, written, size/2)
	assert.Less(t, written, size)
}

// A fading context ends when it has been asked so many times.
type fading struct {
	context.Context //nolint:containedctx // it is one

	left int
}

func (c *fading) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

func TestAnInterruptedArchiveLeavesNothingWheneverItComes(t *testing.T) {
	run := logged(t, []float64{2, 1})
	final := run.ModelPath("m", "final.pt")
	require.NoError(t, os.WriteFile(final, make([]byte, 128<<10), 0o644))
	results := training.Results{Run: "digits", Models: []training.ModelResult{{Name: "m", Final: final}}}
	for left := 0; ; left++ {
		o := resultOptions{zip: "all.zip", here: place{dir: t.TempDir()}}
		var out bytes.Buffer
		err := o.writeZip(&fading{t.Context(), left}, &Call{Stdout: &out, Stderr: &out}, run, results)
		files, readErr := os.ReadDir(o.here.dir)
		require.NoError(t, readErr)
		if err == nil {
			assert.Len(t, files, 1)
			assert.Greater(t, left, 3, "it is asked in the middle too")
			return
		}
		require.ErrorIs(t, err, context.Canceled)
		assert.Empty(t, files)
		assert.Empty(t, out.String())
	}
}

func TestAnInterruptEndsTheReadingOfALogThatGrowsAsFast(t *testing.T) {
	run := logged(t, nil)
	log, err := os.Create(run.ModelPath("m", "log.txt"))
	require.NoError(t, err)
	defer log.Close() //nolint:errcheck // what it holds is of no interest any more
	ctx, interrupt := context.WithCancel(t.Context())
	printed := 0
	more := func() {
		printed++
		_, err := log.WriteString("a line\n")
		assert.NoError(t, err)
	}
	l, err := newLogReader(run, []string{"m"}, writerFunc(func(block []byte) (int, error) {
		if printed == 10 {
			interrupt()
		}
		if printed < 1000 {
			more()
		}
		return len(block), nil
	}))
	require.NoError(t, err)
	more()
	require.ErrorIs(t, l.next(ctx), context.Canceled)
	assert.Equal(t, 11, printed, "the piece that was being written is the last one")
}
