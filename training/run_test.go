//go:build unix

package training_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/training"
	"outlast/training/trainingtest"
)

// paused returns a run of three models: done, paused after 4 of 8 steps, and not
// begun.
func paused(t *testing.T) *training.Run {
	t.Helper()
	r := create(t,
		trainingtest.Model("a", trainingtest.Good("3", "1")...),
		trainingtest.Model("b", "hello", "restore", "@1 train 4 every 2", "@1 checkpoint asked", "@1 fail device_lost X y", "@2 fail device_lost X y", "train 8 every 2", "finish"),
		trainingtest.Model("c", trainingtest.Good("3", "1")...))
	_, err := work(t, r)
	require.ErrorIs(t, err, training.ErrPaused)
	return r
}

// The state is written for those who look; whatever becomes of it, the run is
// known from its plan, its ledger and its results.
func TestAStateThatIsLostOrGarbledIsDerived(t *testing.T) {
	r := paused(t)
	path := filepath.Join(r.Dir(), "state.json")
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	for name, content := range map[string][]byte{
		"gone": nil, "empty": {}, "torn": whole[:len(whole)/2], "no object": []byte("[]"), "null": []byte("null"), "of nobody": []byte("{}"),
		"of another run": []byte(`{"run":"letters","models":[{},{},{}]}`), "of another plan": []byte(`{"run":"digits","models":[{"name":"a"}]}`),
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.RemoveAll(path))
			if content != nil {
				require.NoError(t, os.WriteFile(path, content, 0o644))
			}
			s, err := r.Status()
			require.NoError(t, err)
			assert.Equal(t, training.RunPaused, s.State)
			a, b, c := model(t, s, "a"), model(t, s, "b"), model(t, s, "c")
			assert.Equal(t, training.ModelDone, a.State)
			assert.Equal(t, int64(3), a.Step)
			assert.Equal(t, r.ModelPath("a", "final"), a.Checkpoint.Path)
			assert.InDelta(t, 3, a.Metrics["steps"], 0)
			assert.Equal(t, training.ModelPaused, b.State)
			assert.Equal(t, int64(4), b.Step)
			assert.Equal(t, 2, b.Attempts)
			assert.Equal(t, training.CauseDeviceLost, b.Cause)
			assert.Contains(t, b.Error, "the GPU is gone")
			assert.Equal(t, training.ModelPending, c.State)
			assert.Equal(t, int64(1), s.Generation)
		})
	}
	require.NoError(t, os.RemoveAll(r.ModelPath("a", "final")))
	require.NoError(t, os.RemoveAll(path))
	s, err := r.Status()
	require.NoError(t, err)
	require.Equal(t, training.ModelPending, model(t, s, "a").State, "without its result it is not done")
}

func TestALedgerThatIsTornOrGarbledHidesNothingElse(t *testing.T) {
	r := paused(t)
	path := filepath.Join(r.Dir(), "ledger.jsonl")
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	damaged := append([]byte("no entry\n{\"type\":5}\n"), data...)
	damaged = append(damaged, []byte(`{"time":"2026-01-01T00:00:00Z","type":"st`)...)
	require.NoError(t, os.WriteFile(path, damaged, 0o644))
	s, err := r.Status()
	require.NoError(t, err)
	require.Equal(t, 2, model(t, s, "b").Attempts)
	_, err = work(t, r)
	require.NoError(t, err)
	requireExact(t, r, "b", 8)
	after := lines(t, path)
	require.JSONEq(t, `{"type":5}`, after[1], "what was there is left as it was")
	for _, line := range after[2:] {
		require.True(t, json.Valid([]byte(line)), "the torn line was cut: %s", line)
	}
}

// The metrics of steps that are done again are cut, also when a crash tore the
// last line.
func TestMetricsHoldEachStepOnceAfterATornLine(t *testing.T) {
	r := paused(t)
	path := r.ModelPath("b", "metrics.jsonl")
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString("{\"step\":4,\"time\":1,\"loss\":0.5}\n{\"loss\":1}\n{\"step\":5,\"ti")
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, err = work(t, r)
	require.NoError(t, err)
	requireExact(t, r, "b", 8)
	points, err := r.Metrics("b")
	require.NoError(t, err)
	assert.InDelta(t, 1.0/8, points[7].Values["loss"], 1e-9)
	assert.InDelta(t, float64(time.Now().Unix()), points[7].Time, 60)
	none, err := r.Metrics("nobody")
	require.NoError(t, err)
	require.Empty(t, none)
}

func TestResults(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "restore", "train 4 every 2", "finish loss"), trainingtest.Model("b", "hello", "fail user X y"))
	_, err := work(t, r)
	require.ErrorIs(t, err, training.ErrSomeFailed)
	results, err := r.Results()
	require.NoError(t, err)
	require.Equal(t, "digits", results.Run)
	a, b := results.Models[0], results.Models[1]
	assert.Equal(t, training.ModelDone, a.State)
	assert.Equal(t, map[string]any{"steps": 4.0, "loss": 0.25}, a.Metrics)
	assert.Equal(t, r.ModelPath("a", "final"), a.Final)
	assert.Positive(t, a.Seconds)
	assert.Equal(t, training.ModelFailed, b.State)
	assert.Empty(t, b.Final)
}

func TestRunsAreFound(t *testing.T) {
	dir := t.TempDir()
	_, err := training.Find(filepath.Join(dir, "nowhere"), "")
	var wrong *training.RunError
	require.ErrorAs(t, err, &wrong)
	require.NotEmpty(t, wrong.Cure())
	for _, name := range []string{"old", "new"} {
		createPlan(t, dir, trainingtest.Plan(name, trainingtest.Model("a", "exit 0")))
	}
	hour := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(filepath.Join(dir, "old", "run.json"), hour, hour))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "no-run"), 0o755))
	names, err := training.List(dir)
	require.NoError(t, err)
	require.Equal(t, []string{"new", "old"}, names)
	latest, err := training.Find(dir, "")
	require.NoError(t, err)
	require.Equal(t, "new", latest.Name())
	require.Equal(t, dir, latest.DataDir())
	_, err = training.Find(dir, "other")
	require.ErrorAs(t, err, &wrong)
	require.Contains(t, wrong.Cure(), "there are: new, old")
	_, err = training.Find(dir, "../"+filepath.Base(dir)+"/new")
	require.ErrorAs(t, err, &wrong, "a name is no path")
}

func TestRunFilesThatCannotBeUsed(t *testing.T) {
	for name, test := range map[string]struct{ content, problem string }{
		"garbled":           {"{", "its run.json is damaged"},
		"a later version's": {`{"format": 2}`, "it has format 2"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.MkdirAll(filepath.Join(dir, "r"), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "r", "run.json"), []byte(test.content), 0o644))
			_, err := training.Find(dir, "r")
			var wrong *training.RunError
			require.ErrorAs(t, err, &wrong)
			require.NotEmpty(t, wrong.Cure())
			_, _, err = training.Create(dir, trainingtest.Plan("r", trainingtest.Model("a", "exit 0")), false)
			require.ErrorAs(t, err, &wrong, "it is not written over")
		})
	}
}

func TestLogs(t *testing.T) {
	r := create(t, trainingtest.Model("a", "print one", "warn two", "print three"))
	text, err := r.Log("a", 0)
	require.NoError(t, err)
	require.Empty(t, text, "nothing was printed yet")
	_, err = work(t, r)
	require.NoError(t, err)
	text, err = r.Log("a", 2)
	require.NoError(t, err)
	require.Equal(t, "two\nthree\n", text)
	text, err = r.Log("a", 0)
	require.NoError(t, err)
	require.Regexp(t, `^── a, attempt 1, .*, from step 0\none\ntwo\nthree\n$`, text)
	_, err = r.Log("b", 0)
	require.ErrorContains(t, err, "it has no model b")
}

// Two plans for one run at the same time: the one at work is not disturbed.
func TestARunAtWorkKeepsItsPlan(t *testing.T) {
	r := create(t, trainingtest.Model("a", waiting("gate")...))
	start(t, r)
	reached(t, r)
	same := *r.Plan()
	found, _, err := training.Create(r.DataDir(), &same, false)
	require.NoError(t, err)
	require.Equal(t, r.Dir(), found.Dir())
	_, _, err = training.Create(r.DataDir(), trainingtest.Plan("digits", trainingtest.Model("a", "exit 0")), false)
	var wrong *training.RunError
	require.ErrorAs(t, err, &wrong)
	require.Contains(t, wrong.Cure(), "stop digits")
	_, _, err = training.Create(r.DataDir(), &same, true)
	require.ErrorAs(t, err, &wrong)
	release(t, r)
	require.Equal(t, training.RunDone, follow(t, r).State)
}

// Who looks at a plan of ten thousand models does not wait.
func TestTenThousandModels(t *testing.T) {
	models := make([]training.Model, 10_000)
	for i := range models {
		models[i] = trainingtest.Model(fmt.Sprintf("m%05d", i), "exit 0")
	}
	r := create(t, models...)
	s, err := r.Status()
	require.NoError(t, err)
	require.Len(t, s.Models, 10_000)
	data, err := json.Marshal(s)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(r.Dir(), "state.json"), data, 0o644))
	began := time.Now()
	_, err = r.Status()
	require.NoError(t, err)
	require.Less(t, time.Since(began), 5*time.Second, "it takes 20 ms; the race detector and a busy machine take their share")
}

// A full disk, or a kill, can keep a supervisor from writing its last state. What
// the run has come to is known all the same.
func TestAStateThatWasNeverFinishedIsCompletedFromTheDisk(t *testing.T) {
	r := create(t, trainingtest.Model("a", trainingtest.Good("3", "1")...), trainingtest.Model("b", "fail user ValueError no"))
	_, err := work(t, r)
	require.ErrorIs(t, err, training.ErrSomeFailed)
	path := filepath.Join(r.Dir(), "state.json")
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	var last training.Status
	require.NoError(t, json.Unmarshal(data, &last))
	last.State = training.RunRunning
	for i := range last.Models {
		last.Models[i].State, last.Models[i].Step = training.ModelRunning, 1
	}
	data, err = json.Marshal(last)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, data, 0o644))

	s, err := r.Status()
	require.NoError(t, err)
	assert.Equal(t, training.RunFailed, s.State, "every model has ended")
	assert.Equal(t, training.ModelDone, model(t, s, "a").State)
	assert.Equal(t, int64(3), model(t, s, "a").Step)
	assert.Equal(t, training.ModelFailed, model(t, s, "b").State)
	assert.Equal(t, training.CauseError, model(t, s, "b").Cause)
}
