package checkpoint_test

import (
	"context"
	"errors"
	"math"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/checkpointtest"
	"outlast/checkpoint/durable"
)

func TestParseBest(t *testing.T) {
	for text, want := range map[string]checkpoint.Best{
		"": {}, "val_loss": {Metric: "val_loss"}, "val_loss:min": {Metric: "val_loss"}, "eval/accuracy:max": {Metric: "eval/accuracy", Max: true}, "eval:loss:min": {Metric: "eval:loss"},
	} {
		best, err := checkpoint.ParseBest(text)
		require.NoError(t, err)
		require.Equal(t, want, best)
		again, err := checkpoint.ParseBest(best.String())
		require.NoError(t, err)
		require.Equal(t, best, again)
	}
	for _, text := range []string{":max", "loss:", "loss:most", "eval:loss", ":"} {
		_, err := checkpoint.ParseBest(text)
		require.Error(t, err, text)
	}
}

// scored returns the manifest of a checkpoint that says how good it is.
func scored(step int64, accuracy any) checkpoint.Manifest {
	m := manifest(step)
	m.Metrics = map[string]any{"accuracy": accuracy}
	return m
}

func TestTheBestStaysBesideTheNewest(t *testing.T) {
	for name, test := range map[string]struct {
		best       string
		accuracies []any
		want       []string
		left       []string // on a full disk
	}{
		"the highest":            {"accuracy:max", []any{0.5, 0.9, 0.7, 0.8, 0.6}, steps(20, 40, 50), steps(20, 50)},
		"the lowest":             {"accuracy", []any{0.5, 0.9, 0.7, 0.8, 0.6}, steps(10, 40, 50), steps(10, 50)},
		"it is among the newest": {"accuracy:max", []any{0.5, 0.6, 0.7, 0.9, 0.8}, steps(40, 50), steps(40, 50)},
		"of two it is the first": {"accuracy:max", []any{0.5, 0.9, 0.9, 0.8, 0.7}, steps(20, 40, 50), steps(20, 50)},
		"nobody asked":           {"", []any{0.5, 0.9, 0.7, 0.8, 0.6}, steps(40, 50), steps(50)},
		"another metric":         {"loss", []any{0.5, 0.9, 0.7, 0.8, 0.6}, steps(40, 50), steps(50)},
		"what is no number":      {"accuracy:max", []any{nil, "0.99", []any{1.0}, 0.8, true}, steps(40, 50), steps(40, 50)},
		"below zero":             {"accuracy:max", []any{-0.5, -0.1, -0.7, -0.8, -0.6}, steps(20, 40, 50), steps(20, 50)},
		"what is not known":      {"accuracy:max", []any{0.5, "NaN", 0.2, 0.1, 0.1}, steps(10, 40, 50), steps(10, 50)},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeeper(t, 2)
			var err error
			k.Best, err = checkpoint.ParseBest(test.best)
			require.NoError(t, err)
			for i, accuracy := range test.accuracies {
				step := int64(10 * (i + 1))
				saveAs(t, k, scored(step, accuracy), content(strconv.Itoa(int(step))))
			}
			require.Equal(t, test.want, stepFolders(t, k))
			found, _, err := k.Newest(model, print)
			require.NoError(t, err)
			require.Equal(t, int64(50), found.Manifest.Step, "training goes on from the newest")
			_, err = k.MakeRoom(t.Context())
			require.NoError(t, err)
			require.Equal(t, test.left, stepFolders(t, k), "what was asked for is kept, also on a full disk")
		})
	}
}

// What other code was best at says nothing.
func TestTheBestIsOfTheSameCode(t *testing.T) {
	k := newKeeper(t, 1)
	k.Best = checkpoint.Best{Metric: "accuracy", Max: true}
	foreign := scored(10, 1.0)
	foreign.Fingerprint = other
	saveAs(t, k, foreign, content("of other code"))
	saveAs(t, k, scored(20, 0.9), content("20"))
	saveAs(t, k, scored(30, 0.2), content("30"))
	require.Equal(t, steps(20, 30), stepFolders(t, k))
}

func TestAMetricThatIsNotFinite(t *testing.T) {
	_, _, err := newKeeper(t, 1).Save(t.Context(), scored(10, math.Inf(1)), t.TempDir())
	require.Error(t, err, "JSON has no such number; the worker has made a text of it")
}

func bestRig(t *testing.T, s checkpoint.Store, keep int) *rig {
	t.Helper()
	r := newRig(t, s, keep)
	r.Best = checkpoint.Best{Metric: "accuracy", Max: true}
	r.mirror.Best = r.Best
	return r
}

// saveScored has a checkpoint saved, and copied in its time.
func (r *rig) saveScored(t *testing.T, step int64, accuracy float64) {
	t.Helper()
	m := scored(step, accuracy)
	m.Generation, m.Writer = 1, "a"
	r.mirror.Saved(model, step, saveAs(t, r.Keeper, m, content(strconv.Itoa(int(step)))), false)
}

func TestTheStoreKeepsTheBestToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(checkpointtest.Memory)
		r := bestRig(t, s, 2)
		stop := r.start(t)
		for i, accuracy := range []float64{0.5, 0.9, 0.7, 0.8} {
			r.saveScored(t, int64(10*(i+1)), accuracy)
			r.flush(t)
		}
		require.Equal(t, []string{"20", "30", "40"}, stepsInStore(s))
		stop()

		// The next process reads what it did not write itself.
		next := r.another()
		next.mirror.Best, next.Best = r.mirror.Best, r.Best
		next.start(t)
		next.saveScored(t, 50, 0.1)
		next.flush(t)
		require.Equal(t, []string{"20", "40", "50"}, stepsInStore(s))
		next.saveScored(t, 60, 0.95)
		next.flush(t)
		require.Equal(t, []string{"50", "60"}, stepsInStore(s), "there is a better one now")
	})
}

// While the store does not answer, a newer checkpoint takes the place of one that
// waits: but not that of the best.
func TestTheBestIsNotOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(checkpointtest.Memory)
		r := bestRig(t, s, 1)
		for i, accuracy := range []float64{0.5, 0.9, 0.7, 0.6} {
			r.saveScored(t, int64(10*(i+1)), accuracy)
		}
		n, _, err := r.mirror.Pending()
		require.NoError(t, err)
		require.Equal(t, 2, n, "the best and the newest")
		var broken atomic.Bool // files are copied several at a time
		s.Fail(func(_ context.Context, op checkpointtest.Op) error {
			if op.Method == "Put" && strings.Contains(op.Name, "/20/") && broken.CompareAndSwap(false, true) {
				return errors.New("the line is cut")
			}
			return nil
		})
		r.start(t)
		r.flush(t)
		require.Equal(t, []string{"20", "40"}, stepsInStore(s))
	})
}

// What waits when a process ends is queued by the next one: the best as well.
func TestTheBestThatTheStoreLacksIsCopiedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(checkpointtest.Memory)
		r := bestRig(t, s, 1)
		for i, accuracy := range []float64{0.5, 0.9, 0.7, 0.6} {
			r.saveScored(t, int64(10*(i+1)), accuracy)
		}
		require.NoError(t, checkpoint.SweepHalf(r.Dir))
		next := r.another()
		next.mirror.Best, next.Best = r.mirror.Best, r.Best
		require.NoError(t, next.mirror.TakeOver(2, "b"))
		next.start(t)
		next.flush(t)
		require.Equal(t, []string{"20", "40"}, stepsInStore(s))
	})
}

func TestCleaningAStoreKeepsTheBest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(checkpointtest.Memory)
		r := newRig(t, s, 9)
		r.start(t)
		for i, accuracy := range []float64{0.5, 0.9, 0.7, 0.6} {
			r.saveScored(t, int64(10*(i+1)), accuracy)
			r.flush(t)
		}
		best, err := checkpoint.BestInStore(t.Context(), s, run)
		require.NoError(t, err)
		require.Zero(t, best, "its plan asks for none")
		plan := `{"settings":{"keep_best":"accuracy:max"}}`
		_, err = s.Put(t.Context(), run+"/run.json", strings.NewReader(plan), durable.Digest{Size: int64(len(plan))})
		require.NoError(t, err)
		best, err = checkpoint.BestInStore(t.Context(), s, run)
		require.NoError(t, err)
		require.Equal(t, checkpoint.Best{Metric: "accuracy", Max: true}, best)
		torn := plan[:len(plan)-3]
		_, err = s.Put(t.Context(), run+"/run.json", strings.NewReader(torn), durable.Digest{Size: int64(len(torn))})
		require.NoError(t, err)
		_, err = checkpoint.BestInStore(t.Context(), s, run)
		require.ErrorContains(t, err, "damaged", "what is to be kept is not guessed")

		report, err := checkpoint.PruneStore(t.Context(), s, run, checkpoint.PruneOptions{Keep: 1, Best: best})
		require.NoError(t, err)
		require.Len(t, report.Removed, 2)
		require.Equal(t, []string{"20", "40"}, stepsInStore(s))
	})
}

// After a change of the code that which is the best of the code at work stays,
// though the steps of the code before lie above.
func TestCleaningAStoreKeepsTheBestOfTheCodeAtWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(checkpointtest.Memory)
		r := newRig(t, s, 9)
		r.start(t)
		for _, m := range []struct {
			code       string
			generation int64
			step       int64
			accuracy   float64
		}{{other, 1, 900, 0.8}, {other, 1, 1000, 0.7}, {print, 2, 60, 0.5}, {print, 2, 120, 0.9}, {print, 2, 200, 0.6}} {
			saved := manifest(m.step)
			saved.Fingerprint, saved.Generation, saved.Metrics = m.code, m.generation, map[string]any{"accuracy": m.accuracy}
			r.mirror.Saved(model, m.step, saveAs(t, r.Keeper, saved, content(strconv.FormatInt(m.step, 10))), false)
			r.flush(t)
		}
		best := checkpoint.Best{Metric: "accuracy", Max: true}
		_, err := checkpoint.PruneStore(t.Context(), s, run, checkpoint.PruneOptions{Keep: 1, Best: best})
		require.NoError(t, err)
		require.Equal(t, []string{"1000", "120", "200", "900"}, stepsInStore(s))
	})
}
