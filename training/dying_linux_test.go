package training_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"outlast/training"
	"outlast/training/trainingtest"
)

// A supervisor that was killed holds its lock until the last of its threads has
// gone. Whoever starts the run just then gets a new one.
func TestStartDoesNotRelyOnASupervisorThatWasKilled(t *testing.T) {
	r := create(t, trainingtest.Model("a", trainingtest.Good("2", "1")...))
	killed := exec.CommandContext(t.Context(), "sleep", "1000")
	require.NoError(t, killed.Start())
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", killed.Process.Pid))
	require.NoError(t, err)
	began := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))[19]
	lock, err := os.OpenFile(filepath.Join(r.Dir(), "supervisor.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	require.NoError(t, err)
	defer lock.Close() //nolint:errcheck // its lock is given back below
	require.NoError(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
	_, err = fmt.Fprintf(lock, "%-39s\n", fmt.Sprintf("%d %s", killed.Process.Pid, began))
	require.NoError(t, err)
	state, err := json.Marshal(training.Status{
		Run: r.Name(), State: training.RunRunning, SupervisorPID: killed.Process.Pid, Generation: 1,
		Models: []training.ModelStatus{{Name: "a", State: training.ModelRunning}},
	})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(r.Dir(), "state.json"), state, 0o644))
	require.NoError(t, r.Start(t.Context(), trainingtest.Supervisor(r)), "as long as it works, it is the one")

	require.NoError(t, killed.Process.Kill())
	until(t, "its death", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", killed.Process.Pid))
		return err == nil && strings.Contains(string(stat), ") Z ")
	})
	again := make(chan error, 1)
	go func() { again <- r.Start(t.Context(), trainingtest.Supervisor(r)) }()
	select {
	case err := <-again:
		require.Fail(t, "a dead supervisor was taken for one that works", "%v", err)
	case <-time.After(200 * time.Millisecond): // four looks
	}
	require.NoError(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_UN))
	require.NoError(t, <-again)
	require.Equal(t, training.RunDone, follow(t, r).State)
	require.Error(t, killed.Wait())
}
