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
func aKernelsFolder(t *testing.T, parent, name string) (dir string, leave func()) {
	t.Helper()
	dir = filepath.Join(parent, name)
	require.NoError(t, os.Mkdir(dir, 0o700))
	leave = occupy(dir)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "connection.json"), nil, 0o600))
	age(t, dir)
	return dir, leave
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
	works, leave := aKernelsFolder(t, parent, nobody+"1")
	defer leave()
	killed, kill := aKernelsFolder(t, parent, nobody+"2")
	kill()
	began, end := aKernelsFolder(t, parent, nobody+"3")
	end()
	now := time.Now()
	require.NoError(t, os.Chtimes(filepath.Join(began, lockName), now, now))
	foreign := filepath.Join(parent, nobody+"4") // somebody's who knows no lock
	require.NoError(t, os.Mkdir(foreign, 0o700))
	age(t, foreign)

	dir, err := childDir(parent)
	require.NoError(t, err)
	assert.DirExists(t, works, "another machine's, or another container's")
	assert.NoDirExists(t, killed)
	assert.DirExists(t, began, "it may not be locked yet")
	assert.DirExists(t, foreign)

	defer occupy(dir)()
	age(t, dir)
	_, err = childDir(parent)
	require.NoError(t, err)
	assert.DirExists(t, dir, "our own")
}
