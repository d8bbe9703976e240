//go:build unix

package training_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/training"
	"outlast/training/trainingtest"
)

// derived returns the status of r without what its supervisor has published.
func derived(t *testing.T, r *training.Run) training.Status {
	t.Helper()
	require.NoError(t, os.RemoveAll(filepath.Join(r.Dir(), "state.json")))
	return status(t, r)
}

// How a model that did not fit is computed is known from the ledger, and from
// what was learnt, when nobody works.
func TestTheBatchAfterALackOfMemoryIsNotForgotten(t *testing.T) {
	oom := `@1 raw {"event":"failed","kind":"oom","type":"OutOfMemoryError","message":"CUDA out of memory","traceback":""}`
	r := create(t,
		trainingtest.Model("done", "hello", "restore", oom, "@1 exit 1", "train 4 every 2", "finish"),
		trainingtest.Model("paused", "hello", "restore", oom, "@1 exit 1", "@2 train 2 every 2", "@2+ fail device_lost X y"))
	_, err := work(t, r)
	require.ErrorIs(t, err, training.ErrPaused)
	for name, s := range map[string]training.Status{"published": status(t, r), "derived": derived(t, r)} {
		for _, m := range []string{"done", "paused"} {
			assert.Equal(t, []int{8, 2}, []int{model(t, s, m).BatchSize, model(t, s, m).GradAccum}, "%s, %s", m, name)
		}
	}
}

// What a supervisor that was killed had worked is part of what a model took.
func TestTheTimeOfALostAttemptCounts(t *testing.T) {
	r := create(t, trainingtest.Model("a", append([]string{"@1 slow 20ms"}, waiting("gate")...)...))
	start(t, r)
	reached(t, r)
	until(t, "what was logged", func() bool { points, err := r.Metrics("a"); return err == nil && len(points) == 5 })
	require.NoError(t, r.Kill(t.Context()))
	const worked = 0.08 // four steps at least lie between the start and what was logged last
	require.GreaterOrEqual(t, derived(t, r).Models[0].Seconds, worked)

	release(t, r)
	start(t, r)
	require.Equal(t, training.RunDone, follow(t, r).State)
	ends := ledger(t, r, training.EntryEnd)
	require.Equal(t, training.CauseLost, ends[0].Cause)
	require.GreaterOrEqual(t, ends[0].Seconds, worked)
	require.InDelta(t, ends[0].Seconds+ends[1].Seconds, status(t, r).Models[0].Seconds, 0.001)
	require.InDelta(t, ends[0].Seconds+ends[1].Seconds, derived(t, r).Models[0].Seconds, 0.001)
}

// Progress is told ten times a second at most: what is saved is done all the same.
func TestAModelIsAsFarAsItsCheckpoint(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "restore", "train 4 every 9",
		`event {"event":"progress","step":2,"total":9}`, "checkpoint asked", "fail device_lost X y"))
	_, err := work(t, r)
	require.ErrorIs(t, err, training.ErrPaused)
	m := status(t, r).Models[0]
	require.Equal(t, int64(4), m.Checkpoint.Step)
	require.Equal(t, int64(4), m.Step)
}

// Where a run stands is one thing, whoever says it: the state that its supervisor
// has left, what is derived once a new plan is there, and the ledger.
func TestALostAttemptHasAStepAndWhatItDidAgain(t *testing.T) {
	for name, told := range map[string]struct {
		line string
		step int64
	}{"by its metrics": {"@2 touch told", 7}, "by its progress": {`@2 event {"event":"progress","step":8,"total":9}`, 8}} {
		t.Run(name, func(t *testing.T) {
			r := create(t, trainingtest.Model("a", "hello", "restore", "@1 train 5 every 2", "@1 signal KILL",
				"@2 train 7 every 9", told.line, "@2 touch here", "@2 await never", "train 9 every 9", "finish"))
			start(t, r)
			reached(t, r)
			until(t, "the step", func() bool { return status(t, r).Models[0].Step == told.step })
			require.NoError(t, r.Kill(t.Context()))
			require.Equal(t, told.step, status(t, r).Models[0].Step)
			path := filepath.Join(r.Dir(), "state.json")
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			older := strings.Replace(string(data), fmt.Sprintf(`"step":%d,`, told.step), `"step":6,`, 1)
			require.NoError(t, os.WriteFile(path, []byte(older), 0o644))
			require.Equal(t, int64(7), status(t, r).Models[0].Step, "the metrics were written after that state")
			require.NoError(t, os.WriteFile(path, data, 0o644))

			r, _, err = training.Create(r.DataDir(), r.Plan(), false)
			require.NoError(t, err)
			require.Equal(t, told.step, status(t, r).Models[0].Step, "as it was before it is gone on with")
			_, err = work(t, r)
			require.NoError(t, err)
			requireExact(t, r, "a", 9)
			ends := ledger(t, r, training.EntryEnd)
			require.Equal(t, []training.Cause{training.CauseKilled, training.CauseLost, training.CauseDone}, causes(t, r))
			for i, want := range []struct{ step, redone int64 }{{5, 0}, {told.step, 1}, {9, told.step - 4}} {
				assert.Equal(t, want.step, ends[i].Step)
				require.NotNil(t, ends[i].StepsRedone, "every end says it, none being a number too")
				assert.Equal(t, want.redone, *ends[i].StepsRedone)
			}
		})
	}
}

// A vaultThatWaits waits for its store until it is asked to stop.
type vaultThatWaits struct {
	*trainingtest.Vault
	flushing chan struct{}
}

func (v vaultThatWaits) Flush(ctx context.Context) error {
	close(v.flushing)
	select {
	case <-ctx.Done():
	case <-time.After(limit):
		return errors.New("it was not asked to stop")
	}
	return errors.New("the store is not there")
}

// All is trained, and the store does not answer: a stop ends that, and no result
// is called safer for it.
func TestAStopEndsTheWaitForTheStore(t *testing.T) {
	s, v := supervisor(t, create(t, trainingtest.Model("a", trainingtest.Good("3", "1")...)))
	waits := vaultThatWaits{v, make(chan struct{})}
	s.Vault = waits
	ctx, stop := context.WithTimeout(t.Context(), limit)
	defer stop()
	go func() {
		<-waits.flushing
		stop()
	}()
	require.NoError(t, s.Work(ctx))
	require.NotErrorIs(t, ctx.Err(), context.DeadlineExceeded)
	last := status(t, s.Run)
	assert.Equal(t, training.RunDone, last.State)
	assert.Equal(t, "local", last.Models[0].Checkpoint.Durability)
	assert.Equal(t, []string{"The store does not have everything yet: the store is not there"}, last.Notes)
}

// A model stands where its last attempt came to, also if one before it was
// further.
func TestAModelStandsWhereItsLastAttemptEnded(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "restore", "@1 train 5 every 2", "@1 signal KILL", "fail device_lost X y"))
	_, err := work(t, r)
	require.ErrorIs(t, err, training.ErrPaused)
	require.Equal(t, int64(4), status(t, r).Models[0].Step)
	require.Equal(t, int64(4), derived(t, r).Models[0].Step)
}
