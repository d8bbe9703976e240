//go:build unix

package training_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/training"
	"outlast/training/trainingtest"
)

// Whatever a worker writes, the run goes on, and what it says well is heard.
func TestBadEventsDoNotHideGoodOnes(t *testing.T) {
	tests := map[string]string{
		"no JSON":          `raw {"event":`,
		"no event":         `raw {}`,
		"another type":     `raw {"event": 5}`,
		"an empty line":    `raw `,
		"an unknown kind":  `event {"event": "tea"}`,
		"bytes, not text":  "raw \x00\xff\xfe",
		"a line too long":  "huge 3000000",
		"prints that lie":  `print {"event": "finish"}`,
		"restored again":   `event {"event": "restored", "step": 0}`,
		"a bad start time": `event {"event": "progress", "step": 1, "total": 0}`,
	}
	for name, bad := range tests {
		t.Run(name, func(t *testing.T) {
			r := create(t, trainingtest.Model("a", "hello", bad, "restore", "train 4 every 2", bad, "finish"))
			if name == "restored again" || name == "a bad start time" {
				r = create(t, trainingtest.Model("a", "hello", "restore", "train 4 every 2", bad, "finish"))
			}
			status, err := work(t, r)
			require.NoError(t, err)
			requireExact(t, r, "a", 4)
			require.Equal(t, 1, model(t, status, "a").Attempts)
		})
	}
}

// What no worker may do ends the attempt, and is not tried again.
func TestRefusedWorkers(t *testing.T) {
	elsewhere := t.TempDir()
	tests := map[string]struct{ line, why string }{
		"another protocol":               {"hello 2", "speaks protocol 2"},
		"a checkpoint of the user's":     {`event {"event":"checkpoint","step":1,"path":"` + elsewhere + `","reason":"due"}`, "$OUTLAST_STAGING"},
		"a way out of the staging":       {`event {"event":"checkpoint","step":1,"path":"$STAGING/../work","reason":"due"}`, "$OUTLAST_STAGING"},
		"the staging folder itself":      {`event {"event":"checkpoint","step":1,"path":"$STAGING","reason":"due"}`, "$OUTLAST_STAGING"},
		"a checkpoint that is not there": {`event {"event":"checkpoint","step":1,"path":"$STAGING/1","reason":"due"}`, "$OUTLAST_STAGING"},
		"a negative step":                {`event {"event":"checkpoint","step":-1,"path":"$STAGING","reason":"due"}`, "step -1"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := create(t, trainingtest.Model("a", test.line, "hang"), trainingtest.Model("b", trainingtest.Good("2", "1")...))
			status, err := work(t, r)
			require.ErrorIs(t, err, training.ErrSomeFailed)
			a := model(t, status, "a")
			assert.Equal(t, training.CauseError, a.Cause)
			assert.Contains(t, a.Error, test.why)
			assert.Equal(t, 1, a.Attempts)
			requireExact(t, r, "b", 2)
		})
	}
	require.DirExists(t, elsewhere)
}

func TestEventsThatAreClosedEarlyAreAnEndByStatus(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "restore", "@1 train 2 every 1", "@1 close", "@1 exit 4", "train 4 every 2", "finish"))
	_, err := work(t, r)
	require.NoError(t, err)
	requireExact(t, r, "a", 4)
	require.Equal(t, []training.Cause{training.CauseCrash, training.CauseDone}, causes(t, r))
}

// A tracker or a server that a program leaves behind keeps what it was given:
// the events and the lock. Neither may hold up the run.
func TestAProcessLeftBehindHoldsNothingUp(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "@1 child", "@1 exit 3", "restore", "train 4 every 2", "finish"))
	_, err := work(t, r)
	endChild(t, r)
	require.NoError(t, err)
	requireExact(t, r, "a", 4)
}

func endChild(t *testing.T, r *training.Run) {
	t.Helper()
	pid, err := strconv.Atoi(lines(t, filepath.Join(r.Dir(), "child"))[0])
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL), "it lives until now")
}

func TestAWorkerThatFinishedIsDoneHoweverItEnds(t *testing.T) {
	for _, end := range []string{"exit 1", "signal SEGV", "signal KILL", "fail user ValueError too late"} {
		t.Run(end, func(t *testing.T) {
			r := create(t, trainingtest.Model("a", "hello", "restore", "train 4 every 2", "finish", end))
			status, err := work(t, r)
			require.NoError(t, err)
			requireExact(t, r, "a", 4)
			require.Equal(t, 1, model(t, status, "a").Attempts)
		})
	}
}

func TestWhatAWorkerSaysAfterAPauseCounts(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "restore",
		"@1 train 2 every 100", `@1 event {"event":"paused","step":2}`, "@1 train 3 every 100", "@1 checkpoint asked", "@1 exit 75",
		"note checkpoint", "train 5 every 100", "finish"))
	_, err := work(t, r)
	require.NoError(t, err)
	requireExact(t, r, "a", 5)
	require.Equal(t, int64(3), ledger(t, r, training.EntryStart)[1].FromStep)
	require.Equal(t, []training.Cause{training.CauseKilled, training.CauseDone}, causes(t, r), "nobody of us had asked")
}

func TestAHangIsEndedAndTriedAgain(t *testing.T) {
	p := trainingtest.Plan("digits",
		trainingtest.Model("a", "hello", "restore", "deaf", "@1 train 3 every 2", "@1 hang", "train 6 every 2", "finish"),
		trainingtest.Model("b", "hello", "hang"))
	p.Settings.HangAfter = 0.3
	r := createPlan(t, t.TempDir(), p)
	status, err := work(t, r)
	require.ErrorIs(t, err, training.ErrSomeFailed)
	requireExact(t, r, "a", 6)
	require.Equal(t, []training.Cause{
		training.CauseHang, training.CauseDone,
		training.CauseHang, training.CauseHang, training.CauseHang,
	}, causes(t, r))
	require.Equal(t, "it gave no sign of life for 300ms and was ended. It hung 3 times in a row without a new checkpoint.", model(t, status, "b").Error)
}

// A stopped process cannot be asked, and is ended all the same.
func TestAStoppedWorkerHangs(t *testing.T) {
	p := trainingtest.Plan("digits", trainingtest.Model("a", "hello", "@1 signal STOP", "restore", "train 3 every 2", "finish"))
	p.Settings.HangAfter = 0.3
	r := createPlan(t, t.TempDir(), p)
	_, err := work(t, r)
	require.NoError(t, err)
	require.Equal(t, []training.Cause{training.CauseHang, training.CauseDone}, causes(t, r))
}

// Prints are a sign of life, and a program that knows no events is none of the
// watchdog's business.
func TestWhatIsNoHang(t *testing.T) {
	tests := map[string][]string{
		"it prints":           {"hello", "slow 200ms", "print 1", "restore", "train 1 every 9", "print 2", "train 2 every 9", "finish"},
		"it never said hello": {"slow 2ms", "await gate"},
	}
	for name, script := range tests {
		t.Run(name, func(t *testing.T) {
			p := trainingtest.Plan("digits", trainingtest.Model("a", script...))
			p.Settings.HangAfter = 0.35
			r := createPlan(t, t.TempDir(), p)
			go func() {
				time.Sleep(700 * time.Millisecond)                       // twice the limit, for the one that says nothing
				os.WriteFile(filepath.Join(r.Dir(), "gate"), nil, 0o644) //nolint:errcheck // its absence fails the test
			}()
			_, err := work(t, r)
			require.NoError(t, err)
			require.Equal(t, []training.Cause{training.CauseDone}, causes(t, r))
		})
	}
}

// Each new checkpoint may overtake one that was merely due, and nothing else.
func TestNewerCheckpointsOvertakeDueOnesOnly(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "restore",
		"train 1 every 1", "await saving", // the saver is busy with step 1
		"train 2 every 1", "train 3 every 1", "checkpoint asked", "train 4 every 1", "train 5 every 1", "finish", "touch said"))
	s, v := supervisor(t, r)
	v.FailOn = func(call string, c training.Checkpoint) error {
		if call == "save" && c.Step == 1 {
			require.NoError(t, os.WriteFile(filepath.Join(r.Dir(), "saving"), nil, 0o644))
			until(t, "the others", func() bool { _, err := os.Stat(filepath.Join(r.Dir(), "said")); return err == nil })
			until(t, "and that they are read", func() bool {
				entries, err := os.ReadDir(r.ModelPath("a", "staging"))
				return err == nil && len(entries) == 3 // step 1, the asked one, and the final one
			})
		}
		return nil
	}
	_, err := finish(t, s)
	require.NoError(t, err)
	requireExact(t, r, "a", 5)
	var saves []string
	for _, call := range v.Calls() {
		if strings.HasPrefix(call, "save") {
			saves = append(saves, call)
		}
	}
	require.Equal(t, []string{"save a 1", "save a 3", "save a 5"}, saves)
}
