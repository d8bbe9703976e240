package checkpoint_test

import (
	"fmt"
	"path/filepath"
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
