package training_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"outlast/training"
	"outlast/training/trainingtest"
)

// That a machine cannot start a program just now says nothing of the model. A
// program that somebody is still writing is such a case.
func TestAProgramThatCannotBeStartedJustNowIsWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	require.NoError(t, err)
	_, err = f.WriteString("#!/bin/sh\nexit 0\n")
	require.NoError(t, err)
	p := trainingtest.Plan("digits", trainingtest.Model("a"))
	p.Code.Command, p.Settings.Retries = []string{path}, 0
	p.Seal()
	r := createPlan(t, t.TempDir(), p)
	s, _ := supervisor(t, r)
	var waits []time.Duration
	s.Sleep = func(ctx context.Context, d time.Duration) error {
		if waits = append(waits, d); len(waits) == 3 {
			require.NoError(t, f.Close())
		}
		return ctx.Err()
	}
	status, err := finish(t, s)
	require.NoError(t, err)
	require.Equal(t, []time.Duration{time.Second, 2 * time.Second, 4 * time.Second}, waits[:3])
	require.Equal(t, training.ModelDone, model(t, status, "a").State)
	first := ledger(t, r, training.EntryEnd)[0]
	require.Equal(t, training.CauseKilled, first.Cause)
	require.Contains(t, first.Message, "cannot start "+path)
}
