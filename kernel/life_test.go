//go:build unix

package kernel_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/kernel"
	"outlast/kernel/jupyter"
	"outlast/kernel/kerneltest"
)

// works reports whether a process is there and no zombie.
func works(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return !os.IsNotExist(err) || syscall.Kill(pid, 0) == nil && !isLinux()
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

func isLinux() bool {
	_, err := os.Stat("/proc/self")
	return err == nil
}

// states returns the states that were published without a request, in order.
func states(log []kerneltest.Received) string {
	var all []string
	for _, m := range log {
		if s := kerneltest.StateOf(m); s != "" && m.ParentID() == "" {
			all = append(all, string(s))
		}
	}
	return strings.Join(all, " ")
}

// restarted is met when the kernel has said that it has a fresh child.
func restarted(log []kerneltest.Received) kerneltest.Verdict {
	if strings.HasSuffix(states(log), "restarting idle") {
		return kerneltest.Met
	}
	return kerneltest.Unmet
}

func TestWhenTheChildDiesTheCellSaysWhyAndAFreshOneStarts(t *testing.T) {
	for name, c := range map[string]struct{ code, why string }{
		"exit": {"exit 7", "it ended by itself, with exit status 7"},
		"kill": {"signal 9", "SIGKILL, signal 9"},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, kerneltest.Child{IPython: true}, func(c *kernel.Config) {
				c.Aftermath = func() string { return "The run 'farm' goes on." }
			})
			assert.Equal(t, 1, r.Run("print up").Count())
			request := r.Execute("input when\n" + c.code)
			behind, ours := r.Execute("print never"), r.Execute("%print never")
			complete := r.Send(kerneltest.Shell, "complete_request", nil)
			r.Finish(r.Send(kerneltest.Shell, jupyter.KernelInfoRequest, struct{}{})) // all have come
			r.Await("the question", asked)
			began := time.Now()
			r.Send(kerneltest.Stdin, "input_reply", map[string]any{"value": "now"})
			result := r.Finish(request)
			assertWithin(t, time.Second, began)
			assert.Equal(t, jupyter.Failed, result.Status())
			assert.Equal(t, "KernelDied", result.Failure().Name)
			assert.Contains(t, result.Failure().Value, c.why)
			text := strings.Join(result.Failure().Traceback, "\n")
			assert.Contains(t, text, "variables are gone")
			assert.Contains(t, text, "The run 'farm' goes on.")
			assert.Contains(t, result.Types(), jupyter.TypeError)
			assert.Equal(t, jupyter.Aborted, r.Finish(behind).Status())
			assert.Equal(t, jupyter.Aborted, r.Finish(ours).Status())
			assert.Equal(t, jupyter.Failed, r.Finish(complete).Status(), "every request is answered")
			r.Await("restarting, then idle", restarted)
			again := r.Run("print back")
			assert.Equal(t, "back\n", again.Text(), "nobody is told twice")
			assert.Equal(t, 1, again.Count(), "a fresh child counts anew")
		})
	}
}

func TestWhatADyingChildHadPrintedIsShown(t *testing.T) {
	r := start(t, kerneltest.Child{})
	result := r.Run("flood 2000 200\nprint last words\nexit 1")
	assert.Contains(t, result.Text(), "last words")
	assert.Len(t, result.Text(), 2000*200+len("last words\n"))
}

func TestADeathThatNoCellSawIsToldWithTheNextOne(t *testing.T) {
	r := start(t, kerneltest.Child{})
	pid := number(t, r.Run("pid").Text())
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	r.Await("restarting, then idle", restarted)
	assert.Contains(t, r.Run("print next").Text(), "variables are gone")
	assert.Equal(t, "then\n", r.Run("print then").Text())
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(text))
	require.NoError(t, err)
	return n
}

func TestNothingOfADeadChildsGroupStaysBehind(t *testing.T) {
	r := start(t, kerneltest.Child{})
	pid := number(t, r.Run("grandchild").Text())
	assert.True(t, works(pid))
	r.Run("exit 1")
	eventually(t, "the child's own child ends", func() bool { return !works(pid) })
}

func TestSomebodyWhoHoldsTheChildsTerminalDelaysNothing(t *testing.T) {
	r := start(t, kerneltest.Child{})
	r.Run("orphan")
	began := time.Now()
	assert.Equal(t, "KernelDied", r.Run("exit 1").Failure().Name)
	assertWithin(t, time.Second, began)
}

func TestACrashLoopEndsWithAClearTextAndARestartRevivesTheKernel(t *testing.T) {
	counter := filepath.Join(t.TempDir(), "starts")
	child := kerneltest.Child{BootExit: 3, BootText: "no module named life\n"}
	r := start(t, child, func(c *kernel.Config) {
		c.Spec.Argv = append([]string{"/bin/sh", "-c", `echo >> ` + counter + `; test -e ` + counter + `.ok && shift; exec "$@"`, "sh"}, c.Spec.Argv...)
	})
	info := r.Send(kerneltest.Shell, jupyter.KernelInfoRequest, struct{}{})
	result := r.Run("print hello")
	assert.Equal(t, "KernelDied", result.Failure().Name)
	text := strings.Join(result.Failure().Traceback, "\n")
	for _, part := range []string{"5 times", "exit status 3", "no module named life", "%outlast restart"} {
		assert.Contains(t, text, part)
	}
	assert.NotContains(t, text, "A new one starts now")
	assert.Equal(t, jupyter.OK, r.Finish(info).Status(), "the front end comes up, to show the error")
	starts, err := os.ReadFile(counter)
	require.NoError(t, err)
	assert.Len(t, starts, 5)
	assert.Equal(t, jupyter.Failed, r.Finish(r.Send(kerneltest.Shell, "complete_request", nil)).Status())
	assert.Equal(t, "here", r.Run("%print here").Text(), "a cell of ours needs no child")
	again := r.Run("%nowrestart")
	assert.Equal(t, "KernelDied", again.Failure().Name, "what is broken still is")
}

func TestARestartRevivesAKernelThatHadGivenUp(t *testing.T) {
	good := filepath.Join(t.TempDir(), "good")
	r := start(t, kerneltest.Child{}, func(c *kernel.Config) {
		c.Spec.Argv = append([]string{"/bin/sh", "-c", `test -e ` + good + ` || exit 3; exec "$@"`, "sh"}, c.Spec.Argv...)
	})
	assert.Equal(t, "KernelDied", r.Run("print hello").Failure().Name)
	require.NoError(t, os.WriteFile(good, nil, 0o600))
	assert.Equal(t, jupyter.OK, r.Run("%nowrestart").Status())
	assert.Equal(t, "hello\n", r.Run("print hello").Text())
}

func TestAChildThatCannotBeStartedIsExplained(t *testing.T) {
	r := start(t, kerneltest.Child{}, func(c *kernel.Config) { c.Spec.Argv = []string{"/no/such/python", "-m", "ipykernel"} })
	text := strings.Join(r.Run("1").Failure().Traceback, "\n")
	for _, part := range []string{"/no/such/python", "no such file", "To do:", "outlast install"} {
		assert.Contains(t, text, part)
	}
}

func TestAHangingChildCanBeRestartedAlone(t *testing.T) {
	r := start(t, kerneltest.Child{IPython: true, IgnoreSignals: true})
	hanging := r.Execute("hang")
	r.Await("the cell runs", published(jupyter.TypeExecuteInput, hanging))
	r.Finish(r.Send(kerneltest.Control, jupyter.InterruptRequest, struct{}{}))
	assert.Equal(t, jupyter.OK, r.Run("%nowrestart").Status())
	assert.Contains(t, r.Finish(hanging).Failure().Value, "it was restarted")
	assert.Equal(t, "fresh\n", r.Run("print fresh").Text())
}

func TestRestartsThatWereAskedForAreNoFailures(t *testing.T) {
	r := start(t, kerneltest.Child{})
	for range 6 { // more than a child may fail
		require.Equal(t, jupyter.OK, r.Run("%nowrestart").Status())
	}
	assert.Contains(t, r.Run("print here").Text(), "here\n")
}

// published is met when a message of a type was published for request.
func published(typ jupyter.Type, request *jupyter.Message) kerneltest.Expectation {
	return func(log []kerneltest.Received) kerneltest.Verdict {
		for _, m := range log {
			if m.Channel == kerneltest.IOPub && m.Header.Type == typ && m.ParentID() == request.Header.ID {
				return kerneltest.Met
			}
		}
		return kerneltest.Unmet
	}
}

// printed is met when text was printed for request.
func printed(text string, request *jupyter.Message) kerneltest.Expectation {
	return func(log []kerneltest.Received) kerneltest.Verdict {
		for _, m := range log {
			if m.ParentID() == request.Header.ID && strings.Contains(kerneltest.ContentOf[jupyter.StreamContent](m).Text, text) {
				return kerneltest.Met
			}
		}
		return kerneltest.Unmet
	}
}

func TestAShutdownIsAnsweredAndLeavesNobody(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		child   kerneltest.Child
		code    string
		channel kerneltest.Channel
		restart bool
	}{
		"idle":                  {kerneltest.Child{}, "", kerneltest.Control, false},
		"to restart":            {kerneltest.Child{}, "", kerneltest.Control, true},
		"asked on shell":        {kerneltest.Child{}, "", kerneltest.Shell, false},
		"while a cell runs":     {kerneltest.Child{}, "sleep 60s", kerneltest.Control, false},
		"while it hangs":        {kerneltest.Child{IgnoreSignals: true}, "hang", kerneltest.Control, false},
		"while a magic runs":    {kerneltest.Child{IPython: true}, "%wait", kerneltest.Control, true},
		"it never answers":      {kerneltest.Child{Deaf: true}, "", kerneltest.Control, false},
		"it boots":              {kerneltest.Child{Boot: time.Minute, IgnoreSignals: true}, "", kerneltest.Control, false},
		"one has given up":      {kerneltest.Child{BootExit: 1}, "print x", kerneltest.Control, false},
		"with a child's child":  {kerneltest.Child{}, "grandchild\nsleep 60s", kerneltest.Control, false},
		"between two lives":     {kerneltest.Child{Boot: 100 * time.Millisecond}, "exit 1", kerneltest.Control, false},
		"it is slow to answer":  {kerneltest.Child{SlowReplies: 300 * time.Millisecond}, "", kerneltest.Control, false},
		"it wants messages too": {kerneltest.Child{ByMessage: true}, "sleep 60s", kerneltest.Control, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, c.child)
			if c.code != "" {
				running := r.Execute(c.code)
				if c.child.Boot == 0 && c.child.BootExit == 0 {
					r.Await("the cell runs", published(jupyter.TypeExecuteInput, running))
				}
			}
			began := time.Now()
			request := r.Send(c.channel, jupyter.ShutdownRequest, jupyter.ShutdownContent{Restart: c.restart})
			reply := r.Finish(request).Reply
			assert.Equal(t, c.restart, kerneltest.ContentOf[jupyter.ShutdownReplyContent](reply).Restart)
			assert.Equal(t, c.channel, reply.Channel)
			r.wait(t)
			assertWithin(t, 2500*time.Millisecond, began) // Jupyter sends SIGTERM then
			for _, pid := range processesWith(t, r.config.TempDir) {
				t.Errorf("process %d is left", pid)
			}
		})
	}
}

// What a killed kernel leaves behind is removed by a later one.
func TestTheFoldersOfAKilledKernelAreSwept(t *testing.T) {
	killed := spawn(t, kerneltest.Child{}, jupyter.IPC)
	kerneltest.NewFrontend(t, killed.connection).Run("print up")
	folders := filepath.Join(killed.dir, fmt.Sprintf("outlast-%d-*", killed.Process.Pid))
	left, err := filepath.Glob(folders)
	require.NoError(t, err)
	require.Len(t, left, 2, "the child's, and that of the magics")
	other := start(t, kerneltest.Child{}, func(c *kernel.Config) { c.TempDir = killed.dir })
	other.Run("print up")
	before := time.Now().Add(-time.Hour)
	for _, dir := range left {
		require.NoError(t, os.Chtimes(filepath.Join(dir, "lock"), before, before))
	}
	other.Run("%nowrestart")
	for _, dir := range left {
		assert.DirExists(t, dir, "it is in use")
	}
	require.NoError(t, killed.Process.Kill())
	killed.Wait() //nolint:errcheck // it was killed
	other.Run("%nowrestart")
	for _, dir := range left {
		assert.NoDirExists(t, dir)
	}
}

// processesWith returns the processes whose command line or folder names dir.
func processesWith(t *testing.T, dir string) []int {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	var found []int
	for _, path := range lines {
		pid := number(t, filepath.Base(filepath.Dir(path)))
		line, _ := os.ReadFile(path) // it may have ended
		cwd, _ := os.Readlink(filepath.Join(filepath.Dir(path), "cwd"))
		if pid != os.Getpid() && (strings.Contains(string(line), dir) || cwd == dir) && works(pid) {
			found = append(found, pid)
		}
	}
	return found
}
