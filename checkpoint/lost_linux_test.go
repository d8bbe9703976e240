package checkpoint_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint/durable"
)

// playSync says what SyncFile says of a file, and of the same file once more.
func playSync(dir string) error {
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, []byte("weights"), 0o644); err != nil {
		return err
	}
	for range 2 {
		_, err := durable.SyncFile(path)
		fmt.Println(errors.Is(err, durable.ErrLost), errors.Is(err, syscall.EIO))
	}
	return nil
}

// A sync that has failed is told apart from other failures: the next one says
// that all is well, whatever became of the content.
func TestASyncThatFailsHasLostTheContent(t *testing.T) {
	if !canFail {
		t.Skip("the calls of a process cannot be made to fail here")
	}
	dir := t.TempDir()
	failed := false
	tr := &trace{dir: dir, stop: func(int) bool { return false }}
	tr.fails = func(nr uint64) bool {
		first := nr == syscall.SYS_FSYNC && !failed
		failed = failed || first
		return first
	}
	status := tr.run(t, "sync")
	require.True(t, status.Exited() && status.ExitStatus() == 0, "%v", status)
	require.Equal(t, []string{"true true", "false false"}, ackedDeeds(t, dir))
}
