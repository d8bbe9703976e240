//go:build unix

package kernel

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// aKernelsFolder makes a folder as one that no process of this machine, or of
// this container, would have, some time ago.
func aKernelsFolder(t *testing.T, parent, name string) *folder {
	t.Helper()
	dir := filepath.Join(parent, name)
	require.NoError(t, os.Mkdir(dir, 0o700))
	f := lockFolder(dir)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "connection.json"), nil, 0o600))
	age(t, dir)
	return f
}

// age makes a folder, and what is in it, look old.
func age(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	before := time.Now().Add(-time.Hour)
	for _, path := range append(files, dir) {
		require.NoError(t, os.Chtimes(path, before, before))
	}
}

func TestOnlyFoldersThatNobodyUsesAreSwept(t *testing.T) {
	parent := t.TempDir()
	const nobody = "outlast-4194305-" // no process has this number
	works := aKernelsFolder(t, parent, nobody+"1")
	defer works.remove()
	killed := aKernelsFolder(t, parent, nobody+"2")
	require.NoError(t, killed.lock.Close()) // as its end does
	began := aKernelsFolder(t, parent, nobody+"3")
	require.NoError(t, began.lock.Close())
	now := time.Now()
	require.NoError(t, os.Chtimes(filepath.Join(began.path, lockName), now, now))
	foreign := filepath.Join(parent, nobody+"4") // somebody's who knows no lock
	require.NoError(t, os.Mkdir(foreign, 0o700))
	age(t, foreign)

	own, err := socketFolder(parent)
	require.NoError(t, err)
	defer own.remove()
	assert.DirExists(t, works.path, "another machine's, or another container's")
	assert.NoDirExists(t, killed.path)
	assert.DirExists(t, began.path, "it may not be locked yet")
	assert.DirExists(t, foreign)

	age(t, own.path)
	next, err := socketFolder(parent)
	require.NoError(t, err)
	defer next.remove()
	assert.DirExists(t, own.path, "our own")
}
