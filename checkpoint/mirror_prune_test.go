package checkpoint_test

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/checkpointtest"
	"outlast/checkpoint/durable"
)

func TestMirrorKeepsTheNewestInTheStore(t *testing.T) {
	for name, test := range map[string]struct {
		keep int
		want []string
	}{
		"two":              {2, []string{"100", "90"}},
		"one":              {1, []string{"100"}},
		"zero counts as 1": {0, []string{"100"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(checkpointtest.Memory)
				r := newRig(t, s, test.keep)
				wrong := watchWhole(s)
				r.start(t)
				for step := int64(10); step <= 100; step += 10 {
					r.save(t, step, "it")
					r.flush(t)
				}
				require.Equal(t, test.want, stepsInStore(s))
				entries, err := s.List(t.Context(), inStore("checkpoints")+"/")
				require.NoError(t, err)
				require.Len(t, entries, len(test.want)*4, "nothing is left of the others")
				require.Empty(t, wrong(), "a manifest goes before its files")
			})
		})
	}
}

// Pruning touches this model's earlier checkpoints and nothing else.
func TestMirrorPrunesNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(checkpointtest.Memory)
		r := newRig(t, s, 1)
		r.start(t)
		others := []string{
			inStore("checkpoints/999/manifest.json"), inStore("checkpoints/999/model.pt"), // of other code, maybe
			inStore("checkpoints/notes.txt"), inStore("checkpoints/best/model.pt"),
			inStore("checkpoints/-1/model.pt"),
			run + "/models/rnn/checkpoints/1/manifest.json", "another/models/cnn/checkpoints/1/manifest.json",
		}
		for _, name := range others {
			_, err := s.Put(t.Context(), name, strings.NewReader("{}"), durable.Digest{Size: 2})
			require.NoError(t, err)
		}
		r.finish(t, 5, "final")
		r.flush(t)
		for _, step := range []int64{10, 20} {
			r.save(t, step, "it")
			r.flush(t)
		}
		require.Subset(t, s.Names(), others)
		require.Contains(t, s.Names(), inStore("final/manifest.json"))
		require.Equal(t, []string{"20", "999"}, stepsInStore(s))
	})
}

// What a crash left of a copy goes when its step does.
func TestMirrorPrunesHalfCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(checkpointtest.Memory)
		r := newRig(t, s, 1)
		half := inStore("checkpoints/10/model.pt")
		_, err := s.Put(t.Context(), half, strings.NewReader("half"), durable.Digest{Size: 4})
		require.NoError(t, err)
		r.start(t)
		r.save(t, 20, "20")
		r.flush(t)
		require.NotContains(t, s.Names(), half)
	})
}

// A store that cannot delete or list delays the pruning: the checkpoint is told
// of once, with what the store has said of it.
func TestMirrorPrunesLater(t *testing.T) {
	for _, method := range []string{"List", "Delete"} {
		t.Run(method, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(checkpointtest.Memory)
				r := newRig(t, s, 1)
				r.start(t)
				r.save(t, 10, "10")
				r.flush(t)
				s.Fail(failing(method))
				r.save(t, 20, "20")
				synctest.Wait()
				require.Equal(t, []string{"10", "20"}, stepsInStore(s))
				require.Equal(t, []string{"cnn 10 mirrored", "cnn 20 mirrored"}, r.said())

				s.Fail(nil)
				r.flush(t)
				require.Equal(t, []string{"20"}, stepsInStore(s))
				require.Equal(t, []string{"cnn 10 mirrored", "cnn 20 mirrored"}, r.said(), "never twice, never less")
			})
		})
	}
}

// A mirror without anybody who listens works as well.
func TestMirrorWithoutOnDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(checkpointtest.Memory)
		r := newRig(t, s, 1)
		r.mirror.OnDone = nil
		r.start(t)
		r.save(t, 10, "10")
		r.flush(t)
		require.Contains(t, s.Names(), inStore("checkpoints/10/"+checkpoint.ManifestName))
	})
}
