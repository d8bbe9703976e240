//go:build unix

package training_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/training"
	"outlast/training/trainingtest"
)

// start starts a supervisor process for r. The test ends it if need be.
func start(t *testing.T, r *training.Run) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		assert.NoError(t, r.Kill(ctx))
	})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	require.NoError(t, r.Start(ctx, trainingtest.Supervisor(r)))
}

// follow waits until nobody works on r and returns its last status.
func follow(t *testing.T, r *training.Run) training.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	s, err := r.Follow(ctx, 10*time.Millisecond, func(training.Status) {})
	require.NoError(t, err)
	return s
}

func status(t *testing.T, r *training.Run) training.Status {
	t.Helper()
	s, err := r.Status()
	require.NoError(t, err)
	return s
}

// waiting is the script of a model that comes so far and waits for a file.
func waiting(gate string) []string {
	return []string{"hello", "restore", "train 5 every 2", "touch here", "await " + gate, "train 9 every 2", "finish"}
}

// reached waits for the file here.
func reached(t *testing.T, r *training.Run) {
	t.Helper()
	until(t, "the file here", func() bool { _, err := os.Stat(filepath.Join(r.Dir(), "here")); return err == nil })
}

// release makes the file gate.
func release(t *testing.T, r *training.Run) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(r.Dir(), "gate"), nil, 0o644))
}

func TestASupervisorWorksDetachedAndIsFoundThroughTheDisk(t *testing.T) {
	r := create(t, trainingtest.Model("a", waiting("gate")...))
	start(t, r)
	reached(t, r)
	found, err := training.Find(r.DataDir(), "")
	require.NoError(t, err)
	var s training.Status
	until(t, "the steps", func() bool { s = status(t, found); return s.Models[0].Step == 5 })
	require.Equal(t, training.RunRunning, s.State)
	require.NotEqual(t, os.Getpid(), s.SupervisorPID)
	require.NotZero(t, s.Models[0].WorkerPID)
	session, err := exec.CommandContext(t.Context(), "ps", "-o", "sid=", "-p", strconv.Itoa(s.SupervisorPID)).Output()
	require.NoError(t, err)
	var sid int
	_, err = fmt.Sscan(string(session), &sid)
	require.NoError(t, err)
	require.Equal(t, s.SupervisorPID, sid, "it leads a session of its own")
	release(t, r)
	require.Equal(t, training.RunDone, follow(t, found).State)
	requireExact(t, r, "a", 9)
}

func TestARunHasOneSupervisor(t *testing.T) {
	r := create(t, trainingtest.Model("a", waiting("gate")...))
	var starters sync.WaitGroup
	errs := make([]error, 4)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for i := range errs {
		starters.Go(func() { errs[i] = r.Start(ctx, trainingtest.Supervisor(r)) })
	}
	starters.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	start(t, r) // for the cleaning up, and it does nothing
	reached(t, r)
	s, _ := supervisor(t, r)
	require.ErrorContains(t, s.Work(t.Context()), "another supervisor works on it")
	release(t, r)
	require.Equal(t, training.RunDone, follow(t, r).State)
	require.Len(t, ledger(t, r, training.EntryTakeover), 1)
	require.Len(t, ledger(t, r, training.EntryStart), 1)
}

func TestPauseWaitsUntilEverythingIsSaved(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "restore", "@1 train 3 every 100", "@1 touch here", "slow 1ms", "train 200 every 1000", "finish"))
	start(t, r)
	reached(t, r)
	s, err := r.Pause(t.Context())
	require.NoError(t, err)
	require.Equal(t, training.RunPaused, s.State)
	require.Zero(t, s.SupervisorPID)
	require.GreaterOrEqual(t, s.Models[0].Checkpoint.Step, int64(3))
	require.Equal(t, trainingtest.StateAfter(s.Models[0].Checkpoint.Step), trainingtest.State(s.Models[0].Checkpoint.Path))
	start(t, r)
	require.Equal(t, training.RunDone, follow(t, r).State)
	requireExact(t, r, "a", 200)
	s, err = r.Pause(t.Context())
	require.NoError(t, err, "that nobody works is no error")
	require.Equal(t, training.RunDone, s.State)
}

// Whoever starts a run while its supervisor is about to end gets a new one.
func TestStartDoesNotRelyOnASupervisorThatEnds(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "restore", "deaf", "@1 train 3 every 1", "@1 touch here", "@1 await gate", "train 9 every 3", "finish"),
		trainingtest.Model("b", trainingtest.Good("2", "1")...))
	start(t, r)
	reached(t, r)
	first := status(t, r)
	require.NoError(t, syscall.Kill(first.SupervisorPID, syscall.SIGTERM))
	until(t, "the end is announced", func() bool { return status(t, r).Ending })
	again := make(chan error, 1)
	go func() { again <- r.Start(t.Context(), trainingtest.Supervisor(r)) }()
	release(t, r)
	require.NoError(t, <-again)
	require.Equal(t, training.RunDone, follow(t, r).State)
	require.Len(t, ledger(t, r, training.EntryTakeover), 2)
	requireExact(t, r, "b", 2)
}

// The supervisor is killed, as the kernel does it that needs the memory: its
// worker goes with it, and the next one loses nothing that was saved.
func TestTheWorkerDiesWithItsSupervisor(t *testing.T) {
	r := create(t, trainingtest.Model("a", append([]string{"deaf"}, waiting("gate")...)...))
	start(t, r)
	reached(t, r)
	var s training.Status
	until(t, "the checkpoint of step 4", func() bool {
		s = status(t, r)
		return s.Models[0].Checkpoint != nil && s.Models[0].Checkpoint.Step == 4
	})
	require.NoError(t, syscall.Kill(s.SupervisorPID, syscall.SIGKILL))
	until(t, "the end of the worker", func() bool { return syscall.Kill(s.Models[0].WorkerPID, 0) != nil })
	s = status(t, r)
	require.Equal(t, training.RunPaused, s.State)
	require.Equal(t, training.CauseLost, s.Models[0].Cause)
	require.NotEmpty(t, s.Models[0].Error)
	release(t, r)
	start(t, r)
	require.Equal(t, training.RunDone, follow(t, r).State)
	requireExact(t, r, "a", 9)
	require.Equal(t, []training.Cause{training.CauseLost, training.CauseDone}, causes(t, r))
	ends := ledger(t, r, training.EntryEnd)
	require.Equal(t, int64(5), ends[0].Step, "known from the metrics")
	require.Equal(t, int64(1), *ends[1].StepsRedone)
	takeovers := ledger(t, r, training.EntryTakeover)
	require.Equal(t, int64(2), takeovers[1].Generation)
}

func TestKillEndsSupervisorAndWorkerAtOnce(t *testing.T) {
	r := create(t, trainingtest.Model("a", append([]string{"deaf"}, waiting("never")...)...))
	start(t, r)
	reached(t, r)
	var s training.Status
	until(t, "the worker", func() bool { s = status(t, r); return s.Models[0].WorkerPID != 0 })
	require.NoError(t, r.Kill(t.Context()))
	until(t, "the end of the supervisor", func() bool { return syscall.Kill(s.SupervisorPID, 0) != nil })
	until(t, "the end of the worker", func() bool { return syscall.Kill(s.Models[0].WorkerPID, 0) != nil })
	require.Equal(t, training.RunPaused, status(t, r).State)
	require.NoError(t, r.Kill(t.Context()), "that nobody works is no error")
}

func TestTwentyKillsAtAnyMomentLoseNothing(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "restore", "slow 2ms", "train 150 every 7", "finish"), trainingtest.Model("b", trainingtest.Good("20", "3")...))
	for i := range 20 {
		start(t, r)
		time.Sleep(time.Duration(i*7) * time.Millisecond) // the moments differ; none of them matters
		require.NoError(t, r.Kill(t.Context()))
	}
	start(t, r)
	require.Equal(t, training.RunDone, follow(t, r).State)
	requireExact(t, r, "a", 150)
	requireExact(t, r, "b", 20)
	running := map[string]int{}
	for _, e := range ledger(t, r, training.EntryStart) {
		running[e.Model]++
	}
	for _, e := range ledger(t, r, training.EntryEnd) {
		running[e.Model]--
	}
	require.Equal(t, map[string]int{"a": 0, "b": 0}, running, "every attempt has an end")
}

func TestASupervisorThatCannotWorkSaysWhy(t *testing.T) {
	r := create(t, trainingtest.Model("a", trainingtest.Good("2", "1")...))
	err := r.Start(t.Context(), training.Command{Path: "/bin/sh", Args: []string{"-c", "echo no such thing >&2; exit 3"}})
	require.ErrorContains(t, err, "no such thing")
	err = r.Start(t.Context(), training.Command{Path: "/nowhere/outlast"})
	require.ErrorContains(t, err, "start supervisor")
}

func TestNothingIsLaunchedForWhoHasGoneAway(t *testing.T) {
	r := create(t, trainingtest.Model("a", trainingtest.Good("2", "1")...))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, r.Start(ctx, trainingtest.Supervisor(r)), context.Canceled)
	require.NoFileExists(t, filepath.Join(r.Dir(), "supervisor.log"))
}

// The number of a supervisor that was killed may be another process's now.
func TestANumberLeftBehindIsNoSupervisor(t *testing.T) {
	r := create(t, trainingtest.Model("a", waiting("gate")...))
	bystander := exec.CommandContext(t.Context(), "sleep", "60")
	require.NoError(t, bystander.Start())
	t.Cleanup(func() {
		bystander.Process.Kill() //nolint:errcheck // it is there, as was seen
		bystander.Wait()         //nolint:errcheck // it was killed
	})
	lock := filepath.Join(r.Dir(), "supervisor.lock")
	text := fmt.Sprintf("%-39s\n", fmt.Sprintf("%d %d", bystander.Process.Pid, 12345)) // another start time
	require.NoError(t, os.WriteFile(lock, []byte(text), 0o644))
	require.Zero(t, status(t, r).SupervisorPID, "nobody holds the lock")

	f, err := os.Open(lock)
	require.NoError(t, err)
	require.NoError(t, syscall.Flock(int(f.Fd()), syscall.LOCK_EX)) // a new supervisor, before it said who it is
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = r.Pause(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, r.Kill(ctx), context.DeadlineExceeded)
	require.NoError(t, f.Close())
	require.NoError(t, bystander.Process.Signal(syscall.Signal(0)), "it was left alone")
}

func TestFollowTellsTheLastState(t *testing.T) {
	r := create(t, trainingtest.Model("a", waiting("gate")...))
	start(t, r)
	reached(t, r)
	seen := 0
	last, err := r.Follow(t.Context(), 5*time.Millisecond, func(s training.Status) {
		if seen++; seen == 1 {
			release(t, r)
		}
	})
	require.NoError(t, err)
	require.Positive(t, seen)
	require.Equal(t, training.RunDone, last.State)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = r.Follow(ctx, time.Second, func(training.Status) {})
	require.NoError(t, err, "it is over already")
}

// A supervisor that has the lock and has not yet said who it is is one all the
// same.
func TestASupervisorThatIsJustStartingIsSeen(t *testing.T) {
	r := create(t, trainingtest.Model("a", "exit 0"))
	path := filepath.Join(r.Dir(), "supervisor.lock")
	f, err := os.Create(path)
	require.NoError(t, err)
	require.NoError(t, syscall.Flock(int(f.Fd()), syscall.LOCK_EX))
	seen := make(chan training.Status, 1)
	asked := make(chan struct{})
	go func() {
		close(asked)
		s, _ := r.Status() // an error shows in what was seen
		seen <- s
	}()
	<-asked
	time.Sleep(20 * time.Millisecond) // most likely it has looked by now; if not, it is as good
	_, err = fmt.Fprintf(f, "%-39s\n", fmt.Sprintf("%d 0", os.Getpid()))
	require.NoError(t, err)
	require.Equal(t, os.Getpid(), (<-seen).SupervisorPID)
	require.NoError(t, f.Close())
	require.Zero(t, status(t, r).SupervisorPID)
}
