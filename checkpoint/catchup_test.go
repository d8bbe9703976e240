package checkpoint_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/checkpointtest"
	"outlast/checkpoint/durable"
)

// What a process has saved and not copied is copied by the next one; what was
// copied is not sent again, and what was said of it is not forgotten.
func TestTheNextProcessCatchesUp(t *testing.T) {
	alone(t, func(t *testing.T, s *checkpointtest.Memory, a *writer) {
		saveAs(t, a.Keeper, a.manifest(30), content("a")) // and killed
		next := takeOver(t, a.another(), "next")
		next.flush(t)
		require.Equal(t, []string{"10", "20", "30"}, stepsInStore(s))
		require.Equal(t, []string{"cnn 30 mirrored"}, next.said())

		before := len(s.Ops())
		third := takeOver(t, a.another(), "third")
		third.flush(t)
		require.Equal(t, []string{"cnn 30 mirrored"}, third.said())
		for _, op := range s.Ops()[before:] {
			require.NotContains(t, op.Name, "checkpoints/", "%v", op)
		}

		third.finish(t, 40, "a")
		third.flush(t)
		fourth := takeOver(t, a.another(), "fourth")
		fourth.flush(t)
		require.Equal(t, []string{"cnn 40 final mirrored"}, fourth.said())
	})
}

// A run that had no store at first has one history all the same: what it saved
// then goes to the store, and is pruned there as the rest is.
func TestAStoreThatComesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(checkpointtest.Memory)
		r := newRig(t, s, 1)
		early := manifest(10)
		early.Writer = "before there was a store"
		saveAs(t, r.Keeper, early, content("10"))
		first := takeOver(t, r, "first")
		first.flush(t)
		require.Equal(t, []string{"10"}, stepsInStore(s))

		next := takeOver(t, r.another(), "next")
		next.save(t, 20, "20")
		next.flush(t)
		require.Equal(t, []string{"20"}, stepsInStore(s))
	})
}

// Another store, or this one emptied, gets everything again.
func TestAnEmptyStoreGetsEverything(t *testing.T) {
	alone(t, func(t *testing.T, s *checkpointtest.Memory, a *writer) {
		for _, name := range s.Names() {
			s.Corrupt(name, func([]byte) []byte { return nil })
		}
		next := takeOver(t, a.another(), "next")
		next.flush(t)
		require.Equal(t, []string{"20"}, stepsInStore(s), "the newest is enough")
		require.Subset(t, s.Names(), []string{run + "/run.json", run + "/ledger.jsonl", run + "/generation.json"})
		requireRestores(t, s, 20, "a")
	})
}

// What this disk no longer has is given up, and keeps nobody waiting.
func TestMirrorGivesUpWhatIsGone(t *testing.T) {
	for name, spoil := range map[string]spoiler{
		"a file is missing":       removed("model.pt"),
		"a file has rotted":       changed("model.pt", flip),
		"the manifest is gone":    removed(checkpoint.ManifestName),
		"the manifest is no JSON": changed(checkpoint.ManifestName, empty),
	} {
		t.Run(name, func(t *testing.T) {
			alone(t, func(t *testing.T, s *checkpointtest.Memory, a *writer) {
				s.Fail(failing("Put", "Get"))
				a.save(t, 30, "a")
				time.Sleep(time.Minute)
				holds, err := filepath.Glob(filepath.Join(a.Dir, "outbox", model, "30-*"))
				require.NoError(t, err)
				require.Len(t, holds, 1)
				spoil(t, holds[0])
				s.Fail(nil)
				a.flush(t)
				require.Equal(t, []string{"10", "20"}, stepsInStore(s))
				a.save(t, 40, "a")
				a.flush(t)
				require.Contains(t, stepsInStore(s), "40")
			})
		})
	}
}

// What is asked whether it is whole in the store is asked until there is an
// answer, and what it lacks is sent.
func TestWhatIsFoundInTheStoreIsConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &confirming{Memory: new(checkpointtest.Memory)}
		r := newRig(t, s, 1)
		first := takeOver(t, r, "first")
		first.finish(t, 10, "10")
		first.flush(t)
		require.NoError(t, os.Remove(filepath.Join(r.Dir, "mirrored.json")))
		s.Corrupt(inStore("final/model.pt"), func([]byte) []byte { return nil })

		s.down.Store(1)
		next := takeOver(t, r.another(), "next")
		next.flush(t)
		require.Negative(t, s.down.Load(), "it was asked again")
		require.Equal(t, []string{"cnn 10 final mirrored"}, next.said())
		require.FileExists(t, filepath.Join(r.Dir, "mirrored.json"))
		requireRestores(t, s, 10, "10")
	})
}

// A confirming store is asked about files, and fails at first as often as down
// says when it is asked about a checkpoint.
type confirming struct {
	*checkpointtest.Memory
	down atomic.Int64
}

func (s *confirming) Confirm(ctx context.Context, name string, want durable.Digest) (checkpoint.Durability, error) {
	if strings.Contains(name, "/final/") && s.down.Add(-1) >= 0 {
		return "", errDown
	}
	f, err := s.Get(ctx, name)
	if err != nil {
		return "", err
	}
	if is, err := durable.Hash(f); err != nil || !is.Matches(want) {
		return "", checkpoint.ErrNotFound
	}
	return checkpoint.Mirrored, nil
}

// A result that nobody goes on with is asked for, and what the store says is
// noted; what it lacks, or has otherwise, is on this disk only.
func TestConfirmAsksForWhatIsHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(checkpointtest.Memory)
		r := newRig(t, s, 1)
		first := takeOver(t, r, "first")
		first.finish(t, 10, "10")
		first.flush(t)
		noted := func() string {
			t.Helper()
			require.NoError(t, checkpoint.Confirm(t.Context(), s, "memory", run, r.mirror.Dir))
			data, err := os.ReadFile(filepath.Join(r.Dir, "mirrored.json"))
			require.NoError(t, err)
			return string(data)
		}
		require.Contains(t, noted(), `"handed"`, "this store confirms nothing")
		require.Contains(t, noted(), `"store": "memory"`)
		require.NoError(t, os.Remove(filepath.Join(r.Dir, "mirrored.json")))
		s.Corrupt(inStore("final/manifest.json"), func([]byte) []byte { return []byte("{}") })
		require.NotContains(t, noted(), "handed")
	})
}

// A store that was emptied has nothing: its word of before counts no more, also
// where our claim is found in it, because the answer to the claim was lost.
func TestAStoreThatWasEmptied(t *testing.T) {
	for name, empty := range map[string]checkpoint.Store{
		"at once": new(checkpointtest.Memory), "with a lost answer": &lossy{Store: new(checkpointtest.Memory)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, new(checkpointtest.Memory), 1)
				first := takeOver(t, r, "first")
				first.finish(t, 10, "10")
				first.flush(t)
				require.Equal(t, []string{"cnn 10 final mirrored"}, first.said())
				emptied := r.another()
				emptied.mirror.Store = empty
				next := takeOver(t, emptied, "next")
				next.flush(t)
				require.Equal(t, []string{"cnn 10 final local", "cnn 10 final mirrored"}, next.said())
			})
		})
	}
}

// A lossy store does the first Put, and says that it has failed.
type lossy struct {
	checkpoint.Store
	lost bool
}

func (s *lossy) Put(ctx context.Context, name string, r io.Reader, want durable.Digest) (checkpoint.Durability, error) {
	d, err := s.Store.Put(ctx, name, r, want)
	if err == nil && !s.lost {
		s.lost = true
		return "", errDown
	}
	return d, err
}
