package install

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestALinkInPathIsPreferred(t *testing.T) {
	onlyUnix(t)
	root := t.TempDir()
	exe := filepath.Join(root, "Cellar", "1.2.3", "outlast")
	write(t, exe, "#!/bin/sh\n")
	require.NoError(t, os.Chmod(exe, 0o755))
	bin := filepath.Join(root, "bin")
	require.NoError(t, os.Mkdir(bin, 0o755))
	t.Setenv("PATH", bin)
	assert.Equal(t, Program{exe, true}, program(exe, "/no/temp"), "nobody else has it")

	require.NoError(t, os.Symlink(exe, filepath.Join(bin, "outlast")))
	assert.Equal(t, Program{filepath.Join(bin, "outlast"), true}, program(exe, "/no/temp"))

	require.NoError(t, os.Remove(filepath.Join(bin, "outlast")))
	write(t, filepath.Join(bin, "outlast"), "another version")
	require.NoError(t, os.Chmod(filepath.Join(bin, "outlast"), 0o755))
	assert.Equal(t, Program{exe, true}, program(exe, "/no/temp"))
}

func TestWhatGoRunBuildsDoesNotLast(t *testing.T) {
	onlyUnix(t)
	temp := t.TempDir()
	link := filepath.Join(t.TempDir(), "tmp")
	require.NoError(t, os.Symlink(temp, link))
	write(t, filepath.Join(temp, "outlast"), "")
	for exe, lasts := range map[string]bool{
		filepath.Join(temp, "outlast"):           false,
		filepath.Join(link, "outlast"):           false,
		temp + "-not/outlast":                    true,
		"/home/me/.cache/go-build/ab/cd/outlast": false,
		"/usr/local/bin/outlast":                 true,
	} {
		assert.Equal(t, lasts, program(exe, temp).Lasts, exe)
		assert.Equal(t, lasts, program(exe, link).Lasts, exe)
	}
}

func TestWhatDoesNotLastIsCopied(t *testing.T) {
	root := t.TempDir()
	exe := filepath.Join(root, "go-build", "outlast")
	write(t, exe, "the program")
	for range 2 {
		copied, err := Program{exe, false}.lasting(filepath.Join(root, "jupyter"))
		require.NoError(t, err)
		info, err := os.Stat(copied)
		require.NoError(t, err)
		assert.NotZero(t, info.Mode()&0o100, "it can be run")
		content, err := os.ReadFile(copied)
		require.NoError(t, err)
		assert.Equal(t, "the program", string(content))
	}
	copied, err := Program{lastingCopy(filepath.Join(root, "jupyter")), false}.lasting(filepath.Join(root, "jupyter"))
	require.NoError(t, err, "a copy installs itself")
	assert.FileExists(t, copied)
}
