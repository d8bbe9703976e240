package training

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// serverOf starts a fork server for a program without imports.
func serverOf(t *testing.T) *forkServer {
	t.Helper()
	module, err := filepath.Abs("worker")
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), "python3", "-m", "outlast._server", "3")
	cmd.Env = append(os.Environ(), "PYTHONPATH="+module)
	group(cmd)
	f, err := startForkServer(t.Context(), cmd)
	require.NoError(t, err)
	t.Cleanup(f.close)
	return f
}

// A worker may have ended before we know that it was started.
func TestTheEndOfAWorkerIsNeverMissed(t *testing.T) {
	f := serverOf(t)
	given := files(t)
	for range 50 {
		p, err := f.fork(t.Context(), order{Job: "/nowhere", Dir: "/nowhere"}, given)
		require.NoError(t, err)
		time.Sleep(20 * time.Millisecond) // long enough that it mostly has
		end, err := p.wait()
		require.NoError(t, err)
		require.Equal(t, ending{exit: 1}, end)
	}
}

// files returns what a worker is given.
func files(t *testing.T) []*os.File {
	t.Helper()
	var all []*os.File
	for range 3 {
		f, err := os.CreateTemp(t.TempDir(), "")
		require.NoError(t, err)
		t.Cleanup(func() { f.Close() }) //nolint:errcheck // of no account
		all = append(all, f)
	}
	return all
}

func TestAServerThatSaysNothingIsNotWaitedForBeyondAPause(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(t.Context(), "sleep", "1000")
	group(cmd)
	time.AfterFunc(50*time.Millisecond, cancel)
	_, err := startForkServer(ctx, cmd)
	require.ErrorIs(t, err, context.Canceled)
	require.NotNil(t, cmd.ProcessState, "it was ended")
}

func TestAServerThatIsNoneIsNotWaitedFor(t *testing.T) {
	for _, command := range [][]string{{"true"}, {"/nowhere/python"}, {"bash", "-c", "echo nonsense >&3; sleep 0.1"}} {
		cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
		group(cmd)
		_, err := startForkServer(t.Context(), cmd)
		require.Error(t, err, command[0])
	}
}

func TestAServerThatStandsStillIsEnded(t *testing.T) {
	f := serverOf(t)
	require.NoError(t, f.cmd.Process.Signal(syscall.SIGSTOP))
	f.forkLimit = 50 * time.Millisecond
	_, err := f.fork(t.Context(), order{Job: "/nowhere", Dir: "/"}, files(t))
	require.ErrorContains(t, err, "no answer within")
	require.True(t, f.over())
	_, err = f.fork(t.Context(), order{}, nil)
	require.Error(t, err, "and stays so")
}

func TestTheEndOfAWorkerIsSeenBesideAServerThatStandsStill(t *testing.T) {
	f := serverOf(t)
	given := files(t)
	path := filepath.Join(t.TempDir(), "job.json")
	require.NoError(t, syscall.Mkfifo(path, 0o600)) // the worker waits there
	p, err := f.fork(t.Context(), order{Job: path, Dir: "/", Env: map[string]string{}}, given)
	require.NoError(t, err)
	require.True(t, inGroup(p.pid(), p.pid()))
	require.NoError(t, f.cmd.Process.Signal(syscall.SIGSTOP))
	require.NoError(t, killGroup(p.pid()))
	end, err := p.wait()
	require.NoError(t, err)
	require.Equal(t, ending{-1, "killed", false}, end)
	require.True(t, f.over())
}

func TestAWorkerThatCannotBeginIsNoTroubleOfItsServer(t *testing.T) {
	f := serverOf(t)
	_, err := f.fork(t.Context(), order{Job: "/nowhere", Dir: "/nowhere"}, files(t))
	require.NoError(t, err, "that is the worker's trouble")
	require.False(t, f.over())
	given := files(t)
	p, err := f.fork(t.Context(), order{Job: "/nowhere", Dir: "/nowhere"}, given)
	require.NoError(t, err)
	end, err := p.wait()
	require.NoError(t, err)
	require.Equal(t, ending{exit: 1}, end)
	said, err := os.ReadFile(given[1].Name())
	require.NoError(t, err)
	require.Contains(t, string(said), "the worker could not begin")
}
