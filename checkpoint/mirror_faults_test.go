package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/checkpoint/checkpointtest"
)

var errDown = errors.New("the store is down")

// failing returns a function for Memory.Fail that fails these methods.
func failing(methods ...string) func(context.Context, checkpointtest.Op) error {
	return func(_ context.Context, op checkpointtest.Op) error {
		if slices.Contains(methods, op.Method) {
			return errDown
		}
		return nil
	}
}

// An outage of any length delays a copy and does not lose it; the pauses grow,
// so that a night of it is no storm of requests.
func TestMirrorOutlastsAnOutage(t *testing.T) {
	for name, test := range map[string]struct {
		methods []string
		outage  time.Duration
		tries   int // calls at most: a copy asks, then sends its files at once
	}{
		"a hiccup":               {[]string{"Put"}, 2 * time.Second, 12},
		"a night without puts":   {[]string{"Put"}, 10 * time.Hour, 2600},
		"a night without gets":   {[]string{"Get"}, 10 * time.Hour, 2600},
		"a night without either": {[]string{"Put", "Get", "List", "Delete"}, 10 * time.Hour, 2600},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(checkpointtest.Memory)
				r := newRig(t, s, 3)
				s.Fail(failing(test.methods...))
				r.start(t)
				start := time.Now()
				r.save(t, 10, "10")
				time.Sleep(test.outage)
				n, oldest, err := r.mirror.Pending()
				require.ErrorIs(t, err, errDown)
				require.Equal(t, 1, n)
				require.Equal(t, start, oldest)
				require.Empty(t, r.said())
				require.LessOrEqual(t, len(s.Ops()), test.tries)

				s.Fail(nil)
				r.flush(t)
				require.LessOrEqual(t, time.Since(start), test.outage+time.Minute)
				require.Equal(t, []string{"cnn 10 mirrored"}, r.said())
				require.Equal(t, []string{"10"}, stepsInStore(s))
			})
		})
	}
}

func TestMirrorBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(checkpointtest.Memory)
		r := newRig(t, s, 3)
		var pauses []time.Duration
		last := time.Now()
		s.Fail(func(context.Context, checkpointtest.Op) error {
			pauses = append(pauses, time.Since(last))
			last = time.Now()
			return errDown
		})
		stop := r.start(t)
		r.mirror.Touch("run.json")
		time.Sleep(5 * time.Minute)
		stop()
		sec := time.Second
		require.Equal(t, []time.Duration{0, sec, 2 * sec, 4 * sec, 8 * sec, 16 * sec, 32 * sec, 60 * sec, 60 * sec, 60 * sec}, pauses)
	})
}

// A store that fails at any of its calls never shows a checkpoint that is not
// whole, and has everything in the end.
func TestMirrorFailsAtEachCall(t *testing.T) {
	for at := range 40 {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(checkpointtest.Memory)
				r := newRig(t, s, 1)
				wrong := watchWhole(s)
				var calls atomic.Int64
				s.Fail(func(context.Context, checkpointtest.Op) error {
					if calls.Add(1) == int64(at+1) {
						return errDown
					}
					return nil
				})
				r.start(t)
				for step, what := range []string{"10", "20", "20 again"} {
					r.save(t, int64(min(10*(step+1), 20)), what)
					r.flush(t)
				}
				r.finish(t, 20, "20 at last")
				r.flush(t)
				s.Fail(nil)
				require.Empty(t, wrong())
				require.Equal(t, []string{"20.1"}, stepsInStore(s), "the first 20 stays until the second is whole")
				require.Equal(t, "weights of 20 again", stored(t, s, inStore("checkpoints/20.1/model.pt")))
				require.Equal(t, "weights of 20 at last", stored(t, s, inStore("final/model.pt")))
				require.Equal(t, []string{"cnn 10 mirrored", "cnn 20 mirrored", "cnn 20 mirrored", "cnn 20 final mirrored"}, r.said())
			})
		})
	}
}

// The same step, saved again while its first copy is on the way: what was linked
// for the second must not go with the first.
func TestMirrorOfAStepThatIsSavedAgain(t *testing.T) {
	for name, again := range map[string]func(t *testing.T, r *rig){
		"due, then asked for": func(t *testing.T, r *rig) { r.save(t, 10, "again") },
		"finished twice":      func(t *testing.T, r *rig) { r.finish(t, 10, "again") },
	} {
		for _, outcome := range []error{nil, errDown} {
			t.Run(fmt.Sprintf("%s, then %v", name, outcome), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := new(checkpointtest.Memory)
					r := newRig(t, s, 3)
					wrong := watchWhole(s)
					half, release := make(chan struct{}), make(chan struct{})
					var once sync.Once
					s.Fail(func(_ context.Context, op checkpointtest.Op) (err error) {
						if path.Base(op.Name) == "model.pt" && op.Method == "Put" {
							once.Do(func() { close(half); <-release; err = outcome })
						}
						return err
					})
					r.start(t)
					if strings.HasPrefix(name, "finished") {
						r.finish(t, 10, "first")
					} else {
						r.save(t, 10, "first")
					}
					<-half
					again(t, r)
					close(release)
					r.flush(t)
					require.Empty(t, wrong())
					for _, file := range s.Names() {
						if path.Base(file) == "model.pt" {
							require.Equal(t, "weights of again", stored(t, s, file))
						}
					}
				})
			})
		}
	}
}

// A checkpoint that cannot be held is logged and does not stand in the way.
func TestMirrorOfAMissingCheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(checkpointtest.Memory)
		r := newRig(t, s, 3)
		r.start(t)
		r.mirror.Saved(model, 5, checkpoints(r.Keeper, "5"), false)
		dir := save(t, r.Keeper, 6, content("6"))
		require.NoError(t, os.Remove(dir+"/model.pt"))
		r.mirror.Saved(model, 6, dir, false)
		r.save(t, 10, "10")
		r.flush(t)
		require.Equal(t, []string{"10"}, stepsInStore(s))
	})
}

// Many callers, a store that fails at random: nobody waits for ever, and the
// newest of each model arrives.
func TestMirrorIsSafeForConcurrentUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const models, last = 4, 12
		s := new(checkpointtest.Memory)
		r := newRig(t, s, 2)
		wrong := watchWhole(s)
		s.Fail(func(context.Context, checkpointtest.Op) error {
			time.Sleep(rand.N(100 * time.Millisecond))
			if rand.N(8) == 0 {
				return errDown
			}
			return nil
		})
		r.start(t)
		var wg sync.WaitGroup
		for n := range models {
			wg.Go(func() {
				for step := int64(1); step <= last; step++ {
					m := manifest(step)
					m.Model = fmt.Sprintf("m%d", n)
					staged := stage(t, r.Keeper, content(fmt.Sprint(step)))
					_, dir, err := r.Save(t.Context(), m, staged)
					if !assert.NoError(t, err) {
						return
					}
					r.mirror.Saved(m.Model, step, dir, false)
					r.mirror.Touch("ledger.jsonl")
					r.mirror.Pending() //nolint:errcheck // that it may be called is what is tested
					time.Sleep(rand.N(time.Second))
					if step%4 == 0 {
						assert.NoError(t, r.mirror.Flush(t.Context()))
					}
				}
			})
		}
		wg.Wait()
		r.flush(t)
		s.Fail(nil)
		require.Empty(t, wrong())
		for n := range models {
			name := fmt.Sprintf("%s/models/m%d/checkpoints/%d/model.pt", run, n, last)
			require.Equal(t, "weights of 12", stored(t, s, name))
		}
	})
}
