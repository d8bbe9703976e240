package checkpoint_test

import (
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/drivetest"
)

// driveDesk makes the folder of a process that saves and mirrors to a Drive, and
// that Drive.
func driveDesk(t *testing.T) (dir string, server *drivetest.Server) {
	t.Helper()
	dir, server = t.TempDir(), drivetest.Start(t, drivetest.Options{})
	write(t, dir, files{addressName: server.URL})
	write(t, filepath.Join(dir, "runs", run), files{
		"run.json": `{"models":[{"name":"cnn","fingerprint":"` + print + `"}]}`, "ledger.jsonl": "{}\n",
		"models/cnn/metrics.jsonl": "{}\n",
	})
	return dir, server
}

// killedAt runs a process that saves and mirrors, and kills it before the n-th
// call that changes a file or sends something; 0: never. It returns how many
// calls there were.
func killedAt(t *testing.T, dir string, n int) (calls int) {
	t.Helper()
	tr := &trace{dir: dir, nets: true, stop: func(at int) bool { return at == n }}
	status := tr.run(t, "mirror")
	if status.Signaled() {
		require.Equal(t, syscall.SIGKILL, status.Signal())
	} else {
		require.Zero(t, status.ExitStatus(), "it ends as it should: %v", status)
	}
	return tr.calls
}

// A process that saves and copies to the Drive is killed before any of its system
// calls: of those that change its files, journal included, and of those that
// send. What it was told is mirrored is found whole by another machine; the next
// process here goes on, believes its journal as far as it is true, and nothing
// is there twice.
func TestKilledAtAnyCallOfASaveToTheDrive(t *testing.T) {
	dir, server := driveDesk(t)
	calls := killedAt(t, dir, 0)
	requireGoodInStore(t, dir)
	requireNothingTwice(t, server)
	require.Greater(t, server.Count(drivetest.OpSend), 5, "large files are sent in pieces")

	at := map[int]bool{}
	if flag.Lookup(sweepFlag).Value.String() == "true" {
		for n := range calls {
			at[n+1] = true
		}
	}
	for range oneOf(24, 6) {
		at[1+rand.N(calls)] = true
	}
	t.Logf("%d calls, killed at %d", calls, len(at))
	for n := range at {
		dir, server := driveDesk(t)
		killedAt(t, dir, n)
		requireGoodInStore(t, dir)
		requireNothingTwice(t, server)
		require.NoError(t, os.RemoveAll(dir))
		if t.Failed() {
			t.Logf("killed at %d of %d", n, calls)
			return
		}
	}
}

// requireNothingTwice requires that each file is in the Drive once, and no
// upload has left a file that no manifest would name.
func requireNothingTwice(t *testing.T, server *drivetest.Server) {
	t.Helper()
	there := map[string]int{}
	for _, f := range server.Files() {
		if f.Trashed {
			continue
		}
		there[f.Path]++
		require.Equal(t, 1, there[f.Path], "%s is there twice", f.Path)
		require.True(t, f.Folder || strings.HasPrefix(f.Path, "Outlast/"+run+"/"), "%s is nobody's", f.Path)
	}
	require.NotEmpty(t, there)
}

// A runtime that was suspended at any call of a save goes on when another one
// has taken the run over: it notices before it publishes, and whoever restores
// the run gets the other one's work.
func TestSuspendedOwnerIsFencedByTheDrive(t *testing.T) {
	for range oneOf(6, 2) {
		dir, _ := driveDesk(t)
		at := rand.N(700) // of some thousand
		taken := false
		tr := &trace{dir: dir, nets: true}
		tr.stop = func(n int) bool {
			if save, _ := acked(t, dir); !taken && n >= at && save != "" { // before that there is no run yet
				taken = true
				takeOverAndSave(t, dir)
			}
			return false
		}
		status := tr.run(t, "mirror")
		require.True(t, taken)
		require.Equal(t, 1, status.ExitStatus(), "it says that another runtime has taken over: %v", status)
		store, err := storeIn(dir, "")
		require.NoError(t, err)
		fresh := t.TempDir()
		_, err = checkpoint.Restore(t.Context(), store, run, fresh)
		closeStore(t, store)
		require.NoError(t, err)
		found, _, err := keeperIn(fresh, 1).Newest(model, print)
		require.NoError(t, err)
		requireCheckpoint(t, found.Path, 100, content("the other one"))
	}
}

// takeOverAndSave takes the run over on another machine, and saves there.
func takeOverAndSave(t *testing.T, dir string) {
	t.Helper()
	store, err := storeIn(dir, "")
	require.NoError(t, err)
	defer closeStore(t, store)
	other, _ := onAnother(t, store, "b")
	other.save(t, 100, "the other one")
	other.flush(t)
}
