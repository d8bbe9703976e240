package checkpointtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/durable"
)

// TestStore checks what the contract of checkpoint.Store promises, and nothing
// that it does not. Each call of open returns an empty store that nobody else
// uses, and has it closed when its test ends.
func TestStore(t *testing.T, open func(t *testing.T) checkpoint.Store) {
	t.Helper()
	for name, test := range map[string]func(t *testing.T, s checkpoint.Store){
		"put and get":                    testRoundTrip,
		"put replaces":                   testReplace,
		"put says handed or mirrored":    testDurability,
		"put refuses other content":      testRefuse,
		"put of a reader that fails":     testBrokenReader,
		"get of what is not there":       testNotFound,
		"list":                           testList,
		"list of nothing":                testListNothing,
		"delete":                         testDelete,
		"a half put is not visible":      testHalfPut,
		"a half replacement neither":     testHalfReplacement,
		"a context that has ended":       testEnded,
		"a context that ends in a put":   testEndsInPut,
		"many goroutines, many names":    testManyNames,
		"many goroutines, one name":      testOneName,
		"put beside delete in one place": testPutBesideDelete,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func testRoundTrip(t *testing.T, s checkpoint.Store) {
	for name, content := range map[string][]byte{
		"run.json": []byte("{}"),
		"empty":    {},
		"digits/models/cnn/checkpoints/40/model.pt": bytes.Repeat([]byte("weights\x00"), 1<<17),
		"digits/models/cnn/checkpoints/40/a/b/c/d":  []byte("deep"),
		"a run/models/b-2_c/my model (best).pt":     []byte("blanks and brackets"),
		"digits/models/cnn/log.txt":                 []byte("line\r\nline\n"),
	} {
		require.NoError(t, put(t, s, name, content), name)
		require.Equal(t, content, get(t, s, name), name)
	}
	_, err := s.Put(t.Context(), "size only", bytes.NewReader([]byte("12345")), durable.Digest{Size: 5})
	require.NoError(t, err)
	require.Equal(t, []byte("12345"), get(t, s, "size only"))
}

func testReplace(t *testing.T, s checkpoint.Store) {
	for _, content := range []string{"first", "the second is longer", "", "3"} {
		require.NoError(t, put(t, s, "a/file", []byte(content)))
		require.Equal(t, content, string(get(t, s, "a/file")))
	}
	require.Equal(t, map[string]int64{"a/file": 1}, list(t, s, ""))
}

func testDurability(t *testing.T, s checkpoint.Store) {
	d, err := s.Put(t.Context(), "file", bytes.NewReader([]byte("content")), digestOf([]byte("content")))
	require.NoError(t, err)
	require.Contains(t, []checkpoint.Durability{checkpoint.Handed, checkpoint.Mirrored}, d)
}

func testRefuse(t *testing.T, s checkpoint.Store) {
	content := []byte("content")
	good := digestOf(content)
	require.NoError(t, put(t, s, "kept", []byte("old")))
	for name, want := range map[string]durable.Digest{
		"too short":                  {Size: good.Size + 1, SHA256: good.SHA256},
		"too short, SHA-256 unknown": {Size: good.Size + 1},
		"too long":                   {Size: good.Size - 1, SHA256: good.SHA256},
		"too long, SHA-256 unknown":  {Size: good.Size - 1},
		"not empty":                  {},
		"another SHA-256":            {Size: good.Size, SHA256: digestOf([]byte("CONTENT")).SHA256},
	} {
		for _, target := range []string{"new/file", "kept"} {
			_, err := s.Put(t.Context(), target, bytes.NewReader(content), want)
			assert.Error(t, err, "%s: %s", name, target)
		}
	}
	requireNotFound(t, s, "new/file")
	require.Equal(t, "old", string(get(t, s, "kept")))
	require.Equal(t, map[string]int64{"kept": 3}, list(t, s, ""))
}

func testBrokenReader(t *testing.T, s checkpoint.Store) {
	broken := errors.New("the disk is broken")
	require.NoError(t, put(t, s, "kept", []byte("old")))
	for _, target := range []string{"new/file", "kept"} {
		r := io.MultiReader(bytes.NewReader([]byte("con")), failing{broken})
		_, err := s.Put(t.Context(), target, r, digestOf([]byte("content")))
		require.Error(t, err, target)
	}
	requireNotFound(t, s, "new/file")
	require.Equal(t, map[string]int64{"kept": 3}, list(t, s, ""))
	require.Equal(t, "old", string(get(t, s, "kept")))
}

func testNotFound(t *testing.T, s checkpoint.Store) {
	requireNotFound(t, s, "file")
	requireNotFound(t, s, "no/such/folder/file")
	require.NoError(t, put(t, s, "folder/file", []byte("content")))
	requireNotFound(t, s, "folder")
	requireNotFound(t, s, "folder/fil")
	requireNotFound(t, s, "folder/file2")
	requireNotFound(t, s, "folder/file/below")
}

func testList(t *testing.T, s checkpoint.Store) {
	sizes := map[string]int64{"a/1": 0, "a/2": 2, "a/b/c/3": 3, "ab/4": 4, "b/a/5": 5, "6": 6}
	for name, size := range sizes {
		require.NoError(t, put(t, s, name, make([]byte, size)))
	}
	require.Equal(t, sizes, list(t, s, ""))
	require.Equal(t, map[string]int64{"a/1": 0, "a/2": 2, "a/b/c/3": 3}, list(t, s, "a/"))
	require.Equal(t, map[string]int64{"a/b/c/3": 3}, list(t, s, "a/b/"))
	require.Equal(t, map[string]int64{"b/a/5": 5}, list(t, s, "b/"))
}

func testListNothing(t *testing.T, s checkpoint.Store) {
	require.Empty(t, list(t, s, ""))
	require.Empty(t, list(t, s, "no/such/folder/"))
	require.NoError(t, put(t, s, "file", []byte("content")))
	require.Empty(t, list(t, s, "file/"))
	require.Empty(t, list(t, s, "other/"))
}

func testDelete(t *testing.T, s checkpoint.Store) {
	require.NoError(t, s.Delete(t.Context(), "never/there"))
	sizes := map[string]int64{"a/b/1": 1, "a/b/2": 2, "a/3": 3}
	for name, size := range sizes {
		require.NoError(t, put(t, s, name, make([]byte, size)))
	}
	for _, name := range []string{"a/b/1", "a/3", "a/b/2"} {
		require.NoError(t, s.Delete(t.Context(), name))
		delete(sizes, name)
		requireNotFound(t, s, name)
		require.True(t, maps.Equal(sizes, list(t, s, "")), "after %s", name)
		require.NoError(t, s.Delete(t.Context(), name), "gone already")
	}
	require.NoError(t, put(t, s, "a/b/1", []byte("again")))
	require.Equal(t, "again", string(get(t, s, "a/b/1")))
}

// put stores content under name, with its full digest.
func put(t *testing.T, s checkpoint.Store, name string, content []byte) error {
	t.Helper()
	_, err := s.Put(t.Context(), name, bytes.NewReader(content), digestOf(content))
	return err
}

// get returns what the store has under name.
func get(t *testing.T, s checkpoint.Store, name string) []byte {
	t.Helper()
	content, err := read(t.Context(), s, name)
	require.NoError(t, err)
	return content
}

// read gets a file whole.
func read(ctx context.Context, s checkpoint.Store, name string) ([]byte, error) {
	r, err := s.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(r)
	return content, errors.Join(err, r.Close())
}

// list returns the sizes of the files under prefix, by name.
func list(t *testing.T, s checkpoint.Store, prefix string) map[string]int64 {
	t.Helper()
	entries, err := s.List(t.Context(), prefix)
	require.NoError(t, err)
	sizes := map[string]int64{}
	for _, e := range entries {
		require.NotContains(t, sizes, e.Name, "listed twice")
		sizes[e.Name] = e.Size
	}
	return sizes
}

func requireNotFound(t *testing.T, s checkpoint.Store, name string) {
	t.Helper()
	_, err := read(t.Context(), s, name)
	require.ErrorIs(t, err, checkpoint.ErrNotFound, name)
}

func digestOf(content []byte) durable.Digest {
	sum := sha256.Sum256(content)
	return durable.Digest{Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}
}

// failing is a reader that only fails.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
