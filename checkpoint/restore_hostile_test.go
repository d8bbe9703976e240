package checkpoint_test

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/checkpointtest"
)

// Whatever a store says, nothing is written outside the run's folder, what it
// claims wrongly is not used, and the one before it is.
func TestRestoreOfAHostileStore(t *testing.T) {
	manifestOf := func(change func(m *checkpoint.Manifest)) func([]byte) []byte {
		return func(data []byte) []byte {
			var m checkpoint.Manifest
			if json.Unmarshal(data, &m) != nil {
				panic("the manifest of the rig is good")
			}
			change(&m)
			data, err := json.Marshal(m)
			if err != nil {
				panic(err)
			}
			return data
		}
	}
	renamed := func(name string) func([]byte) []byte {
		return manifestOf(func(m *checkpoint.Manifest) { m.Files[0].Path = name })
	}
	for name, change := range map[string]func([]byte) []byte{
		"a path that leads out":        renamed("../../../../../../evil"),
		"an absolute path":             renamed("/tmp/evil"),
		"a path into another model":    renamed("../../../evil/final/model.pt"),
		"a path onto the plan":         renamed("../../../../run.json"),
		"a path onto the manifest":     renamed("MANIFEST.json"),
		"a size that is too large":     manifestOf(func(m *checkpoint.Manifest) { m.Files[1].Size = 1 << 62 }),
		"a size that is large":         manifestOf(func(m *checkpoint.Manifest) { m.Files[1].Size = 1 << 40 }),
		"a size that is too small":     manifestOf(func(m *checkpoint.Manifest) { m.Files[1].Size = 1 }),
		"twice the same file":          manifestOf(func(m *checkpoint.Manifest) { m.Files = append(m.Files, m.Files...) }),
		"a file in a file":             manifestOf(func(m *checkpoint.Manifest) { m.Files[0].Path = m.Files[1].Path + "/x" }),
		"more files than there can be": func([]byte) []byte { return []byte(`{"format":1,"files":[` + strings.Repeat("{},", 100_001) + `{}]}`) },
		"files that are not there":     renamed("other.pt"),
		"another model":                manifestOf(func(m *checkpoint.Manifest) { m.Model = "rnn" }),
		"another run":                  manifestOf(func(m *checkpoint.Manifest) { m.Run = "letters" }),
		"a result that is none":        manifestOf(func(m *checkpoint.Manifest) { m.Final = true }),
		"an endless manifest":          func([]byte) []byte { return []byte(strings.Repeat("[", 40<<20)) },
	} {
		t.Run(name, func(t *testing.T) {
			if raced && name == "an endless manifest" {
				t.Skip("reading 32 MiB takes seconds with the race detector, and one goroutine")
			}
			s := filled(t)
			s.Corrupt(inStore("checkpoints/20/manifest.json"), change)
			outer := t.TempDir()
			dir := filepath.Join(outer, "a", "b", "runs")
			report, err := checkpoint.Restore(t.Context(), s, run, dir)
			require.NoError(t, err)
			require.Equal(t, map[string]int64{model: 10}, report.Restored)
			require.Len(t, report.Notes, 2)
			require.Contains(t, report.Notes[0], "checkpoints/20 is damaged")
			requireOnlyRun(t, outer, dir)
			requireNothingHalf(t, dir)
			require.Equal(t, []string{"cnn"}, namesIn(t, filepath.Join(dir, run, "models")))
			plan, err := os.ReadFile(filepath.Join(dir, run, "run.json"))
			require.NoError(t, err)
			require.Contains(t, string(plan), print)
		})
	}
}

// requireOnlyRun requires that nothing but the run's folder was written to below
// outer, and that it has neither links nor anything else but files.
func requireOnlyRun(t *testing.T, outer, dir string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(outer, func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		if !d.IsDir() {
			require.True(t, d.Type().IsRegular(), path)
			require.True(t, strings.HasPrefix(path, filepath.Join(dir, run)+string(filepath.Separator)), path)
		}
		return nil
	}))
}

// A link in the run's folder leads elsewhere: nothing is written there.
func TestRestoreWritesBelowNoLink(t *testing.T) {
	for _, place := range []string{"models", "models/cnn", "models/cnn/checkpoints"} {
		t.Run(place, func(t *testing.T) {
			s := filled(t)
			dir, elsewhere := t.TempDir(), t.TempDir()
			link := filepath.Join(dir, run, filepath.FromSlash(place))
			require.NoError(t, os.MkdirAll(filepath.Dir(link), 0o755))
			require.NoError(t, os.Symlink(elsewhere, link))
			_, err := checkpoint.Restore(t.Context(), s, run, dir)
			var problem *checkpoint.RestoreError
			require.ErrorAs(t, err, &problem)
			require.Contains(t, problem.Error(), place)
			require.Contains(t, problem.Cure(), "remove the link")
			require.Empty(t, namesIn(t, elsewhere))
		})
	}
}

// Names of models are folders' names: those that are not are passed over.
func TestRestorePassesOverNamesOfNoModels(t *testing.T) {
	s := new(checkpointtest.Memory)
	r := newRig(t, s, 3)
	r.start(t)
	r.mirror.Touch("run.json")
	r.flush(t)
	for _, name := range []string{".", "..", "a\\b", "C:", "x.outlast-tmp-1", strings.Repeat("n", 300)} {
		_, err := s.Put(t.Context(), run+"/models/"+name+"/final/manifest.json", strings.NewReader("{}"), digest("{}"))
		require.NoError(t, err)
	}
	dir := t.TempDir()
	report, err := checkpoint.Restore(t.Context(), s, run, dir)
	require.NoError(t, err)
	require.Empty(t, report.Restored)
	require.Empty(t, report.Notes)
	require.Equal(t, []string{"lineage.json", "run.json"}, namesIn(t, filepath.Join(dir, run)))
}
