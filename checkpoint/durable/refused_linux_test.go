package durable

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Where a write past the page cache is refused, as at an offset that is none of
// the device's, the bytes take the ordinary way.
func TestBypassThatIsRefused(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	b := &bypass{f: f}
	want := []byte("x")
	n, err := b.Write(want)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	for fill := range byte(3) {
		block := newBlock()
		for i := range block {
			block[i] = fill
		}
		n, err := b.Write(block)
		require.NoError(t, err)
		require.Equal(t, len(block), n)
		want = append(want, block...)
	}
	got, err := os.ReadFile(f.Name())
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
}
