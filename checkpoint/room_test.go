package checkpoint_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMakeRoomKeepsTheNewestThatVerifies(t *testing.T) {
	k := newKeeper(t, 5)
	for _, step := range []int64{10, 20, 30, 40} {
		save(t, k, step, content("step"))
	}
	damaged := filepath.Join(k.Dir, "models", model, "checkpoints", "40", "model.pt")
	require.NoError(t, os.Chmod(damaged, 0o644))
	require.NoError(t, os.WriteFile(damaged, []byte("weights of stEp"), 0o644))

	freed, err := k.MakeRoom(t.Context())
	require.NoError(t, err)

	assert.Positive(t, freed)
	found, damage, err := k.Newest(model, print)
	require.NoError(t, err)
	assert.Equal(t, int64(30), found.Manifest.Step, "the newest is damaged: the one before it must be there")
	assert.Len(t, damage, 1)
	for _, gone := range []string{"10", "20"} {
		assert.NoDirExists(t, filepath.Join(k.Dir, "models", model, "checkpoints", gone))
	}
}

func TestMakeRoomDropsResultsOfEarlierCode(t *testing.T) {
	k := newKeeper(t, 5)
	save(t, k, 10, content("old code"))
	require.NoError(t, k.Supersede(model, print))
	aside := filepath.Join(k.Dir, "models", model, "superseded")
	require.DirExists(t, aside)

	freed, err := k.MakeRoom(t.Context())
	require.NoError(t, err)

	assert.Positive(t, freed)
	assert.NoDirExists(t, aside)
}

func TestMakeRoomRemovesNothingWhenNothingVerifies(t *testing.T) {
	k := newKeeper(t, 5)
	for _, step := range []int64{10, 20} {
		path := save(t, k, step, content("step"))
		require.NoError(t, os.Remove(filepath.Join(path, "model.pt")))
	}
	_, err := k.MakeRoom(t.Context())
	require.NoError(t, err)
	assert.DirExists(t, filepath.Join(k.Dir, "models", model, "checkpoints", "10"))
}

func TestMakeRoomOfARunWithoutModelsIsNothing(t *testing.T) {
	freed, err := newKeeper(t, 1).MakeRoom(t.Context())
	require.NoError(t, err)
	assert.Zero(t, freed)
}
