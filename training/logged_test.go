//go:build unix

package training_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"outlast/training"
	"outlast/training/trainingtest"
)

// metricsOf returns what the manifest of a model's checkpoint says.
func metricsOf(t *testing.T, r *training.Run, step string) map[string]any {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(r.ModelPath("a", "checkpoints", step), "manifest.json"))
	require.NoError(t, err)
	var m struct {
		Metrics map[string]any `json:"metrics"`
	}
	require.NoError(t, json.Unmarshal(data, &m))
	return m.Metrics
}

// By it the best one is told, and what a folder in a store is worth.
func TestACheckpointSaysWhatWasLastMeasured(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "restore",
		`@1 event {"event":"metrics","step":0,"time":1,"values":{"eval":0.25,"words":"no number"}}`,
		"@1 train 2 every 1", "@1 checkpoint asked", "@1 train 3 every 9", "@1 signal KILL",
		"@2 checkpoint asked", "train 5 every 1", "finish"))
	_, err := work(t, r)
	require.NoError(t, err)
	require.Equal(t, map[string]any{"loss": 1.0 / 2, "eval": 0.25}, metricsOf(t, r, "2"), "as it was then, not what was lost since")
	require.Equal(t, map[string]any{"loss": 1.0 / 5, "eval": 0.25}, metricsOf(t, r, "5"))
}

// What a worker has measured that was begun anew is measured anew.
func TestACheckpointSaysNothingOfAnotherBeginning(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "@1 restore", "@1 train 4 every 2", "@1 checkpoint asked", "@1 signal KILL",
		`@2 event {"event":"restored","step":0}`, "@2 checkpoint asked", "@2 train 4 every 9", "finish"))
	_, err := work(t, r)
	require.NoError(t, err)
	require.Empty(t, metricsOf(t, r, "0"))
	require.Equal(t, map[string]any{"loss": 1.0 / 4}, metricsOf(t, r, "4"))
}

// A manifest is read whole wherever checkpoints are looked at.
func TestMetricsThatAreTooManyAreLeftOut(t *testing.T) {
	many := map[string]any{}
	for i := range 20_000 {
		many[fmt.Sprintf("metric number %d", i)] = i
	}
	line, err := json.Marshal(map[string]any{"event": "metrics", "step": 0, "time": 1, "values": many})
	require.NoError(t, err)
	r := create(t, trainingtest.Model("a", "hello", "restore", "raw "+string(line), "checkpoint asked", "train 2 every 1", "finish"))
	_, err = work(t, r)
	require.NoError(t, err)
	require.Empty(t, metricsOf(t, r, "2"))
}

// What is logged under the names that each line has itself takes the place of
// neither: by its step a line is cut when training goes on.
func TestStepAndTimeAreNoNamesOfMetrics(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "restore", "@1 train 2 every 2",
		`event {"event":"metrics","step":2,"time":5,"values":{"step":0,"time":"noon","eval":0.5}}`, "@1 train 4 every 9", "@1 signal KILL",
		"train 5 every 9", "finish"))
	status, err := work(t, r)
	require.NoError(t, err)
	points, err := r.Metrics("a")
	require.NoError(t, err)
	var steps []int64
	for _, p := range points {
		steps = append(steps, p.Step)
	}
	require.Equal(t, []int64{0, 1, 2, 2, 3, 4}, steps, "none is cut before its time, none is left behind")
	require.Equal(t, map[string]any{"logged_step": 0.0, "logged_time": "noon", "eval": 0.5}, points[2].Values)
	require.InDelta(t, 5, points[2].Time, 0)
	for _, name := range []string{"step", "time"} {
		require.NotContains(t, model(t, status, "a").Metrics, name)
		require.NotContains(t, metricsOf(t, r, "5"), name)
	}
}
