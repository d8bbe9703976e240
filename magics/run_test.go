//go:build unix

package magics_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/magics"
	"outlast/training"
	"outlast/training/trainingtest"
)

// endless is the script of a model that trains until it is stopped.
func endless() []string {
	return []string{"hello", "restore", "slow 5ms", "train 20000 every 10", "finish"}
}

// twoDone trains two models to their end.
func twoDone(t *testing.T, d *magics.Deps) {
	t.Helper()
	list := scripts(t, d, map[string][]string{
		"long": {"hello", "restore", "print trained for long", "train 40 every 10", "finish accuracy"}, "short": {"hello", "restore", "train 10 every 10", "finish accuracy"},
	}, "long", "short")
	shown, err := try(t, d, "train digits "+list+" "+worker(t))
	require.NoError(t, err, shown)
}

func findRun(t *testing.T, d *magics.Deps) *training.Run {
	t.Helper()
	r, err := training.Find(d.Dir, "")
	require.NoError(t, err)
	return r
}

// leaveNothing ends what a test started, whatever became of it.
func leaveNothing(t *testing.T, d *magics.Deps) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if r, err := training.Find(d.Dir, ""); err == nil {
			assert.NoError(t, r.Kill(ctx))
		}
	})
}

// saved is a live view of a running model that has a checkpoint.
const saved = `running .* step \d+, local`

// once calls then when the live view first matches.
func once(s *screen, pattern string, then func()) {
	var done atomic.Bool
	r := regexp.MustCompile(pattern)
	s.watch = func(v magics.View) {
		if r.MatchString(v.Text) && done.CompareAndSwap(false, true) {
			then()
		}
	}
}

func TestTrainShowsOneViewAndEndsWhenAllIsDone(t *testing.T) {
	d := deps(t)
	list := scripts(t, d, map[string][]string{"a": trainingtest.Good("30", "10"), "b": trainingtest.Good("20", "10")}, "a", "b")
	var c typed
	require.NoError(t, c.run(t.Context(), d, "train digits "+list+" "+worker(t)))
	require.Len(t, c.screen.shown, 1, "one table, updated in place")
	v := c.screen.shown[0]
	assert.True(t, v.Final)
	assert.Contains(t, v.Text, "digits: done, 2 of 2 models done")
	assert.Contains(t, v.Text, "30/30")
	assert.Contains(t, v.Text, "No store")

	again, err := try(t, d, "train digits "+list+" "+worker(t))
	require.NoError(t, err)
	assert.Contains(t, again, "Already done, skipped: a, b.")
	assert.Contains(t, again, "Nothing to do: all of digits is done, 2 models.")
	assert.Contains(t, must(t, d, "resume"), "Nothing to do")
}

func TestTrainSaysWhichModelsFailedAndShowsTheirLastWords(t *testing.T) {
	d := deps(t)
	list := scripts(t, d, map[string][]string{
		"good": trainingtest.Good("10", "5"),
		"bad":  {"hello", "restore", "train 5 every 5", "print about to fail", "fail user ValueError the shapes do not fit"},
	}, "bad", "good")
	var c typed
	err := c.run(t.Context(), d, "train digits "+list+" "+worker(t))
	require.ErrorIs(t, err, magics.ErrModelsFailed)
	var worked *magics.WorkError
	require.ErrorAs(t, err, &worked)
	assert.Contains(t, err.Error(), "1 of 2 models failed")
	assert.Contains(t, magics.CureOf(err), "outlast logs digits bad")
	text := c.screen.text()
	assert.Contains(t, text, "digits: failed, 1 of 2 models done, 1 failed")
	assert.Contains(t, text, "✗ bad failed: ValueError: the shapes do not fit")
	assert.Contains(t, text, "│ about to fail", "the last lines of its log")
}

func TestAnInterruptPausesAndResumeGoesOn(t *testing.T) {
	d := deps(t)
	leaveNothing(t, d)
	list := scripts(t, d, map[string][]string{"a": {"hello", "restore", "slow 5ms", "train 400 every 10", "finish"}}, "a")
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	c := typed{interrupt: make(chan struct{}, 2)}
	var told atomic.Bool
	once(&c.screen, saved, func() { c.interrupt <- struct{}{}; interrupt() })
	press := c.screen.watch
	c.screen.watch = func(v magics.View) {
		press(v)
		if strings.Contains(v.Text, "digits: pausing") && strings.Contains(v.Text, "Interrupt again within 3 s") {
			told.Store(true)
		}
	}
	err := c.run(ctx, d, "train digits "+list+" "+worker(t))
	require.ErrorIs(t, err, magics.ErrPaused)
	assert.Contains(t, magics.CureOf(err), "outlast resume digits")
	assert.True(t, told.Load(), "the view says at once that it pauses")
	assert.Contains(t, c.screen.text(), "digits: paused")
	status, err := findRun(t, d).Status()
	require.NoError(t, err)
	at := status.Models[0].Step
	assert.Equal(t, at, status.Models[0].Checkpoint.Step, "it saved where it stood")

	text := must(t, d, "resume digits")
	assert.Contains(t, text, "digits: done, 1 of 1 models done")
	r := findRun(t, d)
	assert.Equal(t, trainingtest.StateAfter(400), trainingtest.State(r.ModelPath("a", "final")), "to the same result")
}

// An interrupt may come at any moment of the start: what was launched is paused,
// and what was not never is.
func TestAnInterruptWhileTheSupervisorStartsPausesToo(t *testing.T) {
	for _, flags := range []string{"", "--detach "} {
		d := deps(t)
		leaveNothing(t, d)
		launched, ready := filepath.Join(d.WorkDir, "launched"), filepath.Join(d.WorkDir, "ready")
		supervisor := d.Supervisor
		d.Supervisor = func(dir, run string) training.Command {
			slow := supervisor(dir, run)
			wait := `touch "$1"; until [ -e "$2" ]; do sleep 0.01; done; exec "$0"`
			slow.Path, slow.Args = "/bin/sh", []string{"-c", wait, slow.Path, launched, ready}
			return slow
		}
		line := "train digits " + flags + scripts(t, d, map[string][]string{"a": endless()}, "a") + " " + worker(t)
		ctx, interrupt := context.WithCancel(t.Context())
		defer interrupt()
		c := typed{interrupt: make(chan struct{}, 2)}
		ended := make(chan error, 1)
		go func() { ended <- c.run(ctx, d, line) }()
		require.Eventually(t, func() bool { _, err := os.Stat(launched); return err == nil }, patience, 10*time.Millisecond)
		c.interrupt <- struct{}{}
		interrupt()
		require.NoError(t, os.WriteFile(ready, nil, 0o644))
		err := <-ended
		require.ErrorIs(t, err, magics.ErrPaused, "digits %s", flags)
		assert.Contains(t, magics.CureOf(err), "outlast resume digits")
		status, err := findRun(t, d).Status()
		require.NoError(t, err)
		assert.Equal(t, training.RunPaused, status.State)
		assert.Zero(t, status.SupervisorPID, "nobody trains on")

		require.NoError(t, os.Remove(launched))
		err = c.run(ctx, d, "resume digits")
		require.ErrorIs(t, err, magics.ErrPaused, "it was interrupted before it began")
		assert.NoFileExists(t, launched)
	}
}

func TestASecondInterruptStopsAtOnce(t *testing.T) {
	d := deps(t)
	leaveNothing(t, d)
	list := scripts(t, d, map[string][]string{"a": {"hello", "restore", "deaf", "touch deaf", "slow 5ms", "train 20000 every 10"}}, "a")
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	c := typed{interrupt: make(chan struct{}, 2)}
	once(&c.screen, saved, func() {
		c.interrupt <- struct{}{}
		interrupt()
		time.AfterFunc(300*time.Millisecond, func() { c.interrupt <- struct{}{} }) // a person's second press
	})
	began := time.Now()
	err := c.run(ctx, d, "train digits "+list+" "+worker(t))
	require.ErrorIs(t, err, magics.ErrPaused)
	assert.Less(t, time.Since(began), 20*time.Second, "a worker that does not listen would have half a minute")
	status, err := findRun(t, d).Status()
	require.NoError(t, err)
	assert.Zero(t, status.SupervisorPID)
	assert.Contains(t, c.screen.text(), "the supervisor was killed with it")
}

func TestADetachedRunIsFoundStoppedAndAttached(t *testing.T) {
	d := deps(t)
	leaveNothing(t, d)
	list := scripts(t, d, map[string][]string{"a": {"hello", "restore", "await go", "train 50 every 10", "finish"}}, "a")
	text := must(t, d, "train digits --detach "+list+" "+worker(t))
	assert.Contains(t, text, "outlast attach digits")
	assert.Contains(t, must(t, d, "status"), "digits: running")
	assert.Contains(t, must(t, d, "doctor"), "working: [digits]")

	var c typed
	once(&c.screen, "running", func() {
		assert.NoError(t, os.WriteFile(filepath.Join(d.Dir, "digits", "go"), nil, 0o644))
	})
	require.NoError(t, c.run(t.Context(), d, "attach digits"))
	assert.Contains(t, c.screen.text(), "digits: done")
	assert.Contains(t, must(t, d, "attach digits"), "digits: done", "what is over is shown as it is")
}

func TestStopPausesAndShowsHowToGoOn(t *testing.T) {
	d := deps(t)
	leaveNothing(t, d)
	list := scripts(t, d, map[string][]string{"a": endless()}, "a")
	must(t, d, "train digits --detach "+list+" "+worker(t))
	text := must(t, d, "stop")
	assert.Contains(t, text, "digits: paused")
	assert.Contains(t, text, "resume digits")
	assert.Contains(t, must(t, d, "stop"), "digits: paused", "twice is no error")
}

func TestAChangedModelIsTrainedAnewAndItIsSaid(t *testing.T) {
	d := deps(t)
	good := trainingtest.Good("10", "5")
	must(t, d, "train digits "+scripts(t, d, map[string][]string{"a": good, "b": good, "c": good}, "a", "b", "c")+" "+worker(t))
	text := must(t, d, "train digits "+scripts(t, d, map[string][]string{"a": good, "b": trainingtest.Good("20", "5")}, "a", "b")+" "+worker(t))
	assert.Contains(t, text, "Already done, skipped: a.")
	assert.Contains(t, text, "trained anew (the old results are kept in superseded/): b.")
	assert.Contains(t, text, "No longer in the plan, left as they are: c.")
	assert.Contains(t, text, "20/20")
	text = must(t, d, "train digits --fresh "+scripts(t, d, map[string][]string{"a": good}, "a")+" "+worker(t))
	assert.Contains(t, text, "Trained anew, as --fresh asks (the old results are kept in superseded/): a.")
	assert.NotContains(t, text, "Changed", "nothing was")
}

func TestStatusAsJSONHasTheFieldsThatProgramsRelyOn(t *testing.T) {
	d := deps(t)
	twoDone(t, d)
	var object map[string]any
	require.NoError(t, json.Unmarshal([]byte(must(t, d, "status digits --json")), &object))
	assert.ElementsMatch(t, []string{"run", "state", "store", "supervisor_pid", "started", "eta_seconds", "models"}, keys(object))
	model := object["models"].([]any)[0].(map[string]any)
	assert.ElementsMatch(t, []string{
		"name", "state", "step", "total_steps", "attempts", "batch_size", "grad_accum", "worker_pid", "checkpoint", "metrics", "cause", "error",
	}, keys(model))
	assert.ElementsMatch(t, []string{"step", "durability", "path"}, keys(model["checkpoint"].(map[string]any)))
	assert.Equal(t, "done", model["state"])
	assert.EqualValues(t, 40, model["total_steps"])
}

func keys(m map[string]any) []string {
	var all []string
	for k := range m {
		all = append(all, k)
	}
	return all
}

func TestAssignedMagicsGiveWhatJSONPrints(t *testing.T) {
	d := deps(t)
	twoDone(t, d)
	for _, line := range []string{"status digits", "results digits", "doctor", "gpu_config"} {
		c := typed{notebook: &notebook{}}
		require.NoError(t, c.run(t.Context(), d, line))
		var printed bytes.Buffer
		printed.WriteString(must(t, d, line+" --json"))
		if line == "doctor" { // it tells of another Python in a notebook
			assert.Contains(t, string(c.result), `"checks"`)
			continue
		}
		assert.JSONEq(t, printed.String(), string(c.result), line)
		assert.NotEmpty(t, c.screen.shown, "%s shows too", line)
	}
}

func TestResultsRankTheModelsAndMarkTheBest(t *testing.T) {
	d := deps(t)
	twoDone(t, d) // a worker's "accuracy" is its last loss: 1/40 and 1/10
	text := must(t, d, "results")
	short, long := strings.Index(text, "short"), strings.Index(text, "long")
	assert.Less(t, short, long, "the better one first:\n%s", text)
	assert.Regexp(t, `✓  short  ★ best`, text)
	assert.Contains(t, text, "★ Best by accuracy: short (0.1). Its files:")
	assert.Contains(t, text, filepath.Join(d.Dir, "digits", "models", "short", "final"))
}

func TestResultsInEveryForm(t *testing.T) {
	d := deps(t)
	twoDone(t, d)
	final := filepath.Join(d.Dir, "digits", "models", "long", "final")

	var object struct {
		Models []struct {
			Name, State, Final string
			Metrics            map[string]any
			Seconds            *float64
		}
	}
	require.NoError(t, json.Unmarshal([]byte(must(t, d, "results --json")), &object))
	require.Len(t, object.Models, 2)
	assert.Equal(t, final, object.Models[0].Final)
	assert.NotNil(t, object.Models[0].Seconds)
	assert.EqualValues(t, 40, object.Models[0].Metrics["steps"])

	records, err := csv.NewReader(strings.NewReader(must(t, d, "results --csv"))).ReadAll()
	require.NoError(t, err)
	assert.Equal(t, []string{"model", "state", "accuracy", "steps", "seconds", "final"}, records[0])
	assert.Equal(t, []string{"long", "done", "0.025", "40"}, records[1][:4])

	assert.Regexp(t, `^Plots written to curves.svg \(loss of 2 models over the steps of training, [\d.]+ kB\)\n$`, must(t, d, "results --plot curves.svg"), "and the table is not shown again")
	svg, err := os.ReadFile(filepath.Join(d.WorkDir, "curves.svg"))
	require.NoError(t, err)
	assert.Contains(t, string(svg), "<svg")
	for _, word := range []string{"long", "short", "loss"} {
		assert.Regexp(t, `>`+word+`( \(logarithmic\))?</text>`, string(svg))
	}

	assert.Contains(t, must(t, d, "results --plot curves.png"), "Plots written to curves.png")
	f, err := os.Open(filepath.Join(d.WorkDir, "curves.png"))
	require.NoError(t, err)
	defer f.Close() //nolint:errcheck // it was only read
	_, err = png.Decode(f)
	require.NoError(t, err)

	assert.Regexp(t, `^Results written to all.zip \(of 2 models, [\d.]+ kB\)\n$`, must(t, d, "results --zip all.zip"), "and the table is not shown again")
	z, err := zip.OpenReader(filepath.Join(d.WorkDir, "all.zip"))
	require.NoError(t, err)
	defer z.Close() //nolint:errcheck // it was only read
	held := map[string]string{}
	for _, f := range z.File {
		r, err := f.Open()
		require.NoError(t, err)
		data, err := io.ReadAll(r)
		require.NoError(t, err)
		held[f.Name] = string(data)
	}
	for _, name := range []string{
		"results.csv", "results.json", "plots.svg", "run.json", "ledger.jsonl", "models/long/log.txt", "models/long/metrics.jsonl", "models/short/final/state.txt",
	} {
		assert.NotEmpty(t, held["digits/"+name], name)
	}
	assert.Equal(t, trainingtest.StateAfter(40), held["digits/models/long/final/state.txt"])
}

func TestANotebookGetsThePlotsToo(t *testing.T) {
	d := deps(t)
	twoDone(t, d)
	c := typed{notebook: &notebook{}}
	require.NoError(t, c.run(t.Context(), d, "results"))
	require.Len(t, c.screen.shown, 2)
	assert.Contains(t, c.screen.shown[0].HTML, "<table")
	picture := c.screen.shown[1].Picture
	require.NotNil(t, picture)
	drawn, err := png.Decode(bytes.NewReader(picture.PNG))
	require.NoError(t, err)
	assert.Equal(t, 2*picture.Width, drawn.Bounds().Dx())
	assert.Equal(t, "Plots: loss of 2 models over the steps of training", picture.Words)
	assert.Contains(t, c.screen.shown[1].Text, picture.Words)
}

func TestANotebookLinksToWhatWasWrittenBesideIt(t *testing.T) {
	for name, test := range map[string]struct {
		host magics.Host
		file string
		want string
	}{
		"beside the notebook":              {magics.HostJupyter, "all results.zip", `<a href="all%20results.zip" download>all results.zip</a>`},
		"elsewhere":                        {magics.HostJupyter, "../all.zip", ""},
		"where pages cannot link to files": {magics.HostColab, "all.zip", ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := deps(t)
			d.WorkDir = filepath.Join(d.WorkDir, "below")
			require.NoError(t, os.Mkdir(d.WorkDir, 0o755))
			d.Host = test.host
			twoDone(t, d)
			c := typed{notebook: &notebook{folder: d.WorkDir}}
			require.NoError(t, c.run(t.Context(), d, "results --zip '"+test.file+"'"))
			if test.want == "" {
				assert.Empty(t, c.screen.shown)
				assert.Contains(t, c.out.String(), "Results written to "+test.file)
				return
			}
			require.Len(t, c.screen.shown, 1)
			assert.Contains(t, c.screen.shown[0].HTML, test.want)
			assert.Contains(t, c.screen.shown[0].Text, "Results written to "+test.file)
		})
	}
}

func TestWithoutCurvesThereIsNothingToPlot(t *testing.T) {
	d := deps(t)
	must(t, d, "train digits "+scripts(t, d, map[string][]string{"a": {"hello", "finish"}}, "a")+" "+worker(t))
	_, err := try(t, d, "results --plot x.svg")
	assert.ErrorContains(t, err, "no model has logged a metric")
	assert.NoFileExists(t, filepath.Join(d.WorkDir, "x.svg"))
	_, err = try(t, d, "results --zip nowhere/x.zip")
	assert.ErrorContains(t, err, "write the results")
}

func TestLogsShowTheEndOfEachModel(t *testing.T) {
	d := deps(t)
	twoDone(t, d)
	all := must(t, d, "logs digits")
	assert.Contains(t, all, "──── long ────\n")
	assert.Contains(t, all, "──── short ────\n")
	assert.Contains(t, all, "trained for long\n")
	one := must(t, d, "logs digits long -n 1")
	assert.Equal(t, "trained for long\n", one)
	_, err := try(t, d, "logs digits nobody")
	assert.ErrorContains(t, err, "no such model")
	assert.Equal(t, "it has: long, short", magics.CureOf(err))
}

func TestFollowedLogsGoOnUntilTheRunEnds(t *testing.T) {
	d := deps(t)
	leaveNothing(t, d)
	list := scripts(t, d, map[string][]string{
		"a": {"hello", "restore", "print one", "touch printed", "await go", "print two", "train 10 every 5", "print three", "finish"},
	}, "a")
	must(t, d, "train digits --detach "+list+" "+worker(t))
	require.Eventually(t, func() bool {
		_, err := os.Stat(filepath.Join(d.Dir, "digits", "printed"))
		return err == nil
	}, patience, 10*time.Millisecond)
	var c typed
	ended := make(chan error, 1)
	var seen seenWriter
	go func() { ended <- c.runTo(t.Context(), &seen, d, "logs digits -f") }()
	require.Eventually(t, func() bool { return strings.Contains(seen.text(), "one\n") }, patience, 10*time.Millisecond)
	assert.NotContains(t, seen.text(), "two")
	require.NoError(t, os.WriteFile(filepath.Join(d.Dir, "digits", "go"), nil, 0o644))
	require.NoError(t, <-ended)
	assert.Regexp(t, `(?s)one\ntwo\nthree\n$`, seen.text(), "all of it, and once")
}

func TestAnInterruptOnlyEndsTheLooking(t *testing.T) {
	d := deps(t)
	leaveNothing(t, d)
	list := scripts(t, d, map[string][]string{"a": endless()}, "a")
	must(t, d, "train digits --detach "+list+" "+worker(t))
	ctx, interrupt := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer interrupt()
	var c typed
	require.NoError(t, c.run(ctx, d, "logs digits -f"))
	assert.Contains(t, must(t, d, "status"), "digits: running")
}

func TestARunThatIsNotThereIsNamed(t *testing.T) {
	d := deps(t)
	for _, line := range []string{"status", "status nosuch", "results nosuch", "logs nosuch", "attach nosuch", "stop nosuch", "resume nosuch"} {
		_, err := try(t, d, line)
		require.Error(t, err, line)
		assert.NotEmpty(t, magics.CureOf(err), line)
	}
}

func TestSharedCellsAreRememberedByTheirCell(t *testing.T) {
	s := &magics.Session{}
	s.Share("1", "import a")
	s.Share("2", "import b")
	assert.Equal(t, 2, s.Share("1", "import c"), "an edited cell replaces what it said")
	s.Share("", "import b")
	assert.Equal(t, []string{"import c", "import b"}, s.Shared(), "and keeps its place")

	d := deps(t)
	var c typed
	require.NoError(t, c.run(t.Context(), d, "shared", "import a"))
	assert.Empty(t, c.out.String())
	require.NoError(t, c.run(t.Context(), d, "shared", "import b"))
	assert.Contains(t, c.out.String(), "as the last of 2 cells. Here an edited cell does not replace what it said before: after a mistake, begin anew with %%shared --reset.")
	c.out.Reset()
	c.cellID = "1"
	require.NoError(t, c.run(t.Context(), d, "shared", "import c"))
	assert.Equal(t, "Shared with every worker, as the last of 3 cells.\n", c.out.String())
	require.NoError(t, c.run(t.Context(), d, "shared --reset", "import b"))
	assert.Equal(t, []string{"import b"}, d.Session.Shared())
}
