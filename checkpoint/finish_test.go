package checkpoint_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
)

func modelFolder(k *checkpoint.Keeper, below ...string) string {
	return filepath.Join(append([]string{k.Dir, "models", model}, below...)...)
}

// finished saves a step, makes it final, and returns the final folder.
func finished(t *testing.T, k *checkpoint.Keeper, step int64, content files) string {
	t.Helper()
	save(t, k, step, content)
	m, path, err := k.Finish(t.Context(), manifest(step))
	require.NoError(t, err)
	require.True(t, m.Final)
	return path
}

func TestFinish(t *testing.T) {
	k := newKeeper(t, 3)
	path := finished(t, k, 20, content("20"))
	require.Equal(t, modelFolder(k, "final"), path)
	m := requireCheckpoint(t, path, 20, content("20"))
	require.True(t, m.Final)
	require.Equal(t, map[string]any{"loss": 0.5}, m.Metrics)

	source := requireCheckpoint(t, checkpoints(k, "20"), 20, content("20"))
	require.False(t, source.Final, "the checkpoint stays as it was")

	found, damage, err := k.Final(model, print)
	require.NoError(t, err)
	require.Empty(t, damage)
	require.Equal(t, checkpoint.Found{Manifest: m, Path: path}, found)
}

// Finish may be called again, and leaves nothing of the time before.
func TestFinishAgain(t *testing.T) {
	k := newKeeper(t, 3)
	finished(t, k, 20, content("20"))
	for _, step := range []int64{20, 30} {
		requireCheckpoint(t, finished(t, k, step, content("again")), step, content("again"))
		require.Equal(t, []string{"checkpoints", "final", "staging"}, namesIn(t, modelFolder(k)))
	}
}

func TestFinishAfterACrash(t *testing.T) {
	k := newKeeper(t, 3)
	write(t, modelFolder(k, "final.half"), files{"model.pt": "half", "junk": "junk"})
	write(t, modelFolder(k, "final.replaced"), content("earlier"))
	path := finished(t, k, 20, content("20"))
	requireCheckpoint(t, path, 20, content("20"))
	require.Equal(t, []string{"checkpoints", "final", "staging"}, namesIn(t, modelFolder(k)))
	require.NoFileExists(t, filepath.Join(path, "junk"))
}

// The final checkpoint outlives the one that it was made of.
func TestFinalOutlivesItsSource(t *testing.T) {
	k := newKeeper(t, 1)
	path := finished(t, k, 20, content("20"))
	save(t, k, 30, content("30"))
	require.Equal(t, steps(30), stepFolders(t, k))
	requireCheckpoint(t, path, 20, content("20"))
}

func TestFinishRefuses(t *testing.T) {
	k := newKeeper(t, 3)
	_, _, err := k.Finish(t.Context(), manifest(20))
	require.ErrorIs(t, err, checkpoint.ErrNoManifest, "a step that was never saved")

	change(t, filepath.Join(save(t, k, 20, content("20")), "model.pt"), flip)
	_, _, err = k.Finish(t.Context(), manifest(20))
	var damaged *checkpoint.DamagedError
	require.ErrorAs(t, err, &damaged)
	require.Equal(t, "model.pt", damaged.Path)

	save(t, k, 30, content("30"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = k.Finish(ctx, manifest(30))
	require.ErrorIs(t, err, context.Canceled)
	require.NoDirExists(t, modelFolder(k, "final"))
}

func TestFinal(t *testing.T) {
	for name, test := range map[string]struct {
		spoil       spoiler
		fingerprint string
		found       bool
		damage      bool
	}{
		"whole":                  {nil, print, true, false},
		"with a foreign file":    {replacedBy("notes.txt", func(p string) error { return os.WriteFile(p, nil, 0o644) }), print, true, false},
		"of other code":          {nil, other, false, false},
		"without manifest":       {removed(checkpoint.ManifestName), print, false, false},
		"flipped byte":           {changed("model.pt", flip), print, false, true},
		"truncated":              {changed("model.pt", truncate), print, false, true},
		"missing file":           {removed("model.pt"), print, false, true},
		"manifest empty":         {changed(checkpoint.ManifestName, empty), print, false, true},
		"damaged, of other code": {changed("model.pt", flip), other, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeeper(t, 3)
			path := finished(t, k, 20, content("20"))
			if test.spoil != nil {
				test.spoil(t, path)
			}
			found, damage, err := k.Final(model, test.fingerprint)
			require.NoError(t, err)
			require.Equal(t, test.found, found.Path != "")
			if !test.damage {
				require.Empty(t, damage)
				require.DirExists(t, path)
				return
			}
			require.Len(t, damage, 1)
			require.Equal(t, path+".damaged", damage[0].Path)
			require.True(t, damage[0].Final)
			require.NoDirExists(t, path)
			// The checkpoint behind it is as good as ever.
			requireCheckpoint(t, finished(t, k, 20, content("20")), 20, content("20"))
		})
	}
}

// A crash between putting the earlier result aside and moving the new one in
// leaves the earlier one.
func TestFinalIsBroughtBack(t *testing.T) {
	k := newKeeper(t, 3)
	path := finished(t, k, 20, content("20"))
	require.NoError(t, os.Rename(path, path+".replaced"))
	write(t, path+".half", files{"model.pt": "half"})
	found, damage, err := k.Final(model, print)
	require.NoError(t, err)
	require.Empty(t, damage)
	requireCheckpoint(t, found.Path, 20, content("20"))
	require.NoDirExists(t, path+".replaced")
}

// Two models of one code and the same parameters have one fingerprint; their
// checkpoints are their own all the same.
func TestFoundIsOfTheModelItself(t *testing.T) {
	k := newKeeper(t, 3)
	finished(t, k, 20, content("20"))
	require.NoError(t, os.Rename(modelFolder(k), filepath.Join(k.Dir, "models", "twin")))
	for name, look := range map[string]func(model, fingerprint string) (checkpoint.Found, []checkpoint.Damage, error){
		"newest": k.Newest, "final": k.Final,
	} {
		found, damage, err := look("twin", print)
		require.NoError(t, err, name)
		require.Empty(t, damage, name)
		require.Empty(t, found.Path, name)
	}
}

func TestFinalOfNothing(t *testing.T) {
	found, damage, err := newKeeper(t, 3).Final(model, print)
	require.NoError(t, err)
	require.Empty(t, damage)
	require.Empty(t, found.Path)
}

func TestSupersede(t *testing.T) {
	k := newKeeper(t, 3)
	finished(t, k, 20, content("20"))
	write(t, modelFolder(k), files{"metrics.jsonl": "{}\n", "log.txt": "log\n"})

	require.NoError(t, k.Supersede(model, print))
	require.Equal(t, []string{"staging", "superseded"}, namesIn(t, modelFolder(k)))
	aside := modelFolder(k, "superseded", print[:12])
	require.Equal(t, []string{"checkpoints", "final", "log.txt", "metrics.jsonl"}, namesIn(t, aside))
	requireCheckpoint(t, filepath.Join(aside, "checkpoints", "20"), 20, content("20"))
	requireCheckpoint(t, filepath.Join(aside, "final"), 20, content("20"))

	found, _, err := k.Newest(model, print)
	require.NoError(t, err)
	require.Empty(t, found.Path)
	found, _, err = k.Final(model, print)
	require.NoError(t, err)
	require.Empty(t, found.Path)
}

// The same code may be superseded, come back, and be superseded again.
func TestSupersedeTwice(t *testing.T) {
	k := newKeeper(t, 3)
	for _, what := range []string{"first", "second", "third"} {
		save(t, k, 20, content(what))
		require.NoError(t, k.Supersede(model, print))
	}
	aside := modelFolder(k, "superseded", print[:12])
	for path, what := range map[string]string{aside: "third", aside + ".older": "first", aside + ".older-1": "second"} {
		requireCheckpoint(t, filepath.Join(path, "checkpoints", "20"), 20, content(what))
	}
}

func TestSupersedeOfNothing(t *testing.T) {
	k := newKeeper(t, 3)
	require.NoError(t, k.Supersede(model, print))
	require.NoError(t, k.Supersede(model, "short"))
	require.NoDirExists(t, modelFolder(k, "superseded"))
}
