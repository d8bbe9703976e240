package training_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"outlast/training"
)

// After a power cut files may be there that are empty: they are written anew,
// and what is whole is left alone.
func TestTheModuleOfWorkersIsMadeWholeAgain(t *testing.T) {
	cache := t.TempDir()
	path, err := training.UnpackWorker(cache)
	require.NoError(t, err)
	sources, err := filepath.Glob("worker/outlast/*.py")
	require.NoError(t, err)
	require.NotEmpty(t, sources)
	at := func(source string) string { return filepath.Join(path, "outlast", filepath.Base(source)) }
	require.NoError(t, os.Truncate(at("_job.py"), 0))
	require.NoError(t, os.Remove(at("_run.py")))
	long := time.Now().Add(-time.Hour).Truncate(time.Second)
	require.NoError(t, os.Chtimes(at("__init__.py"), long, long))

	again, err := training.UnpackWorker(cache)
	require.NoError(t, err)
	require.Equal(t, path, again)
	for _, source := range sources {
		want, err := os.ReadFile(source)
		require.NoError(t, err)
		got, err := os.ReadFile(at(source))
		require.NoError(t, err)
		require.Equal(t, string(want), string(got), source)
	}
	info, err := os.Stat(at("__init__.py"))
	require.NoError(t, err)
	require.True(t, info.ModTime().Equal(long), "a worker may be reading it")
}
