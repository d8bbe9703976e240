package checkpoint_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint/drive"
	"outlast/checkpoint/drivetest"
)

// inDrive opens a store of a server, with a journal of its own.
func inDrive(t *testing.T, server *drivetest.Server) *drive.Store {
	t.Helper()
	store, err := drive.New(t.Context(), drive.Config{
		Folder: "Outlast", Endpoint: server.URL, Journal: filepath.Join(t.TempDir(), "journal"), Pause: time.Millisecond,
	})
	require.NoError(t, err)
	t.Cleanup(func() { store.Close() }) //nolint:errcheck // nothing depends on it
	return store
}

// What a checkpoint of three files costs beside the old one's removal: a request
// for each file, its folders, its manifest and the records. That the run is still
// ours is asked twice, without reading anything.
func TestRequestsOfACheckpointInTheDrive(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{})
	w := takeOver(t, newRig(t, inDrive(t, server), 1), "a")
	for step := range int64(4) {
		server.ResetCounts()
		w.save(t, step+1, fmt.Sprint(step))
		w.flush(t)
	}
	t.Logf("%d requests", server.Count(""))
	require.LessOrEqual(t, server.Count(""), 20)
	require.Zero(t, server.Count(drivetest.OpDownload))
	require.Equal(t, 2, server.Count(drivetest.OpGet))
	require.Equal(t, 4, server.Count(drivetest.OpCreate))
}

// A large log that Drive loses the first bytes of is sent again at once: it is
// read from the disk, which can go back.
func TestLargeRecordIsReadAgain(t *testing.T) {
	const mib = 1 << 20
	server := drivetest.Start(t, drivetest.Options{})
	store, err := drive.New(t.Context(), drive.Config{
		Folder: "Outlast", Endpoint: server.URL, Journal: filepath.Join(t.TempDir(), "journal"), Pause: time.Millisecond, Chunk: mib,
	})
	require.NoError(t, err)
	defer store.Close() //nolint:errcheck // nothing depends on it
	r := newRig(t, store, 1)
	write(t, r.Dir, files{"ledger.jsonl": strings.Repeat("{}\n", 4*mib)})
	server.Inject(drivetest.Fault{Op: drivetest.OpSend, Kind: drivetest.Expire404, Skip: 10})
	w := takeOver(t, r, "a")
	w.flush(t)
	require.Equal(t, 2, server.Count(drivetest.OpOpen))
	require.Equal(t, 1, server.Injected(drivetest.Expire404))
}

// While no listing shows yet that another runtime has taken the run over, the
// one before it is fenced all the same.
func TestListingsThatLagDoNotHideATakeover(t *testing.T) {
	const lag = time.Hour
	server := drivetest.Start(t, drivetest.Options{Lag: lag, ListLag: lag})
	open := func() *drive.Store {
		s, err := drive.New(t.Context(), drive.Config{Folder: "Outlast", Endpoint: server.URL, Pause: time.Millisecond})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		return s
	}
	a := takeOver(t, newRig(t, open(), 3), "a")
	a.save(t, 10, "a")
	a.flush(t)
	server.Advance(2 * lag)
	b, _ := onAnother(t, open(), "b")
	b.flush(t)

	a.save(t, 20, "a")
	require.Error(t, a.mirror.Flush(t.Context()))
	a.requireFenced(t, b)
	b.save(t, 30, "b")
	b.flush(t)
	require.Contains(t, b.said(), "cnn 30 mirrored")
}

// Who could not remove the claim before it has not taken the run over yet: who
// made that one still finds it, and would go on.
func TestATakeoverThatCouldNotRemoveTheClaimBeforeIt(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{})
	a := takeOver(t, newRig(t, inDrive(t, server), 3), "a")
	a.save(t, 10, "a")
	a.flush(t)
	server.Inject(drivetest.Fault{Op: drivetest.OpDelete, Kind: drivetest.NotYours})
	b, _ := onAnother(t, inDrive(t, server), "b")
	b.flush(t)
	require.Equal(t, 1, server.Injected(drivetest.NotYours))
	a.save(t, 25, "a")
	require.Error(t, a.mirror.Flush(t.Context()))
	a.requireFenced(t, b)
}
