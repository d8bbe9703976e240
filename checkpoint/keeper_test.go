package checkpoint_test

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
)

func TestSave(t *testing.T) {
	k := newKeeper(t, 3)
	staged := stage(t, k, content("20"))
	before := time.Now().Add(-time.Second)
	given := manifest(20)
	given.Final = true // only Finish makes a checkpoint final

	m, path, err := k.Save(t.Context(), given, staged)
	require.NoError(t, err)
	require.Equal(t, checkpoints(k, "20"), path)
	require.NoDirExists(t, staged)
	read := requireCheckpoint(t, path, 20, content("20"))
	require.Equal(t, m, read)
	require.False(t, m.Final)
	require.WithinRange(t, m.Created, before, time.Now().Add(time.Second))
	want := manifest(20)
	want.Format, want.Created, want.Files = 1, m.Created, m.Files
	require.Equal(t, want, m)
}

func TestSaveOfNothing(t *testing.T) {
	k := newKeeper(t, 3)
	requireCheckpoint(t, save(t, k, 20, files{}), 20, files{})
	found, damage, err := k.Newest(model, print)
	require.NoError(t, err)
	require.Empty(t, damage)
	require.Equal(t, int64(20), found.Manifest.Step)
}

// A manifest that found no room is written at the next try, from the same folder.
func TestSaveIsAskedAgain(t *testing.T) {
	k := newKeeper(t, 3)
	saveAs(t, k, manifest(20), content("20, saved before"))
	staged := stage(t, k, content("20"))
	inTheWay := filepath.Join(staged, checkpoint.ManifestName)
	require.NoError(t, os.Mkdir(inTheWay, 0o755))
	_, _, err := k.Save(t.Context(), manifest(20), staged)
	require.Error(t, err)

	_, path, err := k.Save(t.Context(), manifest(20), staged)
	require.NoError(t, err)
	requireCheckpoint(t, path, 20, content("20"))
	require.Equal(t, steps(20), stepFolders(t, k))
}

// What was handed over in memory is copied to the disk and stays with who staged
// it, also when it is asked for again.
func TestSaveFromElsewhere(t *testing.T) {
	k := newKeeper(t, 3)
	elsewhere := t.TempDir()
	write(t, elsewhere, content("20"))
	write(t, checkpoints(k, "20.half"), files{"model.pt": "of a crash", "more": "of it"})
	blocked := filepath.Join(k.Dir, "models", model, "checkpoints", "30.half")
	require.NoError(t, os.MkdirAll(blocked, 0o755))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := k.Save(ctx, manifest(30), elsewhere)
	require.ErrorIs(t, err, context.Canceled)
	require.NoDirExists(t, blocked, "half a copy takes no room")

	for range 2 {
		m, path, err := k.Save(t.Context(), manifest(20), elsewhere)
		require.NoError(t, err)
		require.Equal(t, checkpoints(k, "20"), path)
		require.Equal(t, m, requireCheckpoint(t, path, 20, content("20")))
		require.Equal(t, steps(20), stepFolders(t, k))
	}
	for name, text := range content("20") {
		data, err := os.ReadFile(filepath.Join(elsewhere, filepath.FromSlash(name)))
		require.NoError(t, err)
		require.Equal(t, text, string(data))
	}
}

// What is refused is refused before anything is moved: a manifest that lists it
// would not be believed later.
func TestSaveRefuses(t *testing.T) {
	file := func(name string) func(dir string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), nil, 0o644) }
	}
	for name, spoil := range map[string]func(dir string) error{
		"a file named like the manifest": file(checkpoint.ManifestName),
		"a name with a colon":            file("epoch:3.pt"),
		"a name with a backslash":        file(`a\b`),
		"a name that is no UTF-8":        file("caf\xe9"),
		"a link":                         func(dir string) error { return os.Symlink("model.pt", filepath.Join(dir, "link")) },
		"a folder that is not there":     os.RemoveAll,
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeeper(t, 3)
			save(t, k, 10, content("10"))
			staged := stage(t, k, content("20"))
			if err := spoil(staged); err != nil && runtime.GOOS != "linux" {
				t.Skip("this system has no such name:", err)
			}
			_, _, err := k.Save(t.Context(), manifest(20), staged)
			require.Error(t, err)
			require.Equal(t, steps(10), stepFolders(t, k))
		})
	}
}

func TestSaveStopsWithItsContext(t *testing.T) {
	k := newKeeper(t, 3)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	staged := stage(t, k, content("20"))
	_, _, err := k.Save(ctx, manifest(20), staged)
	require.ErrorIs(t, err, context.Canceled)
	require.DirExists(t, staged, "it can be saved yet")
}

func TestSaveKeepsTheNewest(t *testing.T) {
	for name, test := range map[string]struct {
		keep int
		want []string
	}{
		"three":              {3, steps(80, 90, 100)},
		"one":                {1, steps(100)},
		"zero counts as 1":   {0, steps(100)},
		"more than there is": {20, steps(10, 20, 30, 40, 50, 60, 70, 80, 90, 100)},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeeper(t, test.keep)
			for step := int64(10); step <= 100; step += 10 {
				save(t, k, step, content("it"))
			}
			require.Equal(t, test.want, stepFolders(t, k))
		})
	}
}

func TestSaveDoesNotTouchOtherModels(t *testing.T) {
	k := newKeeper(t, 1)
	rnn := manifest(5)
	rnn.Model = "rnn"
	path := saveAs(t, k, rnn, content("rnn"))
	save(t, k, 10, content("10"))
	save(t, k, 20, content("20"))
	requireCheckpoint(t, path, 5, content("rnn"))
}

// Folders with higher numbers, of other code or of nobody, must not push out
// what was saved just now.
func TestSaveKeepsWhatItSaved(t *testing.T) {
	k := newKeeper(t, 1)
	foreign := manifest(1000)
	foreign.Fingerprint = other
	saveAs(t, k, foreign, content("other code"))
	write(t, checkpoints(k, "2000"), files{"model.pt": "unsealed"})

	save(t, k, 10, content("10"))
	save(t, k, 20, content("20"))
	require.Equal(t, steps(20, 1000, 2000), stepFolders(t, k))
	found, _, err := k.Newest(model, print)
	require.NoError(t, err)
	require.Equal(t, int64(20), found.Manifest.Step)
}

// What cannot be used does not count: the last good ones stay.
func TestSaveCountsWhatIsSealedOnly(t *testing.T) {
	k := newKeeper(t, 2)
	save(t, k, 10, content("10"))
	save(t, k, 20, content("20"))
	write(t, checkpoints(k, "30"), files{"manifest.json": "{"})
	write(t, checkpoints(k, "40"), files{"model.pt": "no manifest"})
	save(t, k, 50, content("50"))
	require.Equal(t, steps(20, 30, 40, 50), stepFolders(t, k), "20 is the second that is good")
	save(t, k, 60, content("60"))
	require.Equal(t, steps(50, 60), stepFolders(t, k))
}

// The same step twice, due and final: the first goes once the second is sealed.
func TestSaveTheSameStepAgain(t *testing.T) {
	k := newKeeper(t, 1)
	for _, what := range []string{"the first", "the second", "the third"} {
		requireCheckpoint(t, save(t, k, 20, content(what)), 20, content(what))
		require.Equal(t, steps(20), stepFolders(t, k))
	}
}

// A crash between putting the first aside and sealing the second leaves the
// first, even if it is the only one.
func TestCrashWhileTheSameStepIsSavedAgain(t *testing.T) {
	for name, half := range map[string]files{
		"before the second is there": nil,
		"before it is sealed":        {"model.pt": "not sealed"},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeeper(t, 1)
			path := save(t, k, 20, content("the first"))
			require.NoError(t, os.Rename(path, path+".replaced"))
			write(t, path, half)

			found, damage, err := k.Newest(model, print)
			require.NoError(t, err)
			require.Empty(t, damage)
			requireCheckpoint(t, found.Path, 20, content("the first"))
			require.Equal(t, steps(20), stepFolders(t, k))
		})
	}
	t.Run("after it is sealed", func(t *testing.T) {
		k := newKeeper(t, 1)
		path := save(t, k, 20, content("the first"))
		require.NoError(t, os.Rename(path, path+".old"))
		save(t, k, 20, content("the second"))
		require.NoError(t, os.Rename(path+".old", path+".replaced"))

		found, _, err := k.Newest(model, print)
		require.NoError(t, err)
		requireCheckpoint(t, found.Path, 20, content("the second"))
		save(t, k, 20, content("the third"))
		require.Equal(t, steps(20), stepFolders(t, k))
	})
}

// Found checkpoints always verify; what was damaged is reported once, with its
// reason, and lies aside under another name.
func TestNewestFallsBack(t *testing.T) {
	for name, spoil := range map[string]spoiler{
		"flipped byte":               changed("model.pt", flip),
		"truncated":                  changed("model.pt", truncate),
		"longer":                     changed("model.pt", func(data []byte) []byte { return append(data, 0) }),
		"empty":                      changed("model.pt", empty),
		"flipped, below":             changed("optimizer/state.pt", flip),
		"missing file":               removed("model.pt"),
		"missing empty file":         removed("empty"),
		"missing folder":             removed("optimizer"),
		"missing manifest":           removed(checkpoint.ManifestName),
		"manifest is no JSON":        changed(checkpoint.ManifestName, func(data []byte) []byte { return data[1:] }),
		"manifest empty":             changed(checkpoint.ManifestName, empty),
		"manifest torn":              changed(checkpoint.ManifestName, func(data []byte) []byte { return data[:len(data)/2] }),
		"manifest of zeros":          changed(checkpoint.ManifestName, func(data []byte) []byte { return make([]byte, len(data)) }),
		"a folder instead of a file": replacedBy("model.pt", func(path string) error { return os.Mkdir(path, 0o755) }),
		"a link instead of a file":   replacedBy("model.pt", func(path string) error { return os.Symlink("empty", path) }),
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeeper(t, 3)
			save(t, k, 10, content("10"))
			save(t, k, 20, content("20"))
			spoil(t, save(t, k, 30, content("30")))

			found, damage, err := k.Newest(model, print)
			require.NoError(t, err)
			requireCheckpoint(t, found.Path, 20, content("20"))
			require.Equal(t, checkpoints(k, "20"), found.Path)
			require.Len(t, damage, 1)
			assert.Equal(t, int64(30), damage[0].Step)
			assert.NotEmpty(t, damage[0].Why)
			assert.Equal(t, checkpoints(k, "30.damaged"), damage[0].Path)
			require.DirExists(t, damage[0].Path)
			require.NoDirExists(t, checkpoints(k, "30"))

			again, damage, err := k.Newest(model, print)
			require.NoError(t, err)
			require.Empty(t, damage, "it is reported once")
			require.Equal(t, found, again)
		})
	}
}

// A spoiler damages the checkpoint in a folder.
type spoiler func(t *testing.T, dir string)

func changed(name string, f func([]byte) []byte) spoiler {
	return func(t *testing.T, dir string) {
		t.Helper()
		change(t, filepath.Join(dir, filepath.FromSlash(name)), f)
	}
}

func removed(name string) spoiler {
	return replacedBy(name, func(string) error { return nil })
}

func replacedBy(name string, with func(path string) error) spoiler {
	return func(t *testing.T, dir string) {
		t.Helper()
		path := filepath.Join(dir, name)
		require.NoError(t, os.RemoveAll(path))
		require.NoError(t, with(path))
	}
}
