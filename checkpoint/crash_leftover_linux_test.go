package checkpoint_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A process that was killed while it removed what had made way leaves the rest of
// that. The next one saves the same step once more: what is good is not lost,
// wherever that one is killed.
func TestCrashAtEachStepOfSaveOverALeftover(t *testing.T) {
	crashIn(t, "save", oneOf(1, 3), func(t *testing.T, dir string) {
		t.Helper()
		k := keeperIn(filepath.Join(dir, "runs"), 1)
		saveAs(t, k, manifest(20), content("20"))
		write(t, checkpoints(k, "20.replaced"), content("20")) // its manifest went first
	}, func(t *testing.T, dir string) {
		t.Helper()
		found, _, err := keeperIn(filepath.Join(dir, "runs"), 1).Newest(model, print)
		require.NoError(t, err)
		require.GreaterOrEqual(t, found.Manifest.Step, int64(20), "it was there before")
		requireGoodOnDisk(t, dir)
	})
}
