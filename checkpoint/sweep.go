package checkpoint

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"outlast/checkpoint/durable"
)

// manifestFirst orders names so that a manifest comes before the rest.
func manifestFirst(a, b string) int {
	isManifest := func(name string) int {
		if path.Base(name) == ManifestName {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(isManifest(a), isManifest(b)), strings.Compare(a, b))
}

// halfSuffix marks a folder that is being filled.
const halfSuffix = ".half"

// SweepHalf removes what an interrupted save, restore or copy left in a run's
// folder. Nobody may be working there.
func SweepHalf(run string) error {
	if err := os.RemoveAll(filepath.Join(run, "outbox")); err != nil {
		return err
	}
	below := os.DirFS(run) // its own name is no pattern
	halves, err := fs.Glob(below, path.Join(modelsName, "*", "*"+halfSuffix))
	if err != nil {
		return err
	}
	more, err := fs.Glob(below, path.Join(modelsName, "*", checkpointsName, "*"+halfSuffix))
	if err != nil {
		return err
	}
	for _, h := range append(halves, more...) {
		if err := os.RemoveAll(filepath.Join(run, filepath.FromSlash(h))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return durable.Sweep(run)
}
