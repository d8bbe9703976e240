package durable_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"outlast/checkpoint/durable"
)

// What was only made safe takes none of the machine's memory.
func TestNewFileLeavesThePageCacheAlone(t *testing.T) {
	dir := t.TempDir()
	if probe, err := os.OpenFile(filepath.Join(dir, "probe"), os.O_CREATE|os.O_WRONLY|unix.O_DIRECT, 0o644); err == nil {
		require.NoError(t, probe.Close())
	} else {
		t.Skip("this file system has no way past the page cache: ", err)
	}
	data := random(16<<20 + 12345)
	path := filepath.Join(dir, "new")
	d, err := durable.NewFile(path, bytes.NewReader(data))
	require.NoError(t, err)
	sum := sha256.Sum256(data)
	require.Equal(t, durable.Digest{Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:]), Synced: true}, d)
	require.Less(t, cached(t, path), 1<<20)
	require.True(t, bytes.Equal(data, readFile(t, path)))

	_, err = durable.WriteFile(path, bytes.NewReader(data), nil)
	require.NoError(t, err)
	require.Greater(t, cached(t, path), 15<<20, "what is restored is read next")
}

// cached returns how many bytes of a file are in the page cache; see mincore(2).
func cached(t *testing.T, path string) int {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close() //nolint:errcheck // it was only read
	info, err := f.Stat()
	require.NoError(t, err)
	pages, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	require.NoError(t, err)
	defer unix.Munmap(pages) //nolint:errcheck // it ends with the process
	size := os.Getpagesize()
	in := make([]byte, (len(pages)+size-1)/size)
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, address(pages), uintptr(len(pages)), address(in))
	require.Zero(t, errno)
	n := 0
	for _, page := range in {
		n += int(page&1) * size
	}
	return n
}

func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }
