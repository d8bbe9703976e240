package training

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTheWatchdogCountsOnlyTheTimeItSees(t *testing.T) {
	const limit = 10 * time.Minute
	for name, test := range map[string]struct {
		elapsed []time.Duration
		life    func(i int) bool
		hung    bool
	}{
		"silence":               {looks(120), func(int) bool { return false }, true},
		"not yet":               {looks(119), func(int) bool { return false }, false},
		"a word now and then":   {looks(1000), func(i int) bool { return i%100 == 0 }, false},
		"a suspended machine":   {append(looks(60), 8*time.Hour), func(int) bool { return false }, false},
		"a clock that goes mad": {append(looks(10), -time.Hour, 365*24*time.Hour), func(int) bool { return false }, false},
		"silence after a sleep": {append([]time.Duration{8 * time.Hour}, looks(120)...), func(int) bool { return false }, true},
	} {
		t.Run(name, func(t *testing.T) {
			dog := watchdog{limit: limit}
			hung := false
			for i, elapsed := range test.elapsed {
				hung = dog.look(elapsed, test.life(i))
			}
			assert.Equal(t, test.hung, hung)
		})
	}
	assert.Equal(t, 5*time.Millisecond, (&watchdog{limit: 100 * time.Millisecond}).interval())
}

// looks are so many at the usual time.
func looks(n int) []time.Duration {
	all := make([]time.Duration, n)
	for i := range all {
		all[i] = longestLook
	}
	return all
}

func TestABudgetEndsInTimeToSaveAndFlush(t *testing.T) {
	for name, test := range map[string]struct {
		hours      float64
		step, save time.Duration
		want       time.Duration
	}{
		"quick steps":      {2, 0, 0, 2*time.Hour - flushLead},
		"slow steps":       {2, 3 * time.Minute, time.Minute, 2*time.Hour - 9*time.Minute},
		"steps too slow":   {2, time.Hour, 0, 90 * time.Minute},
		"a tiny budget":    {0.01, 0, 0, 27 * time.Second},
		"a budget of none": {0, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &Supervisor{Run: &Run{plan: Plan{Settings: Settings{MaxHours: test.hours}}}, Log: slog.New(slog.DiscardHandler)}
				s.tempo.sawStep(test.step)
				s.tempo.sawSave(test.save)
				began := time.Now()
				bounded, stop := s.budgeted(t.Context())
				defer stop()
				if test.want == 0 {
					require.NoError(t, bounded.Err())
					return
				}
				<-bounded.Done()
				require.ErrorIs(t, context.Cause(bounded), errBudget)
				require.InDelta(t, test.want.Seconds(), time.Since(began).Seconds(), 1.5)
			})
		})
	}
}

func TestABudgetLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Supervisor{Run: &Run{plan: Plan{Settings: Settings{MaxHours: 12}}}}
		bounded, stop := s.budgeted(t.Context())
		stop()
		require.NotErrorIs(t, context.Cause(bounded), errBudget)
	}) // a goroutine left over fails it
}

func TestTheNoteOfAPauseNamesTheModelsAndTheLine(t *testing.T) {
	st := Status{Run: "farm", Models: []ModelStatus{
		{Name: "a", State: ModelDone}, {Name: "b", State: ModelPaused, Step: 40, TotalSteps: 100}, {Name: "c", State: ModelPending}, {Name: "d", State: ModelFailed},
	}}
	require.Equal(t, "Paused before the time budget of 2h ended. Done: a. To do: b (step 40 of 100), c. To go on: outlast resume farm (in a notebook: %resume farm)", pausedNote(errBudget, 2, st))
	require.Equal(t, "Paused. Done: a. To do: b (step 40 of 100), c. To go on: outlast resume farm (in a notebook: %resume farm)", pausedNote(context.Canceled, 2, st))
	for range 20 {
		st.Models = append(st.Models, ModelStatus{Name: "x", State: ModelPending})
	}
	require.Contains(t, pausedNote(context.Canceled, 0, st), "and 12 more. To go on")
}

func TestGraceFollowsWhatWasMeasured(t *testing.T) {
	var s tempo
	require.Equal(t, pauseGrace, s.grace())
	s.sawStep(20 * time.Second)
	s.sawStep(time.Second)
	s.sawSave(5 * time.Second)
	require.Equal(t, pauseGrace+70*time.Second, s.grace())
}

func TestRunETA(t *testing.T) {
	ten := 10.0
	for name, test := range map[string]struct {
		models []ModelStatus
		want   *float64
	}{
		"nothing known":       {[]ModelStatus{{State: ModelPending}, {State: ModelRunning}}, nil},
		"by what is done":     {[]ModelStatus{{State: ModelDone, Seconds: 5}, {State: ModelPending}, {State: ModelPending}}, &ten},
		"by what is running":  {[]ModelStatus{{State: ModelRunning, Seconds: 2, ETASeconds: new(4.0)}, {State: ModelPending}}, &ten},
		"a part done already": {[]ModelStatus{{State: ModelDone, Seconds: 20}, {State: ModelPaused, Step: 50, TotalSteps: 100}}, &ten},
		"just begun":          {[]ModelStatus{{State: ModelDone, Seconds: 10}, {State: ModelRunning}}, &ten},
		"failed ones are out": {[]ModelStatus{{State: ModelDone, Seconds: 10}, {State: ModelPending}, {State: ModelFailed}}, &ten},
		"all done":            {[]ModelStatus{{State: ModelDone, Seconds: 10}}, new(0.0)},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, etaOf(test.models)) })
	}
}
