package checkpoint_test

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/durable"
)

const (
	run   = "digits"
	model = "cnn"
	print = "0123456789abcdef" // the model's fingerprint
	other = "fedcba9876543210"
)

// files is the content of a folder, by slash-separated name.
type files map[string]string

// content returns the files of a checkpoint, told apart by what.
func content(what string) files {
	return files{"model.pt": "weights of " + what, "optimizer/state.pt": "moments of " + what, "empty": ""}
}

// newKeeper returns a keeper of a run in a new data directory.
func newKeeper(t *testing.T, keep int) *checkpoint.Keeper {
	t.Helper()
	return keeperIn(t.TempDir(), keep)
}

func keeperIn(dir string, keep int) *checkpoint.Keeper {
	return &checkpoint.Keeper{Dir: filepath.Join(dir, run), Keep: keep, Log: slog.New(slog.DiscardHandler)}
}

// save stages content and has k save it as the checkpoint of a step.
func save(t *testing.T, k *checkpoint.Keeper, step int64, content files) string {
	t.Helper()
	return saveAs(t, k, manifest(step), content)
}

func saveAs(t *testing.T, k *checkpoint.Keeper, m checkpoint.Manifest, content files) string {
	t.Helper()
	_, path, err := k.Save(t.Context(), m, stage(t, k, content))
	require.NoError(t, err)
	return path
}

func manifest(step int64) checkpoint.Manifest {
	return checkpoint.Manifest{
		Run: run, Model: model, Fingerprint: print, Step: step, Generation: 1, Writer: "test",
		Metrics: map[string]any{"loss": 0.5},
	}
}

// stage writes content as a worker does, and returns the folder.
func stage(t *testing.T, k *checkpoint.Keeper, content files) string {
	t.Helper()
	dir := filepath.Join(k.Dir, "models", model, "staging")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	dir, err := os.MkdirTemp(dir, "")
	require.NoError(t, err)
	write(t, dir, content)
	return dir
}

func write(t *testing.T, dir string, content files) {
	t.Helper()
	for name, text := range content {
		path := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
}

// change rewrites one file, past the hard links that others have of it.
func change(t *testing.T, path string, f func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.WriteFile(path, f(data), 0o644))
}

func flip(data []byte) []byte {
	data[len(data)/2] ^= 1
	return data
}

func truncate(data []byte) []byte { return data[:len(data)-1] }

func empty([]byte) []byte { return []byte{} }

// checkpoints returns the path of a model's checkpoint folder, or one in it.
func checkpoints(k *checkpoint.Keeper, below ...string) string {
	return filepath.Join(append([]string{k.Dir, "models", model, "checkpoints"}, below...)...)
}

// stepFolders returns what lies in a model's checkpoint folder, sorted.
func stepFolders(t *testing.T, k *checkpoint.Keeper) []string {
	t.Helper()
	return namesIn(t, checkpoints(k))
}

func namesIn(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// requireCheckpoint requires that the folder at path is a checkpoint of this
// step that verifies, with this content and nothing else.
func requireCheckpoint(t *testing.T, path string, step int64, want files) checkpoint.Manifest {
	t.Helper()
	m, err := checkpoint.Verify(path)
	require.NoError(t, err, path)
	require.Equal(t, step, m.Step)
	got := files{}
	for _, f := range m.Files {
		text, err := os.ReadFile(filepath.Join(path, filepath.FromSlash(f.Path)))
		require.NoError(t, err)
		require.Equal(t, int64(len(text)), f.Size)
		got[f.Path] = string(text)
	}
	require.Equal(t, want, got)
	return m
}

// steps returns folder names of steps, in the order of the folder.
func steps(numbers ...int64) []string {
	set := map[string]bool{}
	for _, n := range numbers {
		set[strconv.FormatInt(n, 10)] = true
	}
	return slices.Sorted(maps.Keys(set))
}

func digest(text string) durable.Digest {
	sum := sha256.Sum256([]byte(text))
	return durable.Digest{Size: int64(len(text)), SHA256: hex.EncodeToString(sum[:])}
}
