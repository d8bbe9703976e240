//go:build unix

package magics_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/magics"
	"outlast/training"
	"outlast/training/trainingtest"
)

// aSweep makes a run of two models that are done, as if they had logged these losses.
func aSweep(t *testing.T, d *magics.Deps, losses map[string][]float64) *training.Run {
	t.Helper()
	run, _, err := training.Create(d.Dir, trainingtest.Plan("sweep", trainingtest.Model("low"), trainingtest.Model("high")), false)
	require.NoError(t, err)
	status := training.Status{Run: "sweep", State: training.RunDone}
	for _, name := range []string{"low", "high"} {
		var b strings.Builder
		for i, v := range losses[name] {
			fmt.Fprintf(&b, `{"step":%d,"time":1,"loss":%g}`+"\n", i+1, v)
		}
		require.NoError(t, os.MkdirAll(run.ModelPath(name), 0o755))
		require.NoError(t, os.WriteFile(run.ModelPath(name, "metrics.jsonl"), []byte(b.String()), 0o644))
		status.Models = append(status.Models, training.ModelStatus{
			Name: name, State: training.ModelDone, Metrics: map[string]any{"loss": losses[name][len(losses[name])-1]},
		})
	}
	state, err := json.Marshal(status)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(run.Dir(), "state.json"), state, 0o644))
	return run
}

func TestALossThatDivergedIsShownLikeAnyOther(t *testing.T) {
	d := deps(t)
	diverged := make([]float64, 40)
	for i := range diverged {
		diverged[i] = 2
		if i >= len(diverged)/2 {
			diverged[i] = 1.7e308
		}
	}
	aSweep(t, d, map[string][]float64{"low": {2, 1, 0.5}, "high": diverged})
	for _, line := range []string{"status", "attach", "results", "results --csv", "results --json"} {
		assert.Contains(t, must(t, d, line), "high", line)
	}
	c := typed{notebook: &notebook{}}
	require.NoError(t, c.run(t.Context(), d, "results"))
	require.Len(t, c.screen.shown, 2)
	assert.NotNil(t, c.screen.shown[1].Picture)
}

func TestPlotsThatCannotBeDrawnTakeNoNumbersWithThem(t *testing.T) {
	d := deps(t)
	run := aSweep(t, d, map[string][]float64{"low": {2, 1}, "high": {3, 2}})
	metrics := run.ModelPath("high", "metrics.jsonl")
	require.NoError(t, os.Remove(metrics))
	require.NoError(t, os.Mkdir(metrics, 0o755)) // it cannot be read

	for _, line := range []string{"results", "results --csv", "results --json"} {
		text := must(t, d, line)
		assert.Contains(t, text, "low", line)
		assert.NotContains(t, text, "Without plots", "%s draws none", line)
	}
	c := typed{notebook: &notebook{}}
	require.NoError(t, c.run(t.Context(), d, "results"))
	assert.Contains(t, c.screen.text(), "low")
	assert.Contains(t, c.errs.String(), "Without plots: ")

	text := must(t, d, "results --zip all.zip")
	assert.Contains(t, text, "Without plots: ")
	assert.Contains(t, text, "Results written to all.zip")
	_, err := try(t, d, "results --plot curves.svg")
	assert.ErrorContains(t, err, "write the plots")
	assert.Contains(t, magics.CureOf(err), "--csv")
	assert.NoFileExists(t, filepath.Join(d.WorkDir, "curves.svg"))
}

func TestLogsTakeAnyNumberOfLines(t *testing.T) {
	d := deps(t)
	run := aSweep(t, d, map[string][]float64{"low": {1}, "high": {1}})
	require.NoError(t, os.WriteFile(run.ModelPath("low", "log.txt"), []byte("one\ntwo\n"), 0o644))
	for _, n := range []string{"2", "3", "40000000000000000", "9223372036854775807"} {
		assert.Equal(t, "one\ntwo\n", must(t, d, "logs sweep low -n "+n), n)
	}
}

func TestInterruptedResultsSaySo(t *testing.T) {
	d := deps(t)
	aSweep(t, d, map[string][]float64{"low": {2, 1}, "high": {3, 2}})
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	for _, line := range []string{"results --zip all.zip", "results --plot curves.svg"} {
		var c typed
		err := c.run(ctx, d, line)
		require.ErrorContains(t, err, "interrupted", line)
		assert.NotEmpty(t, magics.CureOf(err))
		assert.Empty(t, c.out.String()+c.errs.String())
	}
	assert.NoFileExists(t, filepath.Join(d.WorkDir, "all.zip"))
	assert.NoFileExists(t, filepath.Join(d.WorkDir, "curves.svg"))
}
