package checkpoint_test

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/checkpointtest"
)

// stock returns a store with the steps 10 to 50 of cnn, its final checkpoint,
// and a half copy at 60.
func stock(t *testing.T) *checkpointtest.Memory {
	t.Helper()
	s := new(checkpointtest.Memory)
	r := newRig(t, s, 9)
	stop := r.start(t)
	defer stop()
	r.mirror.Touch("run.json")
	for step := int64(10); step <= 50; step += 10 {
		r.save(t, step, fmt.Sprint(step))
		r.flush(t)
	}
	r.finish(t, 50, "50")
	r.flush(t)
	fill(t, s, "checkpoints/60/model.pt")
	return s
}

func fill(t *testing.T, s *checkpointtest.Memory, below ...string) {
	t.Helper()
	for _, name := range below {
		_, err := s.Put(t.Context(), inStore(name), strings.NewReader("{}"), digest("{}"))
		require.NoError(t, err)
	}
}

// states writes what is known of each checkpoint.
func states(all []checkpoint.Stored) (said []string) {
	for _, s := range all {
		name := fmt.Sprint(s.Step)
		if s.Final {
			name = "final"
		}
		if s.Superseded {
			name += " aside"
		}
		said = append(said, name+" "+string(s.State))
	}
	return said
}

func TestInventory(t *testing.T) {
	s := stock(t)
	fill(t, s, "checkpoints/20.damaged/manifest.json", "checkpoints/best/manifest.json", "superseded/g1-a/checkpoints/7/manifest.json")
	s.Corrupt(inStore("checkpoints/10/model.pt"), truncate)
	s.Corrupt(inStore("checkpoints/20/model.pt"), func([]byte) []byte { return nil })
	s.Corrupt(inStore("checkpoints/30/manifest.json"), empty)
	s.Corrupt(inStore("checkpoints/40/model.pt"), flip) // a listing does not show that
	inv, err := checkpoint.TakeInventory(t.Context(), s, run)
	require.NoError(t, err)
	require.Equal(t, []string{
		"final sealed", "60 half", "50 sealed", "40 sealed", "30 damaged", "20 damaged", "10 damaged", "7 aside damaged",
	}, states(inv.Checkpoints))
	require.Equal(t, len(s.Names()), inv.Files)
	final := inv.Checkpoints[0]
	require.Equal(t, run+"/models/cnn/final", final.Folder)
	require.Equal(t, int64(50), final.Step)
	require.Equal(t, "test", final.Writer)
	require.Equal(t, 4, final.Files)
	require.Nil(t, inv.Claim)
	for _, op := range s.Ops() {
		if op.Method == "Get" {
			require.Contains(t, []string{"manifest.json", "generation.json"}, path.Base(op.Name), "no content is read")
		}
	}

	all, err := checkpoint.Summaries(t.Context(), s)
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.Equal(t, checkpoint.Summary{
		Run: run, Models: 1, Finished: 1, Checkpoints: 5, Files: inv.Files, Bytes: inv.Bytes,
	}, all[0])

	_, err = checkpoint.TakeInventory(t.Context(), s, "letters")
	var problem *checkpoint.RestoreError
	require.ErrorAs(t, err, &problem)
	require.Contains(t, problem.Cure(), run)
}

func TestScrub(t *testing.T) {
	s := stock(t)
	s.Corrupt(inStore("checkpoints/20/model.pt"), flip)
	s.Corrupt(inStore("checkpoints/30/optimizer/state.pt"), func(data []byte) []byte { return append(data, 0) })
	s.Fail(func(_ context.Context, op checkpointtest.Op) error {
		if op == (checkpointtest.Op{Method: "Get", Name: inStore("checkpoints/40/model.pt")}) {
			return errDown
		}
		return nil
	})
	var told []checkpoint.Stored
	inv, err := checkpoint.Scrub(t.Context(), s, run, func(one checkpoint.Stored) { told = append(told, one) })
	require.NoError(t, err)
	want := []string{"final verified", "60 half", "50 verified", "40 unknown", "30 damaged", "20 damaged", "10 verified"}
	require.Equal(t, want, states(inv.Checkpoints))
	require.Equal(t, want, states(told))
	require.Equal(t, "model.pt: its SHA-256 differs", inv.Checkpoints[5].Problem)

	ctx, cancel := context.WithCancel(t.Context())
	_, err = checkpoint.Scrub(ctx, s, run, func(checkpoint.Stored) { cancel() })
	require.ErrorIs(t, err, context.Canceled)
}

// What goes is older than as many good ones as are to be kept; what cannot be
// judged is kept.
func TestPruneStore(t *testing.T) {
	spoiled := func(steps ...int) func(t *testing.T, s *checkpointtest.Memory) {
		return func(_ *testing.T, s *checkpointtest.Memory) {
			for _, step := range steps {
				s.Corrupt(inStore(fmt.Sprintf("checkpoints/%d/model.pt", step)), flip)
			}
		}
	}
	for name, test := range map[string]struct {
		keep    int
		before  func(t *testing.T, s *checkpointtest.Memory)
		want    []string // steps that stay
		removed int
	}{
		"three":                          {3, spoiled(), []string{"30", "40", "50"}, 2},
		"one":                            {1, spoiled(), []string{"50"}, 4},
		"none counts as one":             {0, spoiled(), []string{"50"}, 4},
		"more than there are":            {9, spoiled(), []string{"10", "20", "30", "40", "50"}, 0},
		"the newest has rotted":          {1, spoiled(50), []string{"40", "50"}, 3},
		"all but the oldest have rotted": {1, spoiled(50, 40, 30, 20), []string{"10", "20", "30", "40", "50"}, 0},
		"two good ones, and three asked": {3, spoiled(50, 30, 10), []string{"10", "20", "30", "40", "50"}, 0},
		"a half copy of a new history": {2, func(t *testing.T, s *checkpointtest.Memory) {
			t.Helper()
			fill(t, s, "checkpoints/5/model.pt")
		}, []string{"40", "50"}, 3},
		"a damaged manifest": {2, func(_ *testing.T, s *checkpointtest.Memory) {
			s.Corrupt(inStore("checkpoints/50/manifest.json"), empty)
		}, []string{"30", "40", "50"}, 2},
		"another history is ahead": {2, func(t *testing.T, s *checkpointtest.Memory) {
			t.Helper()
			later(t, s, 45)
		}, []string{"45", "50"}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			s := stock(t)
			wrong := watchWhole(s)
			test.before(t, s)
			before := s.Names()
			half := slices.DeleteFunc(s.Names(), func(name string) bool { return !strings.Contains(name, "/5/") && !strings.Contains(name, "/60/") })
			dry, err := checkpoint.PruneStore(t.Context(), s, run, checkpoint.PruneOptions{Keep: test.keep, DryRun: true})
			require.NoError(t, err)
			require.Equal(t, before, s.Names())

			report, err := checkpoint.PruneStore(t.Context(), s, run, checkpoint.PruneOptions{Keep: test.keep})
			require.NoError(t, err)
			require.Equal(t, states(dry.Removed), states(report.Removed))
			require.Equal(t, dry.Bytes, report.Bytes)
			require.Len(t, report.Removed, test.removed)
			require.Equal(t, test.want, stepsInStore(s))
			require.Contains(t, s.Names(), inStore("final/manifest.json"))
			require.Subset(t, s.Names(), half, "it may be on its way")
			if !strings.Contains(name, "rotted") && !strings.Contains(name, "good ones") && !strings.Contains(name, "damaged") {
				require.Empty(t, wrong())
			}
		})
	}
}

// later adds a checkpoint of a later history than what is there.
func later(t *testing.T, s *checkpointtest.Memory, step int64) {
	t.Helper()
	r := newRig(t, s, 9)
	stop := r.start(t)
	defer stop()
	m := manifest(step)
	m.Generation = 2
	r.mirror.Saved(model, step, saveAs(t, r.Keeper, m, content("later")), false)
	r.flush(t)
}

// A store that cannot be read or changed keeps what it has.
func TestPruneStoreInTrouble(t *testing.T) {
	for _, method := range []string{"Get", "List", "Delete"} {
		t.Run(method, func(t *testing.T) {
			s := stock(t)
			before := s.Names()
			s.Fail(func(_ context.Context, op checkpointtest.Op) error {
				if op.Method == method && path.Base(op.Name) != "generation.json" {
					return errDown
				}
				return nil
			})
			_, err := checkpoint.PruneStore(t.Context(), s, run, checkpoint.PruneOptions{Keep: 1})
			require.ErrorIs(t, err, errDown)
			require.Equal(t, before, s.Names())
		})
	}
	t.Run("content alone", func(t *testing.T) {
		s := stock(t)
		before := s.Names()
		s.Fail(func(_ context.Context, op checkpointtest.Op) error {
			if op == (checkpointtest.Op{Method: "Get", Name: inStore("checkpoints/50/model.pt")}) {
				return errDown
			}
			return nil
		})
		_, err := checkpoint.PruneStore(t.Context(), s, run, checkpoint.PruneOptions{Keep: 1})
		require.ErrorContains(t, err, errDown.Error())
		require.Equal(t, before, s.Names())
	})
}

// What was set aside goes only when it is asked for.
func TestPruneStoreOfWhatWasSetAside(t *testing.T) {
	s := stock(t)
	for _, name := range s.Names() {
		if below, ok := strings.CutPrefix(name, inStore("final/")); ok {
			fill(t, s, "superseded/g1-a/final/"+below)
		}
	}
	report, err := checkpoint.PruneStore(t.Context(), s, run, checkpoint.PruneOptions{Keep: 9})
	require.NoError(t, err)
	require.Empty(t, report.Removed)
	report, err = checkpoint.PruneStore(t.Context(), s, run, checkpoint.PruneOptions{Keep: 9, Superseded: true})
	require.NoError(t, err)
	require.Len(t, report.Removed, 1)
	require.NotContains(t, strings.Join(s.Names(), " "), "superseded")
}
