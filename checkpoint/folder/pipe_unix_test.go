//go:build unix

package folder_test

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/folder"
)

// A pipe in the folder is no file: reading it would never end.
func TestGetOpensNoPipe(t *testing.T) {
	root := t.TempDir()
	s, err := folder.New(root)
	require.NoError(t, err)
	require.NoError(t, syscall.Mkfifo(filepath.Join(root, "pipe"), 0o644))
	_, err = s.Get(t.Context(), "pipe")
	require.ErrorIs(t, err, checkpoint.ErrNotFound)
	entries, err := s.List(t.Context(), "")
	require.NoError(t, err)
	require.Empty(t, entries)
}
