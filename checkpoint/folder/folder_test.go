package folder_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/checkpointtest"
	"outlast/checkpoint/durable"
	"outlast/checkpoint/folder"
)

func TestFolderIsAStore(t *testing.T) {
	checkpointtest.TestStore(t, func(t *testing.T) checkpoint.Store {
		return open(t, filepath.Join(t.TempDir(), "made", "when missing"))
	})
}

func TestLinkedFolderIsAStore(t *testing.T) {
	checkpointtest.TestStore(t, func(t *testing.T) checkpoint.Store {
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(t.TempDir(), link); err != nil {
			t.Skip("no links here:", err)
		}
		return open(t, link)
	})
}

func open(t *testing.T, path string) *folder.Store {
	t.Helper()
	s, err := folder.New(path)
	require.NoError(t, err)
	return s
}

func put(t *testing.T, s checkpoint.Store, name, content string) error {
	t.Helper()
	d, err := s.Put(t.Context(), name, strings.NewReader(content), durable.Digest{Size: int64(len(content))})
	if err == nil {
		require.Equal(t, checkpoint.Handed, d, "a folder confirms nothing")
	}
	return err
}

func TestParse(t *testing.T) {
	for name, test := range map[string]struct {
		url  string
		path string
		ok   bool
	}{
		"absolute path":         {"/mnt/drive", "/mnt/drive", true},
		"relative path":         {"backup/runs", "backup/runs", true},
		"a colon further on":    {"./odd:name", "./odd:name", true},
		"colon behind a slash":  {"runs/10:30", "runs/10:30", true},
		"Windows drive":         {`D:\runs`, `D:\runs`, true},
		"file, one slash":       {"file:/mnt/drive", "/mnt/drive", true},
		"file, three slashes":   {"file:///mnt/drive", "/mnt/drive", true},
		"file, relative":        {"file:runs", "runs", true},
		"a path with blanks":    {"/content/drive/My Drive", "/content/drive/My Drive", true},
		"nothing":               {"", "", false},
		"file of nothing":       {"file:", "", false},
		"file, slashes only":    {"file://", "", false},
		"another kind of store": {"gdrive:outlast", "", false},
		"another kind, slashes": {"s3://bucket/outlast", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			path, ok := folder.Parse(test.url)
			require.Equal(t, test.ok, ok)
			require.Equal(t, test.path, path)
		})
	}
}

func TestAccessErrorCarriesACure(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	locked := filepath.Join(t.TempDir(), "locked")
	require.NoError(t, os.Mkdir(locked, 0o555))
	for name, path := range map[string]string{
		"a file is in the way":       file,
		"a file is in the way above": filepath.Join(file, "below"),
		"may not be written to":      locked,
		"may not be made":            filepath.Join(locked, "below"),
	} {
		t.Run(name, func(t *testing.T) {
			if strings.HasPrefix(path, locked) && os.Getuid() <= 0 {
				t.Skip("root and Windows may write there")
			}
			_, err := folder.New(path)
			var access *folder.AccessError
			require.ErrorAs(t, err, &access)
			require.Equal(t, path, access.Path)
			require.Error(t, access.Unwrap())
			require.Contains(t, err.Error(), path)
			require.NotEmpty(t, access.Cure())
		})
	}
}

func TestNewLeavesNoProbe(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestNamesStayInside(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "store"))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "secret"), []byte("secret"), 0o644))
	for _, name := range []string{"../secret", "a/../../secret", "/etc/hostname", "..", ".", "a/..", ""} {
		require.Error(t, put(t, s, name, "overwritten"), "put %q", name)
		_, err := s.Get(t.Context(), name)
		require.Error(t, err, "get %q", name)
		require.Error(t, s.Delete(t.Context(), name), "delete %q", name)
	}
	_, err := s.List(t.Context(), "../")
	require.Error(t, err)
	require.DirExists(t, filepath.Join(dir, "store"))
	content, err := os.ReadFile(filepath.Join(dir, "secret"))
	require.NoError(t, err)
	require.Equal(t, "secret", string(content))
}

func TestDeleteTidiesUp(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	require.NoError(t, put(t, s, "run/models/cnn/checkpoints/40/model.pt", "m"))
	require.NoError(t, put(t, s, "run/run.json", "{}"))
	require.NoError(t, s.Delete(t.Context(), "run/models/cnn/checkpoints/40/model.pt"))
	require.NoDirExists(t, filepath.Join(dir, "run", "models"))
	require.NoError(t, s.Delete(t.Context(), "run/run.json"))
	require.NoDirExists(t, filepath.Join(dir, "run"))
	require.DirExists(t, dir)
}

// What a crash left of a write costs space for two days, and is never shown.
func TestLeftoversAreHiddenThenRemoved(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	fresh := filepath.Join(dir, "run", "40", "model.pt"+durable.TempMark+"1")
	old := filepath.Join(dir, "run", "20", "model.pt"+durable.TempMark+"2")
	for _, path := range []string{fresh, old} {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte("half"), 0o644))
	}
	then := time.Now().Add(-72 * time.Hour)
	require.NoError(t, os.Chtimes(old, then, then))

	entries, err := s.List(t.Context(), "run/")
	require.NoError(t, err)
	require.Empty(t, entries)
	require.FileExists(t, fresh)
	require.NoDirExists(t, filepath.Dir(old))
}

func TestFilesOfOthersAreListed(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("mine"), 0o644))
	entries, err := s.List(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, []checkpoint.Entry{{Name: "notes.txt", Size: 4}}, entries)
}
