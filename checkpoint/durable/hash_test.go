package durable_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/checkpoint/durable"
)

// sizes are those around the borders of the blocks in which content is copied.
func sizes() []int {
	const small, large = 64 << 10, 512 << 10
	return []int{0, 1, small - 1, small, small + 1, small + large - 1, small + large, small + large + 1, small + 9*large + 7}
}

func random(size int) []byte {
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{byte(size)}).Read(data) //nolint:errcheck // it never fails
	return data
}

// Whatever the size, and however the reader deals its bytes out, each of the
// ways to a digest finds the same one, and the file has the same bytes.
func TestDigestsAreThoseOfTheContent(t *testing.T) {
	for _, size := range sizes() {
		data := random(size)
		sum := sha256.Sum256(data)
		want := durable.Digest{Size: int64(size), SHA256: hex.EncodeToString(sum[:])}
		for name, r := range map[string]io.Reader{
			"at once":             bytes.NewReader(data),
			"by halves":           iotest.HalfReader(bytes.NewReader(data)),
			"the end with data":   iotest.DataErrReader(bytes.NewReader(data)),
			"nothing in between":  &stuttering{r: bytes.NewReader(data)},
			"from another reader": io.MultiReader(bytes.NewReader(data[:size/2]), bytes.NewReader(data[size/2:])),
		} {
			t.Run(fmt.Sprintf("%d %s", size, name), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "file")
				written, err := durable.WriteFile(path, r, &want)
				require.NoError(t, err)
				written.Synced = false
				require.Equal(t, want, written)
				require.True(t, bytes.Equal(data, readFile(t, path)))
				made, err := durable.NewFile(path+"-new", bytes.NewReader(data))
				require.NoError(t, err)
				made.Synced = false
				require.Equal(t, want, made)
				require.True(t, bytes.Equal(data, readFile(t, path+"-new")))
				hashed, err := durable.HashFile(path)
				require.NoError(t, err)
				require.Equal(t, want, hashed)
				synced, err := durable.SyncFile(path)
				require.NoError(t, err)
				synced.Synced = false
				require.Equal(t, want, synced)
			})
		}
	}
}

// stuttering is a reader that has nothing every other time.
type stuttering struct {
	r   io.Reader
	odd bool
}

func (s *stuttering) Read(p []byte) (int, error) {
	if s.odd = !s.odd; s.odd {
		return 0, nil
	}
	return s.r.Read(p)
}

// A connection that was cut is no end, at whatever byte and in whatever words.
func TestWriteFileTakesACutConnectionForAnError(t *testing.T) {
	for _, cut := range []error{
		io.ErrUnexpectedEOF, errors.New("reset"), fmt.Errorf("get https://example.com: %w", io.EOF),
	} {
		for _, size := range sizes() {
			dir := t.TempDir()
			r := io.MultiReader(bytes.NewReader(random(size)), iotest.ErrReader(cut))
			_, err := durable.WriteFile(filepath.Join(dir, "file"), r, nil)
			assert.ErrorIs(t, err, cut, "after %d bytes", size)
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			assert.Empty(t, entries, "after %d bytes", size)
		}
	}
}

// A name may be as long as the file system lets it be.
func TestWriteFileOfALongName(t *testing.T) {
	for name, base := range map[string]string{
		"ascii":     strings.Repeat("n", 255),
		"multibyte": strings.Repeat("ä", 127),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), base)
			_, err := durable.WriteFile(path, strings.NewReader("content"), nil)
			require.NoError(t, err)
			require.Equal(t, "content", string(readFile(t, path)))
		})
	}
}

func TestHashReportsAReadersError(t *testing.T) {
	broken := errors.New("broken")
	_, err := durable.Hash(io.MultiReader(bytes.NewReader(random(1<<20)), iotest.ErrReader(broken)))
	require.ErrorIs(t, err, broken)
	_, err = durable.SyncFile(t.TempDir())
	require.Error(t, err, "a folder has no content")
}
