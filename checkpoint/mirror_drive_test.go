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

// What a checkpoint of three files costs beside the old one's removal: a request
// for each file, its folders, its manifest and the records. That the run is still
// ours is asked twice, without reading anything.
func TestRequestsOfACheckpointInTheDrive(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{})
	store, err := drive.New(t.Context(), drive.Config{
		Folder: "Outlast", Endpoint: server.URL, Journal: filepath.Join(t.TempDir(), "journal"), Pause: time.Millisecond,
	})
	require.NoError(t, err)
	defer store.Close() //nolint:errcheck // nothing depends on it
	w := takeOver(t, newRig(t, store, 1), "a")
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
