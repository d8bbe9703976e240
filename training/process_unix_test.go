//go:build unix

package training

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOOMKillsAreCountedWhereTheKernelCountsThem(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"version 2":                   {map[string]string{"proc/self/cgroup": "0::/user.slice/a\n", "sys/fs/cgroup/user.slice/a/memory.events": "low 0\nhigh 0\noom 4\noom_kill 3\noom_group_kill 1\n"}, 3},
		"version 2, in a container":   {map[string]string{"proc/self/cgroup": "0::/docker/abc\n", "sys/fs/cgroup/memory.events": "oom_kill 2\n"}, 2},
		"version 1":                   {map[string]string{"proc/self/cgroup": "5:cpu,cpuacct:/a\n4:memory:/b\n0::/\n", "sys/fs/cgroup/memory/b/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"}, 7},
		"version 1, in a container":   {map[string]string{"proc/self/cgroup": "4:memory:/docker/abc\n", "sys/fs/cgroup/memory/memory.oom_control": "oom_kill 1\n"}, 1},
		"both, the memory's counts":   {map[string]string{"proc/self/cgroup": "4:memory:/b\n0::/\n", "sys/fs/cgroup/memory/b/memory.oom_control": "oom_kill 7\n", "proc/vmstat": "oom_kill 9\n"}, 7},
		"the whole machine":           {map[string]string{"proc/self/cgroup": "0::/\n", "proc/vmstat": "nr_free_pages 5\noom_kill 9\n"}, 9},
		"an old kernel":               {map[string]string{"proc/self/cgroup": "4:memory:/b\n", "sys/fs/cgroup/memory/b/memory.oom_control": "oom_kill_disable 0\n"}, 0},
		"no such thing":               {map[string]string{}, 0},
		"a file of another invention": {map[string]string{"proc/self/cgroup": "nonsense\n4:memory\n", "proc/vmstat": "oom_kill many\n"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for path, text := range test.files {
				path = filepath.Join(root, path)
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
				require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
			}
			assert.Equal(t, test.want, oomKills(root))
		})
	}
}

// sleeper starts a process that the test ends.
func sleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill() //nolint:errcheck // the test may have done so
		cmd.Wait()         //nolint:errcheck // it was killed
	})
	return cmd
}

func TestAnIdentityIsOneProcess(t *testing.T) {
	cmd := sleeper(t)
	id := identify(cmd.Process.Pid)
	path := filepath.Join(t.TempDir(), "lock")
	require.NoError(t, os.WriteFile(path, nil, 0o644))
	require.Equal(t, identity{}, readIdentity(path), "an empty file names nobody")
	require.NoError(t, writeIdentity(path, id))
	require.Equal(t, id, readIdentity(path))
	require.True(t, id.here())

	other := identity{id.pid, id.began + 1} // had the number before
	require.False(t, other.here())
	require.ErrorIs(t, other.signal(syscall.SIGKILL), os.ErrProcessDone)
	require.ErrorIs(t, other.killGroup(), os.ErrProcessDone)
	require.True(t, id.here(), "nothing was sent")

	require.NoError(t, id.killGroup())
	require.Error(t, cmd.Wait())
	require.False(t, id.here())
	require.ErrorIs(t, id.signal(syscall.SIGKILL), os.ErrProcessDone)
	require.ErrorIs(t, identity{}.killGroup(), os.ErrProcessDone)

	require.NoError(t, writeIdentity(path, identity{}))
	require.Equal(t, identity{}, readIdentity(path))
	for _, text := range []string{"", "12", "x y", "1 5", "-5 3", "12 x"} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		require.Equal(t, identity{}, readIdentity(path), text)
	}
}

// A worker that outlived its supervisor is ended before the next one starts.
func TestTheFenceEndsAStaleWorker(t *testing.T) {
	path := filepath.Join(t.TempDir(), "worker.lock")
	lock, err := lockWorker(path)
	require.NoError(t, err)
	stale := exec.CommandContext(t.Context(), "sleep", "60")
	stale.ExtraFiles = []*os.File{lock}
	stale.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, stale.Start())
	ended := make(chan error, 1)
	go func() { ended <- stale.Wait() }()
	require.NoError(t, writeIdentity(path, identify(stale.Process.Pid)))
	require.NoError(t, lock.Close(), "as when the supervisor is killed: no unlocking")
	require.True(t, workerLocked(path))
	again, err := lockWorker(path)
	require.NoError(t, err)
	require.Error(t, <-ended, "it was killed")
	require.NoError(t, unlockWorker(again))
	require.False(t, workerLocked(path))
}

func TestTheFenceIsNotHeldByWhatAWorkerLeftBehind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "worker.lock")
	lock, err := lockWorker(path)
	require.NoError(t, err)
	gone := exec.CommandContext(t.Context(), "true")
	require.NoError(t, gone.Run())
	left := exec.CommandContext(t.Context(), "sleep", "60")
	left.ExtraFiles = []*os.File{lock}
	left.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	require.NoError(t, left.Start())
	t.Cleanup(func() {
		left.Process.Kill() //nolint:errcheck // it is there, as is seen below
		left.Wait()         //nolint:errcheck // it was killed
	})
	require.NoError(t, writeIdentity(path, identity{gone.Process.Pid, 1}))
	require.NoError(t, lock.Close())
	again, err := lockWorker(path) // breaks the lock
	require.NoError(t, err)
	require.NoError(t, left.Process.Signal(syscall.Signal(0)), "it was left alone")
	require.NoError(t, unlockWorker(again))
}

// A supervisor that lives gives the lock back for all who have the file.
func TestUnlockingDoesNotWaitForWhatAWorkerLeftBehind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "worker.lock")
	lock, err := lockWorker(path)
	require.NoError(t, err)
	left := exec.CommandContext(t.Context(), "sleep", "60")
	left.ExtraFiles = []*os.File{lock}
	require.NoError(t, left.Start())
	t.Cleanup(func() {
		left.Process.Kill() //nolint:errcheck // it is there
		left.Wait()         //nolint:errcheck // it was killed
	})
	require.True(t, workerLocked(path))
	require.NoError(t, unlockWorker(lock))
	require.False(t, workerLocked(path))
}

func TestLinesOfAnyLength(t *testing.T) {
	text := "short\n" + strings.Repeat("x", 100) + "\n\n" + strings.Repeat("y", 40) + "\nhalf"
	r := bufio.NewReaderSize(strings.NewReader(text), 16)
	var got []string
	for {
		line, err := readLine(r, 50)
		if err == errLong { //nolint:errorlint // readLine returns it as it is
			got = append(got, "too long")
			continue
		}
		if err != nil {
			require.ErrorIs(t, err, io.EOF)
			break
		}
		got = append(got, string(line))
	}
	require.Equal(t, []string{"short\n", "too long", "\n", strings.Repeat("y", 40) + "\n"}, got)
}

// What a worker wrote before its end is read, however long that takes and
// whoever keeps its end of the pipe open.
func TestThePipeEndsWithTheWorkerAndNotBeforeItsWords(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.Close()) }) // somebody else keeps it open
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	over := make(chan struct{})
	lines := bufio.NewReaderSize(newEventPipe(r, over), 16)
	for range 200 {
		_, err := w.WriteString("a line of an event\n")
		require.NoError(t, err)
	}
	close(over)
	n := 0
	for {
		if _, err := readLine(lines, 100); err != nil {
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			break
		}
		if n++; n%100 == 0 {
			time.Sleep(2 * drainWait) // a slow disk
		}
	}
	require.Equal(t, 200, n)
}

func TestThePipeDoesNotListenForEver(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	over := make(chan struct{})
	close(over)
	stop := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				w.WriteString("x\n")              //nolint:errcheck // until nobody reads
				time.Sleep(10 * time.Millisecond) // it never falls silent
			}
		}
	}()
	_, err = io.Copy(io.Discard, newEventPipe(r, over))
	close(stop)
	<-stopped
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, w.Close())
}

func TestTheLastWordsOfALog(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "log.txt"))
	require.NoError(t, err)
	defer f.Close() //nolint:errcheck // of no account
	_, err = f.WriteString("an earlier attempt: CUDA out of memory\n")
	require.NoError(t, err)
	from, err := f.Seek(0, io.SeekEnd)
	require.NoError(t, err)
	require.Empty(t, tail(f, from))
	_, err = f.WriteString("this one\n")
	require.NoError(t, err)
	require.Equal(t, "this one\n", tail(f, from))
	_, err = f.WriteString(strings.Repeat("x", 2*lastWords) + "end")
	require.NoError(t, err)
	require.Len(t, tail(f, from), lastWords)
	require.True(t, strings.HasSuffix(tail(f, from), "end"))
}

func TestStagingIsTheOnlyPlaceForCheckpoints(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "staging")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "1", "deep"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o644))
	outside := t.TempDir()
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "link")))
	alias := filepath.Join(t.TempDir(), "alias")
	require.NoError(t, os.Symlink(dir, alias))
	for path, want := range map[string]bool{
		filepath.Join(dir, "1"): true, filepath.Join(dir, "1", "deep"): true, filepath.Join(alias, "1"): true,
		dir: false, filepath.Join(dir, "file"): false, filepath.Join(dir, "link"): false, outside: false,
		filepath.Join(dir, "..", "staging"): false, dir + "/1/../..": false, filepath.Join(dir, "none"): false, "": false, "1": false,
	} {
		assert.Equal(t, want, within(dir, path), path)
	}
}
