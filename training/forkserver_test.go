//go:build linux

package training_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/training"
	"outlast/training/trainingtest"
)

// counting is a program that trains for six steps, tells how far it is and what
// it comes from, and does at its third step, once, what "trouble" says.
const counting = `
import os
import signal
import sys
import time


class Counter:
    seen = 0

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


counter = Counter()
job.track(counter=counter)
print("from", os.getppid(), flush=True)
for step in job.steps(6):
    job.log(at=step)
    counter.seen += 1
    once = os.path.join(job.dir, "once")
    if step == 3 and not os.path.exists(once):
        open(once, "w").close()
        exec(job.params.get("trouble", ""))
assert counter.seen == 6, counter.seen
job.finish(seen=counter.seen)
`

// pythonPlan is a plan of Python code. Models are named by the trouble that they
// make.
func pythonPlan(t *testing.T, source string, troubles ...string) *training.Plan {
	t.Helper()
	python, err := exec.LookPath("python3")
	require.NoError(t, err, "the tests need a Python")
	p := trainingtest.Plan("digits")
	p.Code = training.Code{Kind: training.CodeCell, Name: "cell.py", Source: source}
	p.Python, p.Dir, p.Settings.Env = python, t.TempDir(), nil
	p.Settings.CheckpointEvery.Steps = 1
	for i, trouble := range troubles {
		p.Models = append(p.Models, training.Model{Name: fmt.Sprintf("m%d", i), Params: map[string]any{"trouble": trouble}})
	}
	p.Seal()
	return p
}

// python returns a supervisor of a new run of p, in this process.
func python(t *testing.T, p *training.Plan) *training.Supervisor {
	t.Helper()
	s, _ := supervisor(t, createPlan(t, t.TempDir(), p))
	module, err := filepath.Abs("worker")
	require.NoError(t, err)
	s.WorkerDir = module
	return s
}

// parents returns which processes a model's workers came from, in order.
func parents(t *testing.T, r *training.Run, name string) []int {
	t.Helper()
	return numbers(t, r, name, "from ")
}

// numbers are what a model has printed behind prefix.
func numbers(t *testing.T, r *training.Run, name, prefix string) []int {
	t.Helper()
	var all []int
	for _, line := range lines(t, r.ModelPath(name, "log.txt")) {
		if text, ok := strings.CutPrefix(line, prefix); ok {
			pid, err := strconv.Atoi(text)
			require.NoError(t, err)
			all = append(all, pid)
		}
	}
	return all
}

func running(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	state := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))[0]
	return state != "Z" && state != "X"
}

func TestWorkersAreForkedFromOneServer(t *testing.T) {
	s := python(t, pythonPlan(t, counting, "", "", ""))
	status, err := finish(t, s)
	require.NoError(t, err)
	server := parents(t, s.Run, "m0")
	require.Len(t, server, 1)
	assert.NotEqual(t, os.Getpid(), server[0], "they are no children of ours")
	assert.Equal(t, server, parents(t, s.Run, "m1"))
	assert.Equal(t, server, parents(t, s.Run, "m2"))
	assert.EqualValues(t, 6, model(t, status, "m2").Metrics["seen"])
	assert.False(t, running(server[0]), "it ends with the run")
}

// One server forks for all that are trained at once; when it is killed, they all
// go on.
func TestWorkersThatAreTrainedAtOnceComeFromOneServer(t *testing.T) {
	meet := `open(os.path.join(os.path.dirname(job.dir), "here"), "w").close()
models = os.path.dirname(os.path.dirname(job.dir))
while not all(os.path.exists(os.path.join(models, m, "here")) for m in ("m0", "m1", "m2")): time.sleep(0.01)
if job.name == "m1": os.kill(os.getppid(), signal.SIGKILL); time.sleep(100)`
	p := pythonPlan(t, counting, meet, meet, meet, "")
	p.Settings.Parallel = 3
	s := python(t, p)
	status, err := finish(t, s)
	require.NoError(t, err)
	first := parents(t, s.Run, "m0")[0]
	for _, name := range []string{"m0", "m1", "m2"} {
		from := parents(t, s.Run, name)
		require.Equal(t, first, from[0])
		require.NotContains(t, from[1:], first)
		assert.EqualValues(t, 6, model(t, status, name).Metrics["seen"])
		points, err := s.Run.Metrics(name)
		require.NoError(t, err)
		assert.Len(t, points, 6, "each step once")
	}
	assert.Len(t, parents(t, s.Run, "m3"), 1)
	for _, e := range ledger(t, s.Run, training.EntryEnd) {
		assert.Contains(t, []training.Cause{training.CauseKilled, training.CauseDone}, e.Cause)
	}
}

// awaited waits for a process beside this one that came from the server: the next
// worker.
const awaited = `
def siblings(known=()):
    found = set()
    while not found:
        time.sleep(0.01)
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            try:
                parent = int(open("/proc/%d/stat" % pid).read().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == os.getppid() and pid not in (os.getpid(), *known):
                found.add(pid)
    return found


first = siblings()
print("next", *first, flush=True)
`

func TestTheNextWorkerWaitsAlready(t *testing.T) {
	s := python(t, pythonPlan(t, counting, awaited, "", ""))
	_, err := finish(t, s)
	require.NoError(t, err)
	waiting := numbers(t, s.Run, "m0", "next ")
	require.Len(t, waiting, 1, "one, not more")
	started := ledger(t, s.Run, training.EntryStart)
	assert.Equal(t, waiting[0], started[1].PID)
	assert.NotEqual(t, started[1].PID, started[2].PID)
	assert.Equal(t, parents(t, s.Run, "m0"), parents(t, s.Run, "m1"))
	until(t, "the end of one that has nothing to do", func() bool { return !running(waiting[0]) })
}

func TestANextWorkerThatIsKilledIsReplaced(t *testing.T) {
	s := python(t, pythonPlan(t, counting, awaited+`
os.kill(*first, signal.SIGKILL)
print("next", *siblings(first), flush=True)
`, ""))
	_, err := finish(t, s)
	require.NoError(t, err)
	waiting := numbers(t, s.Run, "m0", "next ")
	require.Len(t, waiting, 2)
	assert.Equal(t, waiting[1], ledger(t, s.Run, training.EntryStart)[1].PID)
	assert.Equal(t, []training.Cause{training.CauseDone, training.CauseDone}, causes(t, s.Run))
}

// However a forked worker ends, it is known as if it had been started alone.
func TestEndsOfForkedWorkers(t *testing.T) {
	tests := map[string]struct {
		trouble string
		want    training.Cause
		cold    bool // it is not forked again
	}{
		"killed from outside": {`os.kill(os.getpid(), signal.SIGKILL)`, training.CauseKilled, false},
		"a crash":             {`os.abort()`, training.CauseCrash, true},
		"a status":            {`os._exit(3)`, training.CauseCrash, true},
		"a status of exit":    {`sys.exit(7)`, training.CauseCrash, true},
		"a text of exit":      {`sys.exit("goodbye")`, training.CauseCrash, true},
		"a hang":              {`time.sleep(1000)`, training.CauseHang, true},
		"no fork borne":       {`if os.getppid() != ` + strconv.Itoa(os.Getpid()) + `: raise RuntimeError("Cannot re-initialize CUDA in forked subprocess")`, training.CauseError, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := pythonPlan(t, counting, test.trouble, "")
			if test.want == training.CauseHang {
				p.Settings.HangAfter = 8 // longer than a Python takes to start on a busy machine
			}
			s := python(t, p)
			status, err := finish(t, s)
			require.NoError(t, err)
			assert.Equal(t, []training.Cause{test.want, training.CauseDone, training.CauseDone}, causes(t, s.Run))
			assert.EqualValues(t, 6, model(t, status, "m0").Metrics["seen"], "no step is lost or done twice")
			from := parents(t, s.Run, "m0")
			require.Len(t, from, 2)
			if test.cold {
				assert.Equal(t, os.Getpid(), from[1], "it gets a Python of its own")
			} else {
				assert.Equal(t, from[0], from[1])
			}
			assert.Equal(t, from[:1], parents(t, s.Run, "m1"), "the others are forked as before")
			end := ledger(t, s.Run, training.EntryEnd)[0]
			switch name {
			case "killed from outside":
				assert.Equal(t, "killed", end.Signal)
			case "a crash":
				assert.Equal(t, "aborted", end.Signal)
			case "a status of exit":
				assert.Equal(t, 7, end.ExitCode)
			case "a text of exit":
				assert.Contains(t, lines(t, s.Run.ModelPath("m0", "log.txt")), "goodbye")
			}
		})
	}
}

func TestAnErrorOfAForkedProgramIsItsOwn(t *testing.T) {
	s := python(t, pythonPlan(t, counting, `raise ValueError("no such data")`))
	status, err := finish(t, s)
	require.ErrorIs(t, err, training.ErrSomeFailed)
	m := model(t, status, "m0")
	assert.Equal(t, training.CauseError, m.Cause)
	assert.Equal(t, 1, m.Attempts)
	assert.Contains(t, m.Error, "ValueError: no such data")
	assert.NotContains(t, m.Error, "_server.py")
}

// Whoever kills the server kills the worker. The run goes on with another
// server, and in the end without one.
func TestTheRunOutlivesItsServers(t *testing.T) {
	kill := `os.kill(os.getppid(), signal.SIGKILL); time.sleep(1000)`
	s := python(t, pythonPlan(t, counting, kill, kill, kill, ""))
	_, err := finish(t, s)
	require.NoError(t, err)
	killed, done := training.CauseKilled, training.CauseDone
	assert.Equal(t, []training.Cause{killed, done, killed, done, killed, done, done}, causes(t, s.Run))
	from := parents(t, s.Run, "m2")
	assert.Equal(t, os.Getpid(), from[1], "there were servers enough")
	assert.Equal(t, from[1:], parents(t, s.Run, "m3"))
	for _, name := range []string{"m0", "m1", "m2"} {
		for _, e := range ledger(t, s.Run, training.EntryStart) {
			assert.False(t, running(e.PID), "%s: %d", name, e.PID)
		}
	}
}

func TestAPauseReachesAForkedWorker(t *testing.T) {
	s := python(t, pythonPlan(t, counting, `open("there", "w").close()
while not job._asked_to_pause: time.sleep(0.01)`))
	p := s.Run.Plan()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	worked := make(chan error, 1)
	go func() { worked <- s.Work(ctx) }()
	until(t, "the middle", func() bool {
		_, err := os.Stat(filepath.Join(p.Dir, "there"))
		return err == nil
	})
	cancel()
	require.ErrorIs(t, <-worked, training.ErrPaused)
	m := model(t, status(t, s.Run), "m0")
	assert.Equal(t, training.ModelPaused, m.State)
	assert.EqualValues(t, 4, m.Checkpoint.Step, "the pause saved")
	end := ledger(t, s.Run, training.EntryEnd)[0]
	assert.Equal(t, 75, end.ExitCode)
	assert.Equal(t, training.CausePaused, end.Cause)
	assert.NotEqual(t, []int{os.Getpid()}, parents(t, s.Run, "m0"))
}

// Nothing is left of a run whose supervisor was killed.
func TestTheServerAndItsWorkersDieWithTheSupervisor(t *testing.T) {
	p := pythonPlan(t, counting, `time.sleep(1000)`)
	r := createPlan(t, t.TempDir(), p)
	module, err := filepath.Abs("worker")
	require.NoError(t, err)
	c := trainingtest.Supervisor(r)
	cmd := exec.CommandContext(t.Context(), c.Path)
	cmd.Env = append(c.Env, "PYTHONPATH="+module)
	require.NoError(t, cmd.Start())
	until(t, "a worker in the middle of its work", func() bool {
		_, err := os.Stat(r.ModelPath("m0", "work", "once"))
		return err == nil && len(ledger(t, r, training.EntryStart)) == 1
	})
	worker := ledger(t, r, training.EntryStart)[0].PID
	server := parents(t, r, "m0")[0]
	require.NotEqual(t, cmd.Process.Pid, server)
	require.True(t, running(worker))
	require.True(t, running(server))
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	until(t, "the end of the server", func() bool { return !running(server) })
	until(t, "the end of the worker", func() bool { return !running(worker) })
}

// What cannot be forked safely is not: the models are trained all the same.
func TestWithoutAServerWorkersAreStartedAlone(t *testing.T) {
	tests := map[string]struct{ library, program, beside string }{
		"an import that starts a thread":          {library: "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"},
		"an import that ends the Python":          {library: "import os\nif os.path.basename(os.sys.argv[0]) == '_server.py': os._exit(5)\n"},
		"an import that kills it":                 {library: "import os\nif os.path.basename(os.sys.argv[0]) == '_server.py': os.kill(os.getpid(), 9)\n"},
		"a program beside that hides a library's": {beside: "selectors.py"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := pythonPlan(t, "import library\n"+counting, "", "")
			if test.beside != "" {
				require.NoError(t, os.WriteFile(filepath.Join(p.Dir, test.beside), nil, 0o644))
			}
			site := filepath.Join(t.TempDir(), "site-packages")
			require.NoError(t, os.Mkdir(site, 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(site, "library.py"), []byte(test.library), 0o644))
			s := python(t, p)
			s.Env = append(s.Env, "PYTHONPATH="+site)
			_, err := finish(t, s)
			require.NoError(t, err)
			assert.Equal(t, []training.Cause{training.CauseDone, training.CauseDone}, causes(t, s.Run))
			assert.Equal(t, []int{os.Getpid()}, parents(t, s.Run, "m0"))
			assert.Equal(t, []int{os.Getpid()}, parents(t, s.Run, "m1"))
		})
	}
}

// looking writes down what a program finds around it.
const looking = `
import json, os, signal, sys, threading
found = {
    "argv": sys.argv, "path": sys.path, "cwd": os.getcwd(), "name": __name__, "file": __file__,
    "env": {k: v for k, v in sorted(os.environ.items()) if k not in ("OUTLAST_JOB", "OUTLAST_STAGING")},
    "signals": {int(s): str(getattr(signal.getsignal(s), "__name__", signal.getsignal(s))) for s in signal.valid_signals()},
    "mask": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))),
    "leads": os.getpgid(0) == os.getpid(), "session": os.getsid(0), "umask": os.umask(0o22), "threads": threading.active_count(),
    "files": len(os.listdir("/proc/self/fd")), "out": os.path.basename(os.readlink("/proc/self/fd/1")), "same": os.path.sameopenfile(1, 2),
    "in": os.readlink("/proc/self/fd/0"), "tty": sys.stdout.isatty(), "flags": str(sys.flags), "encoding": sys.stdout.encoding,
    "main": sys.modules["__main__"].__dict__ is globals(), "nice": os.nice(0), "children": os.path.exists("/proc/self/task"),
}
print("found", json.dumps(found))
`

// A program cannot tell, but for its parent, whether it was forked.
func TestAForkedProgramFindsWhatAnotherFinds(t *testing.T) {
	found := func(crash string) map[string]any {
		p := pythonPlan(t, looking+counting, crash)
		p.Dir = "/"
		s := python(t, p)
		_, err := finish(t, s)
		require.NoError(t, err)
		all := lines(t, s.Run.ModelPath("m0", "log.txt"))
		var last map[string]any
		for _, line := range all {
			if text, ok := strings.CutPrefix(line, "found "); ok {
				last = nil
				text = strings.ReplaceAll(text, s.Run.Dir(), "RUN")
				require.NoError(t, json.Unmarshal([]byte(text), &last))
			}
		}
		from := parents(t, s.Run, "m0")
		require.Equal(t, crash != "", from[len(from)-1] == os.Getpid())
		return last
	}
	require.Equal(t, found("os._exit(3)"), found(""))
}

// What a program leaves open and waiting is done when it ends.
func TestAForkedProgramEndsProperly(t *testing.T) {
	p := pythonPlan(t, `
import atexit, os, threading, time
job.finish()
kept = open(os.path.join(job.dir, "kept"), "w")
kept.write("text")

class Last:
    def __init__(self): self.file = open(os.path.join(job.dir, "last"), "wb")
    def __del__(self): self.file.write(b"bytes")

last = Last()
atexit.register(lambda: open(os.path.join(job.dir, "exit"), "w").write("done"))

def late():
    time.sleep(0.3)
    open(os.path.join(job.dir, "late"), "w").write("thread")

threading.Thread(target=late).start()
print("no newline", end="")
`, "")
	s := python(t, p)
	_, err := finish(t, s)
	require.NoError(t, err)
	for name, want := range map[string]string{"kept": "text", "last": "bytes", "exit": "done", "late": "thread"} {
		data, err := os.ReadFile(s.Run.ModelPath("m0", "work", name))
		require.NoError(t, err)
		assert.Equal(t, want, string(data), name)
	}
	log, err := s.Run.Log("m0", 0)
	require.NoError(t, err)
	assert.Contains(t, log, "no newline")
}
