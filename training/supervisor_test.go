//go:build unix

package training_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/training"
	"outlast/training/trainingtest"
)

func TestEveryModelIsTrainedOnceAndInOrder(t *testing.T) {
	r := create(t, trainingtest.Model("a", trainingtest.Good("6", "2")...), trainingtest.Model("b", trainingtest.Good("3", "5")...))
	status, err := work(t, r)
	require.NoError(t, err)
	require.Equal(t, training.RunDone, status.State)
	for name, steps := range map[string]int64{"a": 6, "b": 3} {
		requireExact(t, r, name, steps)
		m := model(t, status, name)
		assert.Equal(t, training.ModelDone, m.State)
		assert.Equal(t, training.CauseDone, m.Cause)
		assert.Equal(t, steps, m.Step)
		assert.Equal(t, 1, m.Attempts)
		assert.Empty(t, m.Error)
		assert.Zero(t, m.WorkerPID)
		assert.Equal(t, r.ModelPath(name, "final"), m.Checkpoint.Path)
	}
	assert.Zero(t, status.SupervisorPID)
	assert.Equal(t, []training.Cause{training.CauseDone, training.CauseDone}, causes(t, r))
	starts := ledger(t, r, training.EntryStart)
	require.Len(t, starts, 2)
	assert.Equal(t, "a", starts[0].Model)
	assert.Equal(t, 16, starts[0].Settings.BatchSize)
}

func TestAFinishedModelIsNotTrainedAgain(t *testing.T) {
	r := create(t, trainingtest.Model("a", trainingtest.Good("3", "1")...))
	_, err := work(t, r)
	require.NoError(t, err)
	status, err := work(t, r)
	require.NoError(t, err)
	require.Equal(t, training.ModelDone, model(t, status, "a").State)
	require.Len(t, ledger(t, r, training.EntryStart), 1)
	require.Len(t, ledger(t, r, training.EntryTakeover), 2)
}

func TestOneFailedModelDoesNotStopTheOthers(t *testing.T) {
	r := create(t,
		trainingtest.Model("bad", "hello", "fail user ValueError the width must be even"),
		trainingtest.Model("good", trainingtest.Good("3", "1")...))
	status, err := work(t, r)
	require.ErrorIs(t, err, training.ErrSomeFailed)
	require.Equal(t, training.RunFailed, status.State)
	bad := model(t, status, "bad")
	assert.Equal(t, training.ModelFailed, bad.State)
	assert.Equal(t, training.CauseError, bad.Cause)
	assert.Contains(t, bad.Error, "Traceback (most recent call last):")
	assert.Contains(t, bad.Error, "ValueError: the width must be even")
	assert.Equal(t, 1, bad.Attempts, "an error of the user's code is not tried again")
	requireExact(t, r, "good", 3)
}

func TestAFailedModelIsTriedAgainWhenAskedFor(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "@1 fail user OSError data not there", "restore", "train 3 every 1", "finish"))
	_, err := work(t, r)
	require.ErrorIs(t, err, training.ErrSomeFailed)
	_, err = work(t, r)
	require.NoError(t, err)
	requireExact(t, r, "a", 3)
}

// What ends an attempt from outside never uses up retries; what the program
// does itself does.
func TestRetries(t *testing.T) {
	kill := []string{"hello", "restore", "train 4 every 2", "@1 signal KILL", "@2 signal TERM", "@3 signal KILL", "@4 signal KILL", "train 8 every 2", "finish"}
	tests := map[string]struct {
		script   []string
		state    training.ModelState
		attempts int
		cause    training.Cause
	}{
		"four kills":                  {kill, training.ModelDone, 5, training.CauseDone},
		"two crashes":                 {[]string{"hello", "@1 exit 3", "@2 signal SEGV", "restore", "train 8 every 2", "finish"}, training.ModelDone, 3, training.CauseDone},
		"three crashes":               {[]string{"hello", "exit 3"}, training.ModelFailed, 3, training.CauseCrash},
		"killed through a shell":      {[]string{"@1 exit 137", "hello", "restore", "train 8 every 2", "finish"}, training.ModelDone, 2, training.CauseDone},
		"paused though nobody asked":  {[]string{"@1 exit 75", "hello", "restore", "train 8 every 2", "finish"}, training.ModelDone, 2, training.CauseDone},
		"a program that is not there": {nil, training.ModelFailed, 0, training.CauseError},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := trainingtest.Plan("digits", trainingtest.Model("a", test.script...))
			if test.script == nil {
				p.Code.Command = []string{"/nowhere/python"}
			}
			r := createPlan(t, t.TempDir(), p)
			status, err := work(t, r)
			if test.state == training.ModelFailed {
				require.ErrorIs(t, err, training.ErrSomeFailed)
			} else {
				require.NoError(t, err)
				requireExact(t, r, "a", 8)
			}
			a := model(t, status, "a")
			assert.Equal(t, test.state, a.State)
			assert.Equal(t, test.attempts, a.Attempts)
			assert.Equal(t, test.cause, a.Cause)
			if test.state == training.ModelFailed {
				assert.NotEmpty(t, a.Error)
			}
		})
	}
}

func TestAKilledWorkerGoesOnFromItsLastCheckpoint(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "restore", "@1 train 5 every 2", "@1 signal KILL", "train 8 every 2", "finish"))
	status, err := work(t, r)
	require.NoError(t, err)
	requireExact(t, r, "a", 8)
	require.Equal(t, 2, model(t, status, "a").Attempts)
	starts, ends := ledger(t, r, training.EntryStart), ledger(t, r, training.EntryEnd)
	assert.Equal(t, int64(4), starts[1].FromStep)
	assert.Equal(t, int64(5), ends[0].Step)
	assert.Equal(t, training.CauseKilled, ends[0].Cause)
	assert.Equal(t, "killed", ends[0].Signal)
	assert.Equal(t, int64(1), *ends[1].StepsRedone)
}

func TestAWorkerThatDoesNotTakeItsCheckpointDoesAllStepsAgain(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "@1 restore", "@1 train 5 every 2", "@1 signal KILL",
		`@2 event {"event":"restored","step":0}`, "@2 checkpoint asked", "train 8 every 9", "finish"))
	_, err := work(t, r)
	require.NoError(t, err)
	ends := ledger(t, r, training.EntryEnd)
	require.Len(t, ends, 2)
	assert.Equal(t, int64(5), *ends[1].StepsRedone)
}

func TestChangedModelsAreTrainedAnewAndOthersAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	a, b, c := trainingtest.Model("a", trainingtest.Good("2", "1")...), trainingtest.Model("b", trainingtest.Good("2", "1")...), trainingtest.Model("c", trainingtest.Good("2", "1")...)
	r := createPlan(t, dir, trainingtest.Plan("digits", a, b, c))
	_, err := work(t, r)
	require.NoError(t, err)
	d := trainingtest.Model("d", trainingtest.Good("2", "1")...)
	r, changes, err := training.Create(dir, trainingtest.Plan("digits", a, trainingtest.Model("b", trainingtest.Good("4", "1")...), d), false)
	require.NoError(t, err)
	require.Equal(t, training.Changes{New: []string{"d"}, Changed: []string{"b"}, Finished: []string{"a"}, Removed: []string{"c"}}, changes)
	s, v := supervisor(t, r)
	_, err = finish(t, s)
	require.NoError(t, err)
	requireExact(t, r, "b", 4)
	requireExact(t, r, "d", 2)
	require.Contains(t, v.Calls(), "supersede b 0")
	require.NotContains(t, v.Calls(), "newest a 0")
	require.Len(t, ledger(t, r, training.EntryStart), 5, "three, then b and d")
}

func TestFreshTrainsEverythingAnewAndARerunGoesOnWithThat(t *testing.T) {
	dir := t.TempDir()
	p := func() *training.Plan {
		return trainingtest.Plan("digits", trainingtest.Model("a", trainingtest.Good("2", "1")...))
	}
	r := createPlan(t, dir, p())
	_, err := work(t, r)
	require.NoError(t, err)
	r, changes, err := training.Create(dir, p(), true)
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, changes.Changed)
	_, err = work(t, r)
	require.NoError(t, err)
	_, changes, err = training.Create(dir, p(), false)
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, changes.Finished)
	require.Len(t, ledger(t, r, training.EntryStart), 2)
}

// A model that left the plan and comes back has a result; --fresh means that it
// is not wanted.
func TestFreshAlsoMeansModelsThatComeBack(t *testing.T) {
	dir := t.TempDir()
	a, b := trainingtest.Model("a", trainingtest.Good("2", "1")...), trainingtest.Model("b", trainingtest.Good("2", "1")...)
	_, err := work(t, createPlan(t, dir, trainingtest.Plan("digits", a, b)))
	require.NoError(t, err)
	createPlan(t, dir, trainingtest.Plan("digits", b))
	_, changes, err := training.Create(dir, trainingtest.Plan("digits", a, b), true)
	require.NoError(t, err)
	require.Equal(t, training.Changes{New: []string{"a"}, Changed: []string{"b"}}, changes)
}

func TestAProgramWithoutEventsIsDoneWhenItEndsWell(t *testing.T) {
	r := create(t, trainingtest.Model("a", "print hello"))
	status, err := work(t, r)
	require.NoError(t, err)
	require.Equal(t, training.ModelDone, model(t, status, "a").State)
	require.DirExists(t, r.ModelPath("a", "final"))
	text, err := r.Log("a", 1)
	require.NoError(t, err)
	require.Equal(t, "hello\n", text)
}

func TestCommandsGetTheirNamesAndParameters(t *testing.T) {
	p := trainingtest.Plan("digits", training.Model{Name: "a", Params: map[string]any{"lr": 0.5, "depth": 3}})
	p.Code.Command = []string{"echo", "{name} lr={lr}", "{depth}", "{unknown}"}
	p.Seal()
	r := createPlan(t, t.TempDir(), p)
	_, err := work(t, r)
	require.NoError(t, err)
	text, err := r.Log("a", 1)
	require.NoError(t, err)
	require.Equal(t, "a lr=0.5 3 {unknown}\n", text)
}

func TestDamagedCheckpointsAreToldAndTheOneBeforeIsUsed(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "restore", "@1 train 4 every 100", "@1 checkpoint asked", "@1 train 6 every 100", "@1 checkpoint asked", "@1 exit 3", "train 8 every 2", "finish"))
	p := *r.Plan()
	p.Settings.Retries = 0
	r = createPlan(t, r.DataDir(), &p)
	_, err := work(t, r)
	require.ErrorIs(t, err, training.ErrSomeFailed)
	require.NoError(t, os.WriteFile(r.ModelPath("a", "checkpoints", "6", "manifest.json"), nil, 0o644))
	status, err := work(t, r)
	require.NoError(t, err)
	requireExact(t, r, "a", 8)
	require.Contains(t, status.Notes, "a: the checkpoint at step 6 is damaged")
	require.Equal(t, "a: the checkpoint at step 6 is damaged", ledger(t, r, training.EntryNote)[0].Message)
	require.Equal(t, int64(4), ledger(t, r, training.EntryStart)[1].FromStep)
}

func TestAVaultThatFailsEndsTheRunAndSaysWhy(t *testing.T) {
	r := create(t, trainingtest.Model("a", trainingtest.Good("2", "1")...))
	s, v := supervisor(t, r)
	broken := errors.New("the cable is out")
	v.FailOn = func(call string, _ training.Checkpoint) error {
		if call == "newest" {
			return broken
		}
		return nil
	}
	status, err := finish(t, s)
	require.ErrorIs(t, err, broken)
	require.Equal(t, training.RunPaused, status.State)
	require.Contains(t, strings.Join(status.Notes, "\n"), "The run had to stop: the cable is out")
}

func TestACheckpointThatCannotBeSavedIsNotCalledDone(t *testing.T) {
	r := create(t, trainingtest.Model("a", trainingtest.Good("4", "100")...))
	s, v := supervisor(t, r)
	failures := 0
	v.FailOn = func(call string, c training.Checkpoint) error {
		if call == "save" && c.Step == 4 && failures < 1 {
			failures++
			return errors.New("input/output error")
		}
		return nil
	}
	_, err := finish(t, s)
	require.NoError(t, err)
	requireExact(t, r, "a", 4)
	ends := ledger(t, r, training.EntryEnd)
	require.Len(t, ends, 2)
	assert.Equal(t, training.CauseCrash, ends[0].Cause)
	assert.Contains(t, ends[0].Message, "input/output error")
}

func TestAPauseKeepsWhatWasHandedOverAndSaysHowToGoOn(t *testing.T) {
	r := create(t,
		trainingtest.Model("a", trainingtest.Good("2", "1")...),
		trainingtest.Model("b", "hello", "restore", "@1 train 3 every 100", "@1 touch here", "slow 1ms", "train 100 every 1000", "finish"),
		trainingtest.Model("c", trainingtest.Good("2", "1")...))
	s, v := supervisor(t, r)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	worked := make(chan error, 1)
	go func() { worked <- s.Work(ctx) }()
	reached(t, r)
	cancel()
	require.ErrorIs(t, <-worked, training.ErrPaused)
	status, err := r.Status()
	require.NoError(t, err)
	require.Equal(t, training.RunPaused, status.State)
	b := model(t, status, "b")
	assert.Equal(t, training.ModelPaused, b.State)
	assert.Equal(t, training.CausePaused, b.Cause)
	assert.GreaterOrEqual(t, b.Checkpoint.Step, int64(3), "the pause saved")
	assert.Equal(t, training.ModelPending, model(t, status, "c").State)
	assert.Equal(t, "flush  0", v.Calls()[len(v.Calls())-1])
	last := status.Notes[len(status.Notes)-1]
	assert.Regexp(t, `^Paused\. Done: a\. To do: b \(step \d+ of 100\), c\. To go on: outlast resume digits \(in a notebook: %resume digits\)$`, last)

	_, err = work(t, r)
	require.NoError(t, err)
	requireExact(t, r, "b", 100)
}

// The mirror knows of checkpoints before the supervisor has begun and after it
// has ended; neither disturbs the state.
func TestNewsOfTheStore(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "restore", "train 2 every 10", "checkpoint asked", "await gate", "train 4 every 10", "finish"))
	s, v := supervisor(t, r)
	s.Mirrored("a", 2, false, "mirrored")
	require.NoFileExists(t, filepath.Join(r.Dir(), "state.json"))
	v.FailOn = func(call string, c training.Checkpoint) error {
		if call == "finish" {
			go s.Mirrored("a", 2, false, "mirrored") // of an older one; from another goroutine
		}
		return nil
	}
	worked := make(chan error, 1)
	go func() { worked <- s.Work(t.Context()) }()
	until(t, "the checkpoint", func() bool { st := status(t, r); return st.Models[0].Checkpoint != nil })
	require.Equal(t, "local", status(t, r).Models[0].Checkpoint.Durability)
	s.Mirrored("a", 3, false, "mirrored")
	s.Mirrored("b", 2, false, "mirrored")
	s.Mirrored("a", 2, false, "handed")
	until(t, "the news", func() bool { return status(t, r).Models[0].Checkpoint.Durability == "handed" })
	release(t, r)
	require.NoError(t, <-worked)
	before, err := os.ReadFile(filepath.Join(r.Dir(), "state.json"))
	require.NoError(t, err)
	s.Mirrored("a", 4, false, "mirrored")
	after, err := os.ReadFile(filepath.Join(r.Dir(), "state.json"))
	require.NoError(t, err)
	require.Equal(t, string(before), string(after), "it may be the next supervisor's by now")
}
