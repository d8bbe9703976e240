package checkpoint_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
)

func TestNewest(t *testing.T) {
	k := newKeeper(t, 3)
	found, damage, err := k.Newest(model, print)
	require.NoError(t, err)
	require.Empty(t, damage)
	require.Empty(t, found.Path, "a model that was never saved")

	for _, step := range []int64{9, 10, 100} { // by number, not by name
		save(t, k, step, content("it"))
	}
	found, damage, err = k.Newest(model, print)
	require.NoError(t, err)
	require.Empty(t, damage)
	require.Equal(t, checkpoints(k, "100"), found.Path)
	require.Equal(t, int64(100), found.Manifest.Step)
	require.Equal(t, map[string]any{"loss": 0.5}, found.Manifest.Metrics)
}

func TestNewestWhenAllAreDamaged(t *testing.T) {
	k := newKeeper(t, 3)
	for _, step := range []int64{10, 20, 30} {
		change(t, filepath.Join(save(t, k, step, content("it")), "model.pt"), flip)
	}
	found, damage, err := k.Newest(model, print)
	require.NoError(t, err)
	require.Empty(t, found.Path)
	require.Len(t, damage, 3)
	require.Equal(t, []string{"10.damaged", "20.damaged", "30.damaged"}, stepFolders(t, k))
}

// Damaged once more at the same step: the second is put beside the first.
func TestNewestPutsAsideTwice(t *testing.T) {
	k := newKeeper(t, 3)
	for _, want := range []string{"20.damaged", "20.damaged-1"} {
		change(t, filepath.Join(save(t, k, 20, content("it")), "model.pt"), flip)
		_, damage, err := k.Newest(model, print)
		require.NoError(t, err)
		require.Len(t, damage, 1)
		require.Equal(t, checkpoints(k, want), damage[0].Path)
	}
}

// A folder that is empty is no damage to tell anybody of: a save had just begun.
func TestNewestIsSilentOnAnEmptyFolder(t *testing.T) {
	k := newKeeper(t, 3)
	save(t, k, 10, content("10"))
	require.NoError(t, os.Mkdir(checkpoints(k, "20"), 0o755))
	found, damage, err := k.Newest(model, print)
	require.NoError(t, err)
	require.Empty(t, damage)
	require.Equal(t, int64(10), found.Manifest.Step)
}

// What others put into the folders is neither used nor a reason for distrust.
func TestNewestIgnoresForeignFiles(t *testing.T) {
	k := newKeeper(t, 3)
	path := save(t, k, 20, content("20"))
	write(t, path, files{".DS_Store": "mine", "notes/readme.txt": "mine"})
	write(t, checkpoints(k), files{"notes.txt": "mine", "best/model.pt": "mine", "30": "a file", "latest.bak/model.pt": "mine"})

	found, damage, err := k.Newest(model, print)
	require.NoError(t, err)
	require.Empty(t, damage)
	requireCheckpoint(t, found.Path, 20, content("20"))
	require.FileExists(t, filepath.Join(path, ".DS_Store"))
	require.FileExists(t, checkpoints(k, "best", "model.pt"))
}

// Checkpoints of other code are whole: they are passed over, and stay.
func TestNewestAsksForTheFingerprint(t *testing.T) {
	k := newKeeper(t, 3)
	save(t, k, 10, content("10"))
	foreign := manifest(20)
	foreign.Fingerprint = other
	saveAs(t, k, foreign, content("other code"))

	found, damage, err := k.Newest(model, print)
	require.NoError(t, err)
	require.Empty(t, damage)
	require.Equal(t, int64(10), found.Manifest.Step)
	found, _, err = k.Newest(model, other)
	require.NoError(t, err)
	require.Equal(t, int64(20), found.Manifest.Step)
	found, _, err = k.Newest(model, "unknown")
	require.NoError(t, err)
	require.Empty(t, found.Path)
}

// A checkpoint that was copied to another number would redo or skip steps.
func TestNewestPassesOverARenamedCheckpoint(t *testing.T) {
	k := newKeeper(t, 3)
	save(t, k, 10, content("10"))
	require.NoError(t, os.Rename(save(t, k, 20, content("20")), checkpoints(k, "99")))
	found, damage, err := k.Newest(model, print)
	require.NoError(t, err)
	require.Empty(t, damage)
	require.Equal(t, int64(10), found.Manifest.Step)
}

// What was put aside goes with the checkpoints of its time.
func TestDamagedOnesAreNotKeptForEver(t *testing.T) {
	k := newKeeper(t, 2)
	save(t, k, 10, content("10"))
	change(t, filepath.Join(save(t, k, 20, content("20")), "model.pt"), flip)
	_, _, err := k.Newest(model, print)
	require.NoError(t, err)
	save(t, k, 20, content("20 again"))
	require.Equal(t, []string{"10", "20", "20.damaged"}, stepFolders(t, k))
	save(t, k, 30, content("30"))
	require.Equal(t, []string{"20", "20.damaged", "30"}, stepFolders(t, k))
	save(t, k, 40, content("40"))
	require.Equal(t, []string{"30", "40"}, stepFolders(t, k))
}

func TestVerifyOfNoCheckpoint(t *testing.T) {
	_, err := checkpoint.Verify(filepath.Join(t.TempDir(), "missing"))
	require.ErrorIs(t, err, checkpoint.ErrNoManifest)
	_, err = checkpoint.Verify(t.TempDir())
	require.ErrorIs(t, err, checkpoint.ErrNoManifest)
}
