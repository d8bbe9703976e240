package magics

import (
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/training"
)

var update = flag.Bool("update", false, "rewrite the golden files") //nolint:gochecknoglobals // a flag is registered once

// golden compares got with a file below testdata, or writes it with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	got = strings.TrimRight(got, "\n") + "\n"
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "go test ./magics -update writes it")
	assert.Equal(t, string(want), got, path)
}

// aModel returns a model that is so far.
func aModel(name string, state training.ModelState, step, total int64) modelReport {
	m := modelReport{Planned: training.Fit{BatchSize: 64, GradAccum: 1}}
	m.Name, m.State, m.Step, m.TotalSteps = name, state, step, total
	m.BatchSize, m.GradAccum = 64, 1
	m.Metrics = map[string]any{}
	if step == 0 {
		return m
	}
	m.Attempts, m.Seconds = 1, float64(step)*0.012+0.9
	m.Metrics["loss"] = 2.3*math.Exp(-float64(step)/200) + 0.0123
	for i := range trendPoints {
		m.Trend = append(m.Trend, 2.3*math.Exp(-float64(step)*float64(i)/trendPoints/200))
	}
	m.Checkpoint = &training.CheckpointStatus{Step: step / 100 * 100, Durability: "local", Path: "/runs/digits/models/" + name + "/checkpoints"}
	if state == training.ModelRunning {
		left := float64(total-step) * 0.012
		m.ETASeconds = &left
	}
	return m
}

func aReport(state training.RunState, rows ...modelReport) report {
	r := report{Loss: "loss", Prompt: "%", Rows: rows}
	r.Run, r.State, r.Store = "digits", state, "drive:Outlast/digits"
	for _, m := range rows {
		r.Models = append(r.Models, m.ModelStatus)
	}
	return r
}

// reports are what a view of a run can look like.
func reports() map[string]report {
	eta := 83.0
	running := aReport(training.RunRunning,
		aModel("logistic", training.ModelDone, 920, 920), aModel("mlp-small", training.ModelDone, 920, 920),
		aModel("cnn", training.ModelRunning, 410, 920), aModel("gru", training.ModelPending, 0, 0), aModel("attention", training.ModelPending, 0, 0))
	running.ETASeconds, running.Live = &eta, true
	for i := range 2 {
		running.Rows[i].Checkpoint.Durability = "mirrored"
	}

	starting := aReport(training.RunRunning, aModel("logistic", training.ModelRunning, 0, 0), aModel("cnn", training.ModelPending, 0, 0))
	starting.Store = ""

	troubled := aReport(training.RunRunning,
		aModel("llama-small", training.ModelRunning, 350, 1000), aModel("llama-large", training.ModelRunning, 120, 1000), aModel("bert", training.ModelPending, 0, 0))
	troubled.Rows[0].Attempts, troubled.Rows[0].Cause = 3, training.CauseDeviceOOM
	troubled.Rows[0].BatchSize, troubled.Rows[0].GradAccum = 16, 4
	troubled.Rows[1].Attempts, troubled.Rows[1].Cause = 2, training.CauseKilled
	troubled.GPUs = []string{"GPU 0, Tesla T4: 12.4 GiB of 15.0 GiB in use"}
	troubled.Notes = []string{
		"llama-small: out of GPU memory with batch 64 × accumulation 1; it goes on with batch 16 × accumulation 4.",
		"llama-large: the checkpoint at step 110 is damaged (model.pt: its digest is another) and is not used; it was put aside as 110.damaged.",
	}
	troubled.ETASeconds, troubled.Live = &eta, true

	failed := aReport(training.RunFailed, aModel("cnn", training.ModelDone, 920, 920), aModel("transformer", training.ModelFailed, 120, 920))
	failed.Rows[1].Error = "Traceback (most recent call last):\n  File \"cell.py\", line 4, in <module>\nRuntimeError: mat1 and mat2 shapes cannot be multiplied (64x10 and 12x10)"
	failed.Rows[1].Cause = training.CauseError
	failed.Rows[1].Log = []string{
		"── transformer, attempt 1, 2026-11-25 01:17:38, from step 0", "epoch 3: 12.3 samples/s", "Traceback (most recent call last):",
		"  File \"cell.py\", line 4, in <module>", "RuntimeError: mat1 and mat2 shapes cannot be multiplied (64x10 and 12x10)",
	}
	paused := aReport(training.RunPaused, aModel("cnn", training.ModelDone, 920, 920), aModel("gru", training.ModelPaused, 410, 920), aModel("bert", training.ModelPending, 0, 0))
	paused.Store, paused.Prompt = "", "outlast "

	lost := aReport(training.RunPaused, aModel("cnn", training.ModelPaused, 410, 920))
	lost.Rows[0].Error = "the supervisor was killed with it; it goes on from its last checkpoint"

	done := aReport(training.RunDone, aModel("cnn", training.ModelDone, 920, 920), aModel("<b>bold</b>", training.ModelDone, 920, 920))

	many := aReport(training.RunRunning)
	for i := range 39 {
		state, step := training.ModelDone, int64(920)
		switch {
		case i == 20:
			state, step = training.ModelRunning, 300
		case i == 3:
			state, step = training.ModelFailed, 100
		case i > 20:
			state, step = training.ModelPending, 0
		}
		total := int64(920)
		if step == 0 {
			total = 0
		}
		m := aModel("model-"+string(rune('a'+i/26))+string(rune('a'+i%26)), state, step, total)
		if state == training.ModelFailed {
			m.Error = "ValueError: no"
		}
		many.Rows, many.Models = append(many.Rows, m), append(many.Models, m.ModelStatus)
	}
	many.ETASeconds = &eta
	return map[string]report{
		"running": running, "starting": starting, "troubled": troubled, "failed": failed,
		"paused": paused, "lost": lost, "done": done, "many": many,
	}
}

func TestStatusViewsLookAsTheyDid(t *testing.T) {
	for name, r := range reports() {
		t.Run(name, func(t *testing.T) {
			v := r.view()
			golden(t, "views/status-"+name+".txt", v.Text)
			golden(t, "views/status-"+name+".html", v.HTML)
			golden(t, "views/status-"+name+"-narrow.txt", v.Fit(60, 20))
			golden(t, "views/status-"+name+".log", strings.Join(v.Log(), "\n"))
		})
	}
}

func TestAViewFitsTheScreenItIsDrawnFor(t *testing.T) {
	for name, r := range reports() {
		for _, size := range [][2]int{{200, 50}, {120, 40}, {80, 24}, {60, 15}, {45, 12}} {
			text := r.view().Fit(size[0], size[1])
			lines := strings.Split(text, "\n")
			assert.LessOrEqual(t, len(lines), size[1], "%s on %v:\n%s", name, size, text)
			for _, line := range lines {
				if !strings.HasPrefix(line, preIndent) { // verbatim text is cut, not wrapped
					assert.LessOrEqual(t, len([]rune(line)), size[0], "%s on %v:\n%s", name, size, text)
				}
			}
			assert.Contains(t, text, "digits: "+string(r.State), name)
		}
	}
}

func TestARunWithoutAStoreSaysSoOnEveryView(t *testing.T) {
	for name, r := range reports() {
		r.Store = ""
		v := r.view()
		assert.Contains(t, v.Text, "No store", name)
		assert.Contains(t, v.HTML, "No store", name)
		assert.Contains(t, v.Fit(60, 24), "No store", name)
	}
}

func TestNoStateIsToldByColourAlone(t *testing.T) {
	signs := map[string]bool{}
	for _, s := range []training.ModelState{training.ModelPending, training.ModelRunning, training.ModelPaused, training.ModelDone, training.ModelFailed} {
		r := aReport(training.RunRunning, aModel("m", s, 1, 2))
		assert.Contains(t, r.view().Text, mark(s))
		assert.Contains(t, r.view().HTML, ">"+string(s)+"<")
		signs[mark(s)] = true
	}
	assert.Len(t, signs, 5, "each state has a sign of its own")
}

func TestOutcomeSaysHowToGoOn(t *testing.T) {
	for name, want := range map[string]error{"failed": ErrModelsFailed, "paused": ErrPaused, "done": nil, "running": nil} {
		err := outcome(reports()[name].Status, "%")
		if want == nil {
			assert.NoError(t, err, name)
		} else {
			assert.ErrorIs(t, err, want, name)
			assert.Contains(t, CureOf(err), "digits", name)
		}
	}
}
