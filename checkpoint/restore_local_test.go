package checkpoint_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/checkpointtest"
	"outlast/checkpoint/durable"
)

// What is here already is neither fetched nor overwritten.
func TestRestoreKeepsWhatIsHere(t *testing.T) {
	r := newRemote(t)
	dir := t.TempDir()
	r.restore(t, dir)
	k := keeperIn(dir, 3)
	write(t, k.Dir, files{"run.json": "{}", "models/cnn/log.txt": "local"})
	save(t, k, 40, content("40"))
	changed("model.pt", flip)(t, r.path("checkpoints", "30"))

	report := r.restore(t, dir)
	require.Empty(t, report.Notes)
	require.Equal(t, map[string]int64{model: 40}, report.Restored)
	found, _, err := k.Newest(model, print)
	require.NoError(t, err)
	requireCheckpoint(t, found.Path, 40, content("40"))
	for name, want := range map[string]string{"run.json": "{}", "models/cnn/log.txt": "local"} {
		got, err := os.ReadFile(filepath.Join(k.Dir, name))
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
}

// What another machine has trained with later code takes the place of what this
// disk has of earlier code, and whoever trains next does not take it for that.
func TestRestoreBringsALaterVersionOfAModel(t *testing.T) {
	r := newRemote(t)
	dir := t.TempDir()
	k := keeperIn(dir, 3)
	write(t, k.Dir, files{
		"run.json":                 `{"models": [{"name": "cnn", "fingerprint": "` + print + `"}]}`,
		"models/cnn/model.json":    `{"fingerprint": "` + other + `"}`,
		"models/cnn/metrics.jsonl": "of earlier code",
	})
	m := manifest(500)
	m.Fingerprint = other
	saveAs(t, k, m, content("earlier code"))
	_, _, err := k.Finish(t.Context(), m)
	require.NoError(t, err)

	require.Equal(t, map[string]int64{model: 30}, r.restore(t, dir).Restored)
	require.NoFileExists(t, filepath.Join(k.Dir, "models", model, "model.json"))
	require.Equal(t, steps(30), stepFolders(t, k))
	aside := filepath.Join(k.Dir, "models", model, "superseded", other[:12])
	requireCheckpoint(t, filepath.Join(aside, "final"), 500, content("earlier code"))
	requireCheckpoint(t, filepath.Join(aside, "checkpoints", "500"), 500, content("earlier code"))
	require.FileExists(t, filepath.Join(aside, "metrics.jsonl"))
}

// Restoring twice leaves what restoring once does.
func TestRestoreTwice(t *testing.T) {
	r := newRemote(t)
	dir := t.TempDir()
	r.restore(t, dir)
	once, err := os.ReadFile(filepath.Join(dir, run, "lineage.json"))
	require.NoError(t, err)
	r.restore(t, dir)
	twice, err := os.ReadFile(filepath.Join(dir, run, "lineage.json"))
	require.NoError(t, err)
	require.Equal(t, string(once), string(twice))
}

// A local copy that is damaged makes way for the store's.
func TestRestoreReplacesADamagedCopy(t *testing.T) {
	r := newRemote(t)
	dir := t.TempDir()
	r.restore(t, dir)
	k := keeperIn(dir, 3)
	changed("model.pt", flip)(t, checkpoints(k, "30"))
	require.Len(t, r.restore(t, dir).Notes, 1)
	requireCheckpoint(t, checkpoints(k, "30"), 30, content("30"))
	found, damage, err := k.Newest(model, print)
	require.NoError(t, err)
	require.Empty(t, damage)
	require.Equal(t, checkpoints(k, "30"), found.Path)
}

// However a restore is interrupted, there is no run before it is whole, and a
// second try brings it.
func TestRestoreIsInterrupted(t *testing.T) {
	for calls := 1; ; calls++ {
		s := filled(t)
		var n atomic.Int64
		s.Fail(func(context.Context, checkpointtest.Op) error {
			if n.Add(1) == int64(calls) {
				return errDown
			}
			return nil
		})
		dir := t.TempDir()
		_, err := checkpoint.Restore(t.Context(), s, run, dir)
		if err == nil {
			require.Greater(t, calls, 8, "each call has failed once")
			return
		}
		var problem *checkpoint.RestoreError
		require.ErrorAs(t, err, &problem)
		require.ErrorIs(t, err, errDown)
		require.Equal(t, run, problem.Run)
		require.NotEmpty(t, problem.Cure())
		require.NoFileExists(t, filepath.Join(dir, run, "run.json"))

		report, err := checkpoint.Restore(t.Context(), s, run, dir)
		require.NoError(t, err)
		require.Equal(t, map[string]int64{model: 20}, report.Restored)
		requireCheckpoint(t, checkpoints(keeperIn(dir, 3), "20"), 20, content("20"))
		require.FileExists(t, filepath.Join(dir, run, "run.json"))
		requireNothingHalf(t, dir)
	}
}

// filled returns a memory store with a run at steps 10 and 20.
func filled(t *testing.T) *checkpointtest.Memory {
	t.Helper()
	s := new(checkpointtest.Memory)
	r := newRig(t, s, 3)
	stop := r.start(t)
	defer stop()
	r.mirror.Touch("run.json", "ledger.jsonl")
	for _, step := range []int64{10, 20} {
		r.save(t, step, strconv.FormatInt(step, 10))
		r.flush(t)
	}
	return s
}

func TestRestoreStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	_, err := checkpoint.Restore(ctx, filled(t), run, dir)
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, namesIn(t, dir))
}

func TestRestoreOfAnUnknownRun(t *testing.T) {
	dir := t.TempDir()
	_, err := checkpoint.Restore(t.Context(), filled(t), "letters", dir)
	var problem *checkpoint.RestoreError
	require.ErrorAs(t, err, &problem)
	require.Equal(t, "letters", problem.Run)
	require.Contains(t, problem.Cure(), run, "it says which there are")
	require.Empty(t, namesIn(t, dir))
}

func TestRestoreRefusesNamesThatLeadOutside(t *testing.T) {
	s := filled(t)
	for _, name := range []string{"", "..", "../digits", "/etc", "digits/models", `a\b`} {
		dir := filepath.Join(t.TempDir(), "data")
		_, err := checkpoint.Restore(t.Context(), s, name, dir)
		var problem *checkpoint.RestoreError
		require.ErrorAs(t, err, &problem, "%q", name)
		require.NoDirExists(t, dir)
	}
}

// Nothing but models and steps is looked at, whatever else lies in the store.
func TestRestoreIgnoresWhatIsForeign(t *testing.T) {
	s := filled(t)
	for _, name := range []string{
		"models/cnn/checkpoints/99", "models/cnn/checkpoints/99/model.pt", "models/cnn/checkpoints/best/manifest.json",
		"models/cnn/checkpoints/-5/manifest.json", "models/cnn/notes.txt", "models/readme.txt", "models/rnn/log.txt",
		"models/../../evil/checkpoints/1/manifest.json", "models/cnn/final/model.pt",
	} {
		_, err := s.Put(t.Context(), run+"/"+name, strings.NewReader("{}"), durable.Digest{Size: 2})
		require.NoError(t, err)
	}
	dir := t.TempDir()
	report, err := checkpoint.Restore(t.Context(), s, run, dir)
	require.NoError(t, err)
	require.Equal(t, map[string]int64{model: 20}, report.Restored)
	require.Len(t, report.Notes, 1)
	require.Equal(t, []string{run}, namesIn(t, dir))
	require.Equal(t, []string{"cnn"}, namesIn(t, filepath.Join(dir, run, "models")))
}

func TestRuns(t *testing.T) {
	s := filled(t)
	for _, name := range []string{"letters/run.json", "run.json", "a/b/run.json", "notes/readme.txt"} {
		_, err := s.Put(t.Context(), name, strings.NewReader("{}"), durable.Digest{Size: 2})
		require.NoError(t, err)
	}
	names, err := checkpoint.Runs(t.Context(), s)
	require.NoError(t, err)
	require.Equal(t, []string{run, "letters"}, names)

	s.Fail(failing("List"))
	_, err = checkpoint.Runs(t.Context(), s)
	require.ErrorIs(t, err, errDown)
}

// What an interrupted save, restore or copy left goes; what is good stays. The
// folder's own name may look like a pattern.
func TestSweepHalf(t *testing.T) {
	k := keeperIn(filepath.Join(t.TempDir(), "my [runs"), 3)
	path := finished(t, k, 20, content("20"))
	write(t, k.Dir, files{
		"outbox/cnn/20-1/model.pt":             "link",
		"models/cnn/final.half/model.pt":       "half",
		"models/cnn/checkpoints/30.half/a":     "half",
		"models/cnn/metrics.jsonl":             "{}\n",
		"models/cnn/work/half.half/x":          "the user's",
		"run.json" + durable.TempMark + "1":    "half",
		"models/cnn/x" + durable.TempMark + "": "half",
	})
	require.NoError(t, checkpoint.SweepHalf(k.Dir))
	require.Equal(t, []string{"models"}, namesIn(t, k.Dir))
	require.Equal(t, []string{"checkpoints", "final", "metrics.jsonl", "staging", "work"}, namesIn(t, modelFolder(k)))
	require.FileExists(t, modelFolder(k, "work", "half.half", "x"))
	require.Equal(t, steps(20), stepFolders(t, k))
	requireCheckpoint(t, path, 20, content("20"))
	require.NoError(t, checkpoint.SweepHalf(filepath.Join(t.TempDir(), "missing")))
}
