package checkpoint_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/checkpointtest"
)

// A rig is a run with a keeper, a mirror that copies what it saves, and what the
// mirror has said.
type rig struct {
	*checkpoint.Keeper
	mirror *checkpoint.Mirror

	mu   sync.Mutex
	done []string
}

func newRig(t *testing.T, store checkpoint.Store, keep int) *rig {
	t.Helper()
	r := rigIn(t.TempDir(), store, keep)
	write(t, r.Dir, files{
		"run.json":                           `{"format":1,"models":[{"name":"cnn","fingerprint":"` + print + `"}]}`,
		"ledger.jsonl":                       "{}\n",
		"models/" + model + "/metrics.jsonl": "{\"step\":0}\n",
		"models/" + model + "/log.txt":       "hello\n",
	})
	return r
}

// another returns the rig of a later process in the same folder.
func (r *rig) another() *rig {
	return rigIn(r.mirror.Dir, r.mirror.Store, r.mirror.Keep)
}

func rigIn(dir string, store checkpoint.Store, keep int) *rig {
	r := &rig{Keeper: keeperIn(dir, 3)}
	r.mirror = &checkpoint.Mirror{
		Store: store, Dir: dir, Name: run, Keep: keep, Log: slog.New(slog.DiscardHandler), OnDone: r.onDone,
	}
	return r
}

func (r *rig) onDone(model string, step int64, final bool, d checkpoint.Durability) {
	r.mu.Lock()
	defer r.mu.Unlock()
	what := fmt.Sprint(step)
	if final {
		what += " final"
	}
	r.done = append(r.done, fmt.Sprintf("%s %s %s", model, what, d))
}

// said returns the calls of OnDone so far.
func (r *rig) said() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.done)
}

// start runs the mirror until its test ends, or until the function is called.
func (r *rig) start(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.mirror.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-ended, "cancelling is the normal end")
	})
	t.Cleanup(stop)
	return stop
}

// flush waits until everything is copied, and requires that nothing is left.
func (r *rig) flush(t *testing.T) {
	t.Helper()
	require.NoError(t, r.mirror.Flush(t.Context()))
	n, oldest, err := r.mirror.Pending()
	require.NoError(t, err)
	require.Zero(t, n)
	require.Zero(t, oldest)
	require.NoError(t, filepath.WalkDir(filepath.Join(r.Dir, "outbox"), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			return fmt.Errorf("%s is left over", path)
		}
		return nil
	}))
}

// save saves a step and tells the mirror.
func (r *rig) save(t *testing.T, step int64, what string) {
	t.Helper()
	r.mirror.Saved(model, step, save(t, r.Keeper, step, content(what)), false)
}

// finish makes a step final and tells the mirror.
func (r *rig) finish(t *testing.T, step int64, what string) {
	t.Helper()
	r.mirror.Saved(model, step, finished(t, r.Keeper, step, content(what)), true)
}

// inStore returns the name of something below the model in the store.
func inStore(below string) string { return path.Join(run, "models", model, below) }

// stepsInStore returns the steps that the store has a manifest of.
func stepsInStore(s *checkpointtest.Memory) []string {
	var found []string
	for _, name := range s.Names() {
		if rest, ok := strings.CutPrefix(name, inStore("checkpoints")+"/"); ok && path.Base(rest) == checkpoint.ManifestName {
			found = append(found, path.Dir(rest))
		}
	}
	return found
}

// watchWhole collects what is wrong whenever the store shows a checkpoint that
// is not whole.
func watchWhole(s *checkpointtest.Memory) (wrong func() []string) {
	var mu sync.Mutex
	var found []string
	s.Watch(func(all map[string][]byte) {
		mu.Lock()
		defer mu.Unlock()
		for name, data := range all {
			if path.Base(name) != checkpoint.ManifestName {
				continue
			}
			if err := whole(all, path.Dir(name), data); err != nil {
				found = append(found, err.Error())
			}
		}
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return found
	}
}

func whole(all map[string][]byte, dir string, data []byte) error {
	var m checkpoint.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	for _, f := range m.Files {
		name := path.Join(dir, f.Path)
		there, ok := all[name]
		if sum := sha256.Sum256(there); !ok || hex.EncodeToString(sum[:]) != f.SHA256 {
			return fmt.Errorf("%s is not what its manifest says", name)
		}
	}
	return nil
}
