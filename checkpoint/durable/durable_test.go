package durable_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint/durable"
)

func TestWriteFileReturnsWhatItWrote(t *testing.T) {
	for name, content := range map[string][]byte{
		"empty":                {},
		"short":                []byte("abc"),
		"larger than a buffer": bytes.Repeat([]byte("0123456789"), 1<<17),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "folders", "are made", "file")
			d, err := durable.WriteFile(path, bytes.NewReader(content), nil)
			require.NoError(t, err)
			sum := sha256.Sum256(content)
			require.Equal(t, int64(len(content)), d.Size)
			require.Equal(t, hex.EncodeToString(sum[:]), d.SHA256)
			require.Equal(t, content, readFile(t, path))
			info, err := os.Stat(path)
			require.NoError(t, err)
			require.NotZero(t, info.Mode().Perm()&0o044, "a shared folder is for others too")

			hashed, err := durable.HashFile(path)
			require.NoError(t, err)
			require.True(t, hashed.Matches(d))
			synced, err := durable.SyncFile(path)
			require.NoError(t, err)
			require.Equal(t, d, synced)
		})
	}
}

func TestNewFileWritesOverNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	d, err := durable.NewFile(path, strings.NewReader("abc"))
	require.NoError(t, err)
	require.True(t, d.Matches(*digest("abc")))
	require.True(t, d.Synced)
	_, err = durable.NewFile(path, strings.NewReader("another"))
	require.ErrorIs(t, err, fs.ErrExist)
	require.Equal(t, "abc", string(readFile(t, path)))
	_, err = durable.NewFile(path+"2", failing{io.ErrUnexpectedEOF})
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}

func TestDigestMatches(t *testing.T) {
	got := durable.Digest{Size: 3, SHA256: "aa", Synced: true}
	for name, test := range map[string]struct {
		want    durable.Digest
		matches bool
	}{
		"equal":            {durable.Digest{Size: 3, SHA256: "aa"}, true},
		"SHA-256 unknown":  {durable.Digest{Size: 3}, true},
		"another SHA-256":  {durable.Digest{Size: 3, SHA256: "bb"}, false},
		"another size":     {durable.Digest{Size: 4, SHA256: "aa"}, false},
		"nothing but zero": {durable.Digest{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.matches, got.Matches(test.want))
		})
	}
}

// Whatever goes wrong, the path keeps what it had and nothing lies beside it.
func TestWriteFileKeepsTheOldContentOnError(t *testing.T) {
	broken := errors.New("the source is broken")
	for name, test := range map[string]struct {
		source string
		end    error // of the source, behind its content
		want   *durable.Digest
		err    error
	}{
		"the source fails":      {"ne", broken, nil, broken},
		"the source is shorter": {"ne", io.EOF, digest("new"), durable.ErrContent},
		"the source is longer":  {"newer", io.EOF, digest("new"), durable.ErrContent},
		"another content":       {"old", io.EOF, digest("new"), durable.ErrContent},
		"another size alone":    {"new", io.EOF, &durable.Digest{Size: 4}, durable.ErrContent},
	} {
		t.Run(name, func(t *testing.T) {
			source := func() io.Reader { return io.MultiReader(strings.NewReader(test.source), failing{test.end}) }
			dir := t.TempDir()
			path := filepath.Join(dir, "file")

			_, err := durable.WriteFile(path, source(), test.want)
			require.ErrorIs(t, err, test.err)
			require.Empty(t, names(t, dir))

			require.NoError(t, os.WriteFile(path, []byte("old"), 0o644))
			_, err = durable.WriteFile(path, source(), test.want)
			require.ErrorIs(t, err, test.err)
			require.Equal(t, []string{"file"}, names(t, dir))
			require.Equal(t, "old", string(readFile(t, path)))
		})
	}
}

func TestWriteFileLeavesNothingWhenItCannotRename(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "folder")
	require.NoError(t, os.MkdirAll(filepath.Join(path, "full"), 0o755))
	_, err := durable.WriteFile(path, strings.NewReader("new"), nil)
	require.Error(t, err)
	require.Equal(t, []string{"folder"}, names(t, dir))
}

// The old content is there until the very moment in which the new one is.
func TestWriteFileIsNotSeenHalf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o644))
	looks := 0
	look := reading(func() {
		looks++
		require.Equal(t, "old", string(readFile(t, path)))
	})
	r := io.MultiReader(look, strings.NewReader("half"), look, strings.NewReader("whole"), look)
	_, err := durable.WriteFile(path, r, nil)
	require.NoError(t, err)
	require.Equal(t, 3, looks)
	require.Equal(t, "halfwhole", string(readFile(t, path)))
}

func TestWriteJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "below", "value.json")
	require.NoError(t, durable.WriteJSON(path, map[string]int{"step": 40}))
	require.Equal(t, "{\n  \"step\": 40\n}\n", string(readFile(t, path)))
	require.Error(t, durable.WriteJSON(path, func() {}))
	require.Equal(t, "{\n  \"step\": 40\n}\n", string(readFile(t, path)))
}

func TestMkdirAll(t *testing.T) {
	dir := t.TempDir()
	deep := filepath.Join(dir, "a", "b", "c")
	require.NoError(t, durable.MkdirAll(deep))
	require.DirExists(t, deep)
	require.NoError(t, durable.MkdirAll(deep), "it is there already")
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	require.Error(t, durable.MkdirAll(file))
	require.Error(t, durable.MkdirAll(filepath.Join(file, "below")))
}

func TestRename(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "made", "to")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "from"), []byte("content"), 0o644))
	require.NoError(t, durable.Rename(from, to))
	require.NoFileExists(t, from)
	require.Equal(t, "content", string(readFile(t, to)))
	require.ErrorIs(t, durable.Rename(from, to), os.ErrNotExist)
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	leftovers := []string{"model.pt" + durable.TempMark + "123", "a/b/manifest.json" + durable.TempMark + "9"}
	files := []string{"model.pt", "a/b/manifest.json", "a/outlast-tmp.txt"}
	for _, name := range append(leftovers, files...) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, durable.MkdirAll(filepath.Dir(path)))
		require.NoError(t, os.WriteFile(path, []byte(name), 0o644))
		require.Equal(t, strings.Contains(name, durable.TempMark), durable.IsTemp(filepath.Base(name)))
	}
	require.NoError(t, durable.Sweep(dir))
	for _, name := range leftovers {
		require.NoFileExists(t, filepath.Join(dir, name))
	}
	for _, name := range files {
		require.Equal(t, name, string(readFile(t, filepath.Join(dir, name))))
	}
	require.NoError(t, durable.Sweep(dir), "nothing is left to do")
	require.NoError(t, durable.Sweep(filepath.Join(dir, "missing")))
}

// failing is a reader that only fails.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// reading is an empty reader that calls a function when it is read.
type reading func()

func (f reading) Read([]byte) (int, error) {
	f()
	return 0, io.EOF
}

func digest(content string) *durable.Digest {
	sum := sha256.Sum256([]byte(content))
	return &durable.Digest{Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	list := []string{}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return content
}
