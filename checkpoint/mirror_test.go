package checkpoint_test

import (
	"context"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/checkpointtest"
	"outlast/checkpoint/durable"
	"outlast/checkpoint/folder"
)

func TestMirrorCopiesEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(checkpointtest.Memory)
		r := newRig(t, s, 3)
		r.start(t)
		r.mirror.Touch("run.json", "ledger.jsonl", "missing.txt")
		r.save(t, 10, "10")
		r.flush(t)
		r.finish(t, 20, "20")
		r.flush(t)

		want := []string{run + "/run.json", run + "/ledger.jsonl", inStore("metrics.jsonl"), inStore("log.txt")}
		for _, dir := range []string{"checkpoints/10", "final"} {
			for name := range content("") {
				want = append(want, inStore(dir+"/"+name))
			}
			want = append(want, inStore(dir+"/"+checkpoint.ManifestName))
		}
		slices.Sort(want)
		require.Equal(t, want, s.Names())
		for _, name := range want {
			local, err := os.ReadFile(filepath.Join(filepath.Dir(r.Dir), filepath.FromSlash(name)))
			require.NoError(t, err)
			require.Equal(t, string(local), stored(t, s, name), name)
		}
		require.Equal(t, []string{"cnn 10 mirrored", "cnn 20 final mirrored"}, r.said())
	})
}

// The order in the store: a checkpoint's files, the model's records, the
// manifest.
func TestMirrorPutsTheManifestLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(checkpointtest.Memory)
		r := newRig(t, s, 3)
		r.start(t)
		r.save(t, 10, "10")
		r.flush(t)
		var puts []string
		for _, op := range s.Ops() {
			if op.Method == "Put" {
				puts = append(puts, strings.TrimPrefix(op.Name, inStore("")+"/"))
			}
		}
		require.Len(t, puts, 6)
		require.ElementsMatch(t, []string{"checkpoints/10/empty", "checkpoints/10/model.pt", "checkpoints/10/optimizer/state.pt"}, puts[:3])
		require.Equal(t, []string{"metrics.jsonl", "log.txt", "checkpoints/10/manifest.json"}, puts[3:])
	})
}

// What is said is what the store has said, and no more.
func TestMirrorNeverOverstates(t *testing.T) {
	for name, test := range map[string]struct {
		says checkpoint.Durability
		want []string
	}{
		"the store confirms": {checkpoint.Mirrored, []string{"cnn 10 mirrored"}},
		"it only takes":      {checkpoint.Handed, []string{"cnn 10 handed"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, &checkpointtest.Memory{Says: test.says}, 3)
				r.start(t)
				r.save(t, 10, "10")
				require.NotContains(t, r.said(), "local")
				r.flush(t)
				require.Equal(t, test.want, r.said())
			})
		})
	}
	t.Run("a folder", func(t *testing.T) {
		s, err := folder.New(t.TempDir())
		require.NoError(t, err)
		r := newRig(t, s, 3)
		r.start(t)
		r.save(t, 10, "10")
		r.flush(t)
		require.Equal(t, []string{"cnn 10 handed"}, r.said())
	})
	t.Run("the store had it already, and nobody remembers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, new(checkpointtest.Memory), 3)
			stop := r.start(t)
			path := save(t, r.Keeper, 10, content("10"))
			r.mirror.Saved(model, 10, path, false)
			r.flush(t)
			stop()
			another := r.another()
			another.start(t)
			another.mirror.Saved(model, 10, path, false)
			another.flush(t)
			require.Equal(t, []string{"cnn 10 handed"}, another.said(), "this time nobody has confirmed it")
		})
	})
	t.Run("one of many files is handed only", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, grudging{new(checkpointtest.Memory), "state.pt"}, 3)
			r.start(t)
			r.save(t, 10, "10")
			r.flush(t)
			require.Equal(t, []string{"cnn 10 handed"}, r.said())
		})
	})
	t.Run("the store had it already", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := new(checkpointtest.Memory)
			r := newRig(t, s, 3)
			r.start(t)
			path := save(t, r.Keeper, 10, content("10"))
			r.mirror.Saved(model, 10, path, false)
			r.flush(t)
			before := len(s.Ops())
			r.mirror.Saved(model, 10, path, false)
			r.flush(t)
			require.Equal(t, []string{"cnn 10 mirrored", "cnn 10 mirrored"}, r.said())
			for _, op := range s.Ops()[before:] {
				require.NotEqual(t, "Put", op.Method, "nothing is copied twice")
			}
		})
	})
}

// A grudging store takes files of one name without confirming them.
type grudging struct {
	checkpoint.Store
	name string
}

func (s grudging) Put(ctx context.Context, name string, r io.Reader, want durable.Digest) (checkpoint.Durability, error) {
	d, err := s.Store.Put(ctx, name, r, want)
	if path.Base(name) == s.name {
		d = checkpoint.Handed
	}
	return d, err
}

// Copies are made of hard links: what the keeper prunes meanwhile still arrives.
func TestMirrorHoldsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(checkpointtest.Memory)
		r := newRig(t, s, 3)
		r.save(t, 10, "10")
		require.NoError(t, os.RemoveAll(checkpoints(r.Keeper)))
		r.start(t)
		r.flush(t)
		require.Equal(t, "weights of 10", stored(t, s, inStore("checkpoints/10/model.pt")))
		require.Equal(t, []string{"10"}, stepsInStore(s))
	})
}

// A newer checkpoint takes the place of one that waits; a final one waits for
// its turn, and none takes its place.
func TestMirrorSkipsWhatWasOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(checkpointtest.Memory)
		r := newRig(t, s, 5)
		rnn := manifest(7)
		rnn.Model = "rnn"
		r.mirror.Saved("rnn", 7, saveAs(t, r.Keeper, rnn, content("rnn")), false)
		for _, step := range []int64{10, 20, 30} {
			r.save(t, step, "it")
		}
		r.finish(t, 30, "final")
		r.save(t, 40, "it")
		r.mirror.Touch("run.json", "run.json", "run.json")
		n, oldest, err := r.mirror.Pending()
		require.NoError(t, err)
		require.NotZero(t, oldest)
		require.Equal(t, 4, n, "rnn 7, final, cnn 40, run.json")
		r.start(t)
		r.flush(t)
		require.ElementsMatch(t, []string{"rnn 7 mirrored", "cnn 30 final mirrored", "cnn 40 mirrored"}, r.said())
		require.Equal(t, []string{"40"}, stepsInStore(s), "30 is there as the final one")
	})
}

func stored(t *testing.T, s checkpoint.Store, name string) string {
	t.Helper()
	f, err := s.Get(t.Context(), name)
	require.NoError(t, err, name)
	defer f.Close() //nolint:errcheck // it was only read
	data, err := io.ReadAll(f)
	require.NoError(t, err)
	return string(data)
}
