//go:build unix

package durable_test

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint/durable"
)

// fillerLimit is how large the filler's files may get, as on a full disk.
const fillerLimit = 100

// A disk that is full for a while must not leave half a line in the middle: the
// lines behind it would be lost with it.
func TestLogOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	out, err := play(t, "filler", dir).Output()
	require.NoError(t, err)
	require.Equal(t, "refused", string(out))
	require.Equal(t, []string{`"before"`, `"held"`, `"after"`}, lines(t, filepath.Join(dir, "ledger.jsonl")))
	require.Empty(t, leftovers(t, dir), "WriteFile has tidied up")
}

// fill writes to a log what does not fit, then what does.
func fill(dir string) {
	signal.Ignore(syscall.SIGXFSZ)
	limit := syscall.Rlimit{Cur: fillerLimit, Max: fillerLimit}
	err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit)
	must(err)
	l, err := durable.OpenLog(filepath.Join(dir, "ledger.jsonl"))
	must(err)
	must(l.Append("before"))
	must(l.Hold("held"))
	tooLong := strings.Repeat("x", fillerLimit)
	if l.Append(tooLong) != nil {
		fmt.Print("refused")
	}
	must(l.Append("after"))
	must(l.Close())
	if _, err := durable.WriteFile(filepath.Join(dir, "file"), strings.NewReader(tooLong+"x"), nil); err == nil {
		must(fmt.Errorf("more than the limit was written"))
	}
	os.Exit(0)
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func leftovers(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	for _, name := range names(t, dir) {
		if name != "ledger.jsonl" {
			found = append(found, name)
		}
	}
	return found
}
