//go:build unix

package training_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint/durable"
	"outlast/training"
	"outlast/training/trainingtest"
)

func TestMain(m *testing.M) { trainingtest.Main(m) }

// limit is how long anything may take that is waited for.
const limit = 30 * time.Second

// create makes a run of these models in a new data directory.
func create(t *testing.T, models ...training.Model) *training.Run {
	t.Helper()
	return createPlan(t, t.TempDir(), trainingtest.Plan("digits", models...))
}

func createPlan(t *testing.T, dir string, p *training.Plan) *training.Run {
	t.Helper()
	r, _, err := training.Create(dir, p, false)
	require.NoError(t, err)
	return r
}

// supervisor returns one that works in this process, without waits.
func supervisor(t *testing.T, r *training.Run) (*training.Supervisor, *trainingtest.Vault) {
	t.Helper()
	v := &trainingtest.Vault{Run: r}
	t.Cleanup(func() { require.Empty(t, v.Breaches()) })
	return &training.Supervisor{
		Run: r, Vault: v, Env: os.Environ(), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	}, v
}

// work works r off and returns its last status.
func work(t *testing.T, r *training.Run) (training.Status, error) {
	t.Helper()
	s, _ := supervisor(t, r)
	return finish(t, s)
}

func finish(t *testing.T, s *training.Supervisor) (training.Status, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	err := s.Work(ctx)
	require.NoError(t, ctx.Err(), "it took too long")
	status, statusErr := s.Run.Status()
	require.NoError(t, statusErr)
	return status, err
}

// model returns the status of the model called name.
func model(t *testing.T, s training.Status, name string) training.ModelStatus {
	t.Helper()
	for _, m := range s.Models {
		if m.Name == name {
			return m
		}
	}
	require.Fail(t, "no model "+name)
	return training.ModelStatus{}
}

// ledger returns the entries of r's ledger of one kind.
func ledger(t *testing.T, r *training.Run, kind training.EntryType) []training.Entry {
	t.Helper()
	var found []training.Entry
	require.NoError(t, durable.ReadLog(filepath.Join(r.Dir(), "ledger.jsonl"), func(line []byte) error {
		var e training.Entry
		err := json.Unmarshal(line, &e)
		if e.Type == kind {
			found = append(found, e)
		}
		return err
	}))
	return found
}

// causes returns how the attempts ended, in order.
func causes(t *testing.T, r *training.Run) []training.Cause {
	t.Helper()
	var all []training.Cause
	for _, e := range ledger(t, r, training.EntryEnd) {
		all = append(all, e.Cause)
	}
	return all
}

// requireExact checks that model was trained for so many steps, each of them
// once, and that its result is that of a run that nothing disturbed.
func requireExact(t *testing.T, r *training.Run, name string, steps int64) {
	t.Helper()
	require.Equal(t, trainingtest.StateAfter(steps), trainingtest.State(r.ModelPath(name, "final")))
	points, err := r.Metrics(name)
	require.NoError(t, err)
	var got []int64
	for _, p := range points {
		got = append(got, p.Step)
	}
	want := make([]int64, steps)
	for i := range want {
		want[i] = int64(i)
	}
	require.Equal(t, want, got, "every step stands in the metrics once")
}

// until waits for a condition that another process brings about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		require.False(t, time.Now().After(end), "never came: "+what)
	}
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
}
