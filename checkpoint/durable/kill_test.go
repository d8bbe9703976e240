package durable_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint/durable"
)

// The test binary plays other processes if this names a function and a folder.
const playVariable = "OUTLAST_TEST_PLAY"

func TestMain(m *testing.M) {
	role, dir, _ := strings.Cut(os.Getenv(playVariable), ":")
	switch role {
	case "":
		os.Exit(m.Run())
	case "writer":
		writeForever(dir)
	case "filler":
		fill(dir)
	}
}

// play returns the command that has this binary play a role in dir.
func play(t *testing.T, role, dir string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), playVariable+"="+role+":"+dir)
	cmd.Stderr = os.Stderr
	return cmd
}

// A process that is killed at any time leaves whole files only: each is the last
// that WriteFile has returned from, or the one that it was at.
func TestKilledWriterLeavesWholeFiles(t *testing.T) {
	kills := 25
	if testing.Short() {
		kills = 8
	}
	dir := t.TempDir()
	leftovers := 0
	for range kills {
		written := killWriter(t, dir)
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if durable.IsTemp(d.Name()) {
				leftovers++
				return nil
			}
			name, err := filepath.Rel(dir, path)
			require.NoError(t, err)
			n := requireWhole(t, path)
			require.GreaterOrEqual(t, n, written[name], "%s lost what had been written", name)
			delete(written, name)
			return nil
		})
		require.NoError(t, err)
		require.Empty(t, written, "files that had been written are gone")
		if rand.N(2) == 0 { // the next writer finds leftovers half of the time
			require.NoError(t, durable.Sweep(dir))
		}
	}
	t.Logf("%d kills, %d leftovers", kills, leftovers)
	require.NoError(t, durable.Sweep(dir))
	require.NoError(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		require.False(t, durable.IsTemp(path), path)
		return err
	}))
}

// killWriter starts a writer, kills it at a random time, and returns the number
// of the last content of each file that it had been told is written.
func killWriter(t *testing.T, dir string) map[string]int {
	t.Helper()
	cmd := play(t, "writer", dir)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	written := map[string]int{}
	var timer *time.Timer
	for in := bufio.NewScanner(out); in.Scan(); { // until the kill
		if timer == nil { // it has begun
			timer = time.AfterFunc(rand.N(60*time.Millisecond), func() { cmd.Process.Kill() }) //nolint:errcheck // Wait tells
		}
		number, name, ok := strings.Cut(in.Text(), " ")
		if n, err := strconv.Atoi(number); ok && err == nil && strings.HasSuffix(name, ".") {
			written[filepath.FromSlash(strings.TrimSuffix(name, "."))] = n
		}
	}
	require.NotNil(t, timer, "the writer has written nothing")
	require.Error(t, cmd.Wait(), "it was killed")
	return written
}

// writeForever writes files until it is killed, and says so of each.
func writeForever(dir string) {
	start := int(time.Now().UnixMicro()) // later writers have higher numbers
	for n := start; ; n++ {
		name := fmt.Sprintf("%d/%d/file", n%3, n%5)
		content := whole(n)
		want := durable.Digest{Size: int64(len(content))}
		if _, err := durable.WriteFile(filepath.Join(dir, filepath.FromSlash(name)), bytes.NewReader(content), &want); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Printf("%d %s.\n", n, name)
	}
}

// whole returns a content that tells whether it is whole: its number, bytes, and
// the SHA-256 of both.
func whole(n int) []byte {
	content := fmt.Appendf(nil, "%d\n", n)
	content = append(content, bytes.Repeat([]byte{byte(n)}, (n%7)*20_000)...)
	sum := sha256.Sum256(content)
	return append(content, sum[:]...)
}

func requireWhole(t *testing.T, path string) (n int) {
	t.Helper()
	content := readFile(t, path)
	first, _, ok := bytes.Cut(content, []byte("\n"))
	require.True(t, ok, "%s has only %d bytes", path, len(content))
	n, err := strconv.Atoi(string(first))
	require.NoError(t, err, path)
	require.True(t, bytes.Equal(whole(n), content), "%s is not whole", path)
	return n
}
