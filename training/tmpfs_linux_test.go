package training_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"outlast/training"
	"outlast/training/trainingtest"
)

// smallDisk returns a folder on a disk of its own, of so many bytes.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skip("a disk that is really full needs the right to mount one: " + err.Error())
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir
}

// fill leaves no byte free. Who removes the file that it returns gives them back.
func fill(t *testing.T, dir string) (filler string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	require.NoError(t, err)
	for chunk := make([]byte, 4096); err == nil; _, err = f.Write(chunk) {
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, f.Close())
	return f.Name()
}

// The disk fills up while a model is trained. Whatever it is that finds no room,
// metrics, checkpoints or the ledger, the run goes on by itself, and every step
// is there once.
func TestADiskThatIsReallyFull(t *testing.T) {
	dir := smallDisk(t, "2m")
	p := trainingtest.Plan("digits",
		trainingtest.Model("a", "hello", "restore", "train 5 every 100", "touch here", "await gate", "train 900 every 100", "finish"),
		trainingtest.Model("b", trainingtest.Good("5", "2")...))
	p.Settings.Retries = 0
	r := createPlan(t, dir, p)
	s, _ := supervisor(t, r)
	filled := make(chan string, 1)
	var waits atomic.Int64 // of the saver and of the reader of the events
	s.Sleep = func(ctx context.Context, _ time.Duration) error {
		time.Sleep(10 * time.Millisecond)
		if waits.Add(1) == 3 {
			os.Remove(<-filled) //nolint:errcheck // without it the test takes too long
		}
		return ctx.Err()
	}
	worked := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	go func() { worked <- s.Work(ctx) }()
	reached(t, r)
	release(t, r)
	filled <- fill(t, dir)
	require.NoError(t, <-worked)
	require.GreaterOrEqual(t, waits.Load(), int64(3), "it was full")
	requireExact(t, r, "a", 900)
	requireExact(t, r, "b", 5)
	require.Subset(t, []training.Cause{training.CauseDone, training.CauseDiskFull}, causes(t, r), "the worker may have met it too")
}

// A pause gives up what the disk had no room for, and no more: no step is
// missing before the checkpoint that is gone on from.
func TestAPauseOnADiskThatIsReallyFull(t *testing.T) {
	dir := smallDisk(t, "2m")
	r := createPlan(t, dir, trainingtest.Plan("digits", trainingtest.Model("a",
		"hello", "restore", "train 5 every 100", "checkpoint asked", "touch here", "await gate", "slow 1ms", "train 900 every 10", "finish")))
	s, _ := supervisor(t, r)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.Sleep = func(ctx context.Context, _ time.Duration) error {
		cancel()
		return ctx.Err()
	}
	worked := make(chan error, 1)
	go func() { worked <- s.Work(ctx) }()
	reached(t, r)
	release(t, r)
	filler := fill(t, dir)
	require.Error(t, <-worked)
	require.NoError(t, os.Remove(filler))
	_, err := work(t, r)
	require.NoError(t, err)
	requireExact(t, r, "a", 900)
}

// The disk fills up when one model is done and before the next one begins, and
// has but one page more after each wait: what finds no room then, waits as well.
func TestADiskThatIsReallyFullBetweenTwoModels(t *testing.T) {
	dir := smallDisk(t, "2m")
	r := createPlan(t, dir, trainingtest.Plan("digits",
		trainingtest.Model("a", trainingtest.Good("5", "2")...), trainingtest.Model("b", trainingtest.Good("5", "2")...)))
	s, v := supervisor(t, r)
	var filler string
	v.FailOn = func(call string, c training.Checkpoint) error {
		if call == "finish" && c.Model == "a" && filler == "" {
			filler = fill(t, dir)
		}
		return nil
	}
	waits := 0
	s.Sleep = func(ctx context.Context, _ time.Duration) error {
		waits++
		info, err := os.Stat(filler)
		if err == nil {
			err = os.Truncate(filler, max(0, info.Size()-int64(os.Getpagesize())))
		}
		return errors.Join(err, ctx.Err())
	}
	_, err := finish(t, s)
	require.NoError(t, err)
	require.Greater(t, waits, 2, "not only the result of a finds no room")
	requireExact(t, r, "a", 5)
	requireExact(t, r, "b", 5)
}

// The disk is full when a worker says that it goes on from an earlier step than
// was thought: the metrics are cut there once there is room, and none is lost.
func TestADiskThatIsReallyFullWhenMetricsAreCut(t *testing.T) {
	dir := smallDisk(t, "1m")
	r := createPlan(t, dir, trainingtest.Plan("digits", trainingtest.Model("a",
		"hello", "@1 restore", "@1 train 2 every 1", "@1 signal KILL",
		"touch here", "await gate", `event {"event":"restored","step":1}`, `event {"event":"metrics","step":1,"time":1,"values":{"loss":7}}`)))
	s, _ := supervisor(t, r)
	filled := make(chan string, 1)
	var waits atomic.Int64
	s.Sleep = func(ctx context.Context, _ time.Duration) error {
		if waits.Add(1) == 3 {
			os.Remove(<-filled) //nolint:errcheck // without it the test takes too long
		}
		return ctx.Err()
	}
	worked := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	go func() { worked <- s.Work(ctx) }()
	reached(t, r)
	filled <- fill(t, dir)
	release(t, r)
	require.NoError(t, <-worked)
	require.Equal(t, []training.Cause{training.CauseKilled, training.CauseDone}, causes(t, r))
	points, err := r.Metrics("a")
	require.NoError(t, err)
	require.Len(t, points, 2)
	require.Equal(t, int64(0), points[0].Step)
	require.Equal(t, map[string]any{"loss": 7.0}, points[1].Values)
}
