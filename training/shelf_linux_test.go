package training_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/training"
	"outlast/training/trainingtest"
)

// inMemory returns a folder in memory that is this test's alone.
func inMemory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "training-test-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// supervisorWithMemory returns one that works in this process, and its folder.
func supervisorWithMemory(t *testing.T, r *training.Run) (*training.Supervisor, *trainingtest.Vault, string) {
	t.Helper()
	s, v := supervisor(t, r)
	s.Memory = inMemory(t)
	v.Memory = s.Memory
	return s, v, s.Memory
}

// shelves returns what is in memory: the paths with this pattern below it.
func shelves(t *testing.T, memory, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(memory, pattern))
	require.NoError(t, err)
	return found
}

func TestWhatIsHandedOverInMemoryIsSaved(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "memory", "restore", "train 6 every 2", "finish"), trainingtest.Model("b", trainingtest.Good("4", "2")...))
	s, _, memory := supervisorWithMemory(t, r)
	status, err := finish(t, s)
	require.NoError(t, err)
	requireExact(t, r, "a", 6)
	requireExact(t, r, "b", 4)
	require.Equal(t, "local", model(t, status, "a").Checkpoint.Durability)
	require.Empty(t, shelves(t, memory, "*"), "the memory is given back")
}

// What others may read or write is no place for a model.
func TestOnlyThisUserMayLookAtWhatIsInMemory(t *testing.T) {
	r := create(t, trainingtest.Model("a", append([]string{"memory"}, waiting("gate")...)...))
	s, _, memory := supervisorWithMemory(t, r)
	worked := make(chan error, 1)
	go func() { worked <- s.Work(t.Context()) }()
	reached(t, r)
	for _, dir := range append(shelves(t, memory, "*"), shelves(t, memory, "*/*")...) {
		info, err := os.Stat(dir)
		require.NoError(t, err)
		require.Equal(t, os.ModeDir|0o700, info.Mode(), dir)
	}
	require.Len(t, shelves(t, memory, "*/a"), 1)
	until(t, "the spare one", func() bool { return len(shelves(t, memory, "*/a/*")) == 1 && len(shelves(t, memory, "*/a/spare")) == 1 })
	release(t, r)
	require.NoError(t, <-worked)
}

// A worker that is killed has handed over what it has handed over.
func TestWhatAKilledWorkerLeftInMemoryIsSaved(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "memory", "restore", "@1 train 7 every 100", "@1 checkpoint due", "@1 signal KILL", "train 9 every 100", "finish"))
	s, v, _ := supervisorWithMemory(t, r)
	v.FailOn = func(call string, c training.Checkpoint) error {
		if call == "save" && c.Step == 7 { // the worker is dead by now
			until(t, "its death", func() bool { return !works(status(t, r).Models[0].WorkerPID) })
		}
		return nil
	}
	_, err := finish(t, s)
	require.NoError(t, err)
	requireExact(t, r, "a", 9)
	starts := ledger(t, r, training.EntryStart)
	require.Len(t, starts, 2)
	require.Equal(t, int64(7), starts[1].FromStep)
}

// works reports whether a process is there that has not ended.
func works(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// A disk that is full when a checkpoint is to be copied to it is waited for: what
// is in memory is there yet.
func TestWhatIsInMemoryWaitsForAFullDisk(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "memory", "restore", "train 4 every 2", "finish"))
	s, v, _ := supervisorWithMemory(t, r)
	asked := map[int64]int{}
	v.FailOn = func(call string, c training.Checkpoint) error {
		if call != "save" {
			return nil
		}
		if asked[c.Step]++; asked[c.Step] < 3 {
			return syscall.ENOSPC
		}
		return nil
	}
	_, err := finish(t, s)
	require.NoError(t, err)
	requireExact(t, r, "a", 4)
	require.GreaterOrEqual(t, asked[4], 3)
}

// A supervisor that is killed loses what was staged and leaves its memory to the
// next one, of whatever run, to give back. That of one that works is let alone.
func TestTheMemoryOfAKilledSupervisor(t *testing.T) {
	memory := inMemory(t)
	startIn := func(r *training.Run) {
		t.Helper()
		t.Cleanup(func() { assert.NoError(t, r.Kill(context.Background())) })
		require.NoError(t, r.Start(t.Context(), trainingtest.SupervisorWithMemory(r, memory)))
	}
	script := append([]string{"memory"}, waiting("gate")...)
	first, other := create(t, trainingtest.Model("a", script...)), create(t, trainingtest.Model("a", script...))
	startIn(first)
	reached(t, first)
	until(t, "what was saved", func() bool { c := status(t, first).Models[0].Checkpoint; return c != nil && c.Step == 4 })
	supervisor := status(t, first).SupervisorPID
	require.NoError(t, syscall.Kill(supervisor, syscall.SIGKILL))
	until(t, "its death", func() bool { return status(t, first).SupervisorPID == 0 })
	left := shelves(t, memory, "*")
	require.Len(t, left, 1)
	require.Equal(t, "local", status(t, first).Models[0].Checkpoint.Durability)

	startIn(other)
	reached(t, other)
	require.NoDirExists(t, left[0])
	theirs := shelves(t, memory, "*")
	require.Len(t, theirs, 1)

	release(t, first)
	startIn(first)
	require.Equal(t, training.RunDone, follow(t, first).State)
	requireExact(t, first, "a", 9)
	require.Equal(t, theirs, shelves(t, memory, "*"), "that one works")
	release(t, other)
	require.Equal(t, training.RunDone, follow(t, other).State)
	require.Empty(t, shelves(t, memory, "*"))
}

// Who kills a supervisor on purpose gives its memory back at once.
func TestAKillGivesTheMemoryBack(t *testing.T) {
	memory := inMemory(t)
	r := create(t, trainingtest.Model("a", trainingtest.Good("2", "1")...), trainingtest.Model("b", append([]string{"memory"}, waiting("gate")...)...))
	require.NoError(t, r.Start(t.Context(), trainingtest.SupervisorWithMemory(r, memory)))
	reached(t, r)
	require.Len(t, shelves(t, memory, "*/b"), 1)
	require.NoError(t, r.Kill(t.Context()))
	require.Empty(t, shelves(t, memory, "*"))
}

// Names that somebody else has made are neither followed nor removed.
func TestWhatOnlyLooksLikeAShelfIsLetAlone(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "memory", "restore", "train 4 every 2", "finish"))
	s, _, memory := supervisorWithMemory(t, r)
	precious := filepath.Join(t.TempDir(), "precious")
	require.NoError(t, os.MkdirAll(filepath.Join(precious, "file"), 0o755))
	require.NoError(t, os.Symlink(precious, filepath.Join(memory, "outlast-staging-link")))
	require.NoError(t, os.WriteFile(filepath.Join(memory, "outlast-staging-file"), nil, 0o644))
	require.NoError(t, os.Mkdir(filepath.Join(memory, "another"), 0o755))
	_, err := finish(t, s)
	require.NoError(t, err)
	require.DirExists(t, filepath.Join(precious, "file"))
	require.Len(t, shelves(t, memory, "*"), 3)
}

// What used up the machine's memory is given none of it.
func TestAModelThatUsedUpTheMemoryStagesOnDisk(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "restore", "note memory_staging", "@1 fail host_oom MemoryError none", "train 4 every 2", "finish"))
	s, _, _ := supervisorWithMemory(t, r)
	_, err := finish(t, s)
	require.NoError(t, err)
	places := lines(t, filepath.Join(r.Dir(), "a.memory_staging"))
	require.Len(t, places, 2)
	require.Contains(t, places[0], "outlast-staging-")
	require.Equal(t, `""`, places[1])
}

// Where there is no folder in memory, there is the disk.
func TestWithoutAFolderInMemory(t *testing.T) {
	for name, memory := range map[string]string{"not there": "/dev/shm/none", "on a disk": "", "of nobody": "/proc"} {
		t.Run(name, func(t *testing.T) {
			r := create(t, trainingtest.Model("a", "hello", "restore", "note memory_staging", "train 4 every 2", "finish"))
			s, _ := supervisor(t, r)
			s.Memory = memory
			_, err := finish(t, s)
			require.NoError(t, err)
			require.Equal(t, []string{`""`}, lines(t, filepath.Join(r.Dir(), "a.memory_staging")))
		})
	}
}
