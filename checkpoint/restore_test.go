package checkpoint_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/durable"
	"outlast/checkpoint/folder"
)

// A remote is a run in a folder store, as its machine left it: checkpoints 10,
// 20 and 30 of cnn, and the run's own files.
type remote struct {
	*rig
	store *folder.Store
	root  string
}

func newRemote(t *testing.T) *remote {
	t.Helper()
	root := t.TempDir()
	s, err := folder.New(root)
	require.NoError(t, err)
	r := &remote{newRig(t, s, 3), s, root}
	r.start(t)
	r.mirror.Touch("run.json", "ledger.jsonl")
	for _, step := range []int64{10, 20, 30} {
		r.save(t, step, strconv.FormatInt(step, 10))
		r.flush(t)
	}
	return r
}

// path returns where something below the model is in the store's folder.
func (r *remote) path(below ...string) string {
	return filepath.Join(append([]string{r.root, run, "models", model}, below...)...)
}

// restore restores the run into dir, which succeeds.
func (r *remote) restore(t *testing.T, dir string) checkpoint.Report {
	t.Helper()
	report, err := checkpoint.Restore(t.Context(), r.store, run, dir)
	require.NoError(t, err)
	requireNothingHalf(t, dir)
	return report
}

func requireNothingHalf(t *testing.T, dir string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		require.False(t, strings.HasSuffix(path, ".half") || durable.IsTemp(path), path)
		return err
	}))
}

func TestRestoreOnAFreshMachine(t *testing.T) {
	r := newRemote(t)
	dir := t.TempDir()
	report := r.restore(t, dir)
	require.Equal(t, map[string]int64{model: 30}, report.Restored)
	require.Len(t, report.Notes, 1)
	require.Contains(t, report.Notes[0], "step 30")

	k := keeperIn(dir, 3)
	require.Equal(t, steps(30), stepFolders(t, k), "the newest is enough")
	found, damage, err := k.Newest(model, print)
	require.NoError(t, err)
	require.Empty(t, damage)
	m := requireCheckpoint(t, found.Path, 30, content("30"))
	theirs := requireCheckpoint(t, r.path("checkpoints", "30"), 30, content("30"))
	require.Equal(t, theirs, m)
	for _, name := range []string{"run.json", "ledger.jsonl", "models/cnn/metrics.jsonl", "models/cnn/log.txt"} {
		want, err := os.ReadFile(filepath.Join(r.Dir, name))
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join(k.Dir, name))
		require.NoError(t, err)
		require.Equal(t, string(want), string(got), name)
	}
}

// The finished model is what counts; its checkpoints stay where they are.
func TestRestoreOfAFinishedModel(t *testing.T) {
	r := newRemote(t)
	r.finish(t, 30, "30")
	r.flush(t)
	dir := t.TempDir()
	report := r.restore(t, dir)
	require.Equal(t, map[string]int64{model: 30}, report.Restored)
	require.Contains(t, report.Notes[0], "finished")
	k := keeperIn(dir, 3)
	found, _, err := k.Final(model, print)
	require.NoError(t, err)
	requireCheckpoint(t, found.Path, 30, content("30"))
	require.NoDirExists(t, checkpoints(k))
}

// Whatever happened to the newest in the store, the one before it is used, and
// the user is told.
func TestRestoreFallsBack(t *testing.T) {
	for name, test := range map[string]struct {
		spoil spoiler
		notes int
	}{
		"flipped byte":             {changed("model.pt", flip), 2},
		"truncated":                {changed("model.pt", truncate), 2},
		"longer":                   {changed("model.pt", func(data []byte) []byte { return append(data, 0) }), 2},
		"empty":                    {changed("model.pt", empty), 2},
		"flipped, below":           {changed("optimizer/state.pt", flip), 2},
		"missing file":             {removed("model.pt"), 2},
		"manifest is no JSON":      {changed(checkpoint.ManifestName, func(data []byte) []byte { return data[1:] }), 2},
		"manifest empty":           {changed(checkpoint.ManifestName, empty), 2},
		"manifest leads outside":   {changed(checkpoint.ManifestName, replacing("model.pt", "../../../../../evil")), 2},
		"manifest of a new format": {changed(checkpoint.ManifestName, replacing(`"format": 1`, `"format": 2`)), 2},
		"manifest of another step": {changed(checkpoint.ManifestName, replacing(`"step": 30`, `"step": 31`)), 2},
		"never sealed":             {removed(checkpoint.ManifestName), 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRemote(t)
			test.spoil(t, r.path("checkpoints", "30"))
			dir := t.TempDir()
			report := r.restore(t, dir)
			require.Equal(t, map[string]int64{model: 20}, report.Restored)
			require.Len(t, report.Notes, test.notes)
			if test.notes == 2 {
				require.Contains(t, report.Notes[0], "checkpoints/30 is damaged")
			}
			k := keeperIn(dir, 3)
			require.Equal(t, steps(20), stepFolders(t, k))
			requireCheckpoint(t, checkpoints(k, "20"), 20, content("20"))
		})
	}
}

func replacing(old, with string) func([]byte) []byte {
	return func(data []byte) []byte {
		return []byte(strings.Replace(string(data), old, with, 1))
	}
}

func TestRestoreFallsBackFromTheFinalOne(t *testing.T) {
	r := newRemote(t)
	r.finish(t, 30, "30")
	r.flush(t)
	changed("model.pt", flip)(t, r.path("final"))
	dir := t.TempDir()
	report := r.restore(t, dir)
	require.Len(t, report.Notes, 2)
	require.Contains(t, report.Notes[0], "final is damaged")
	k := keeperIn(dir, 3)
	requireCheckpoint(t, checkpoints(k, "30"), 30, content("30"))
	require.NoDirExists(t, modelFolder(k, "final"))
}

func TestRestoreWhenAllAreDamaged(t *testing.T) {
	r := newRemote(t)
	for _, step := range []string{"10", "20", "30"} {
		changed("model.pt", flip)(t, r.path("checkpoints", step))
	}
	dir := t.TempDir()
	report := r.restore(t, dir)
	require.Empty(t, report.Restored)
	require.Len(t, report.Notes, 3)
	require.FileExists(t, filepath.Join(dir, run, "run.json"), "it begins anew")
}

// The store keeps what the model was before its code changed, with higher steps
// and a final one. Training could not use it.
func TestRestorePassesOverEarlierCode(t *testing.T) {
	r := newRemote(t)
	foreign := manifest(900)
	foreign.Fingerprint = other
	r.mirror.Saved(model, 900, saveAs(t, r.Keeper, foreign, content("other code")), false)
	r.flush(t)
	_, path, err := r.Finish(t.Context(), foreign)
	require.NoError(t, err)
	r.mirror.Saved(model, 900, path, true)
	r.flush(t)

	dir := t.TempDir()
	require.Equal(t, map[string]int64{model: 30}, r.restore(t, dir).Restored)
	found, _, err := keeperIn(dir, 3).Newest(model, print)
	require.NoError(t, err)
	require.Equal(t, int64(30), found.Manifest.Step)
}
