//go:build unix

package magics_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/magics"
	"outlast/training"
	"outlast/training/trainingtest"
)

// A workplace is a notebook with %keepalive on a fake clock, beside a run that
// works as long as the test holds its supervisor's lock.
type workplace struct {
	magics.Notebook // nil: what %keepalive does not ask for

	deps   *magics.Deps
	set    magics.Set // of one notebook
	cell   typed
	lock   *flock.Flock
	python error    // what Python says to any code
	ran    []string // code

	mu    sync.Mutex
	busy  []bool        // what the kernel was told
	shown []magics.View // by the cards
}

// inWorkplace runs a test on a fake clock, from noon.
func inWorkplace(t *testing.T, host magics.Host, test func(t *testing.T, w *workplace)) {
	t.Helper()
	d := deps(t)
	d.Host, d.KernelID = host, "the-kernel"
	run, _, err := training.Create(d.Dir, trainingtest.Plan("digits", trainingtest.Model("m")), false)
	require.NoError(t, err)
	lock := filepath.Join(run.Dir(), "supervisor.lock")
	require.NoError(t, os.WriteFile(lock, fmt.Appendf(nil, "%d 0", os.Getpid()), 0o644))
	state, err := json.Marshal(training.Status{
		Run: "digits", State: training.RunRunning, Models: []training.ModelStatus{{Name: "m", State: training.ModelRunning}},
	})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(run.Dir(), "state.json"), state, 0o644))
	synctest.Test(t, func(t *testing.T) {
		w := &workplace{deps: d, set: magics.All(d), lock: flock.New(lock)}
		w.cell.screen.watch = w.see
		now := time.Now()
		time.Sleep(time.Until(time.Date(now.Year(), now.Month(), now.Day()+1, 12, 0, 0, 0, time.Local)))
		test(t, w)
		w.run(t, "keepalive off")
		require.NoError(t, w.lock.Close())
	})
}

// run runs one line in the notebook.
func (w *workplace) run(t *testing.T, line string) {
	t.Helper()
	require.NoError(t, w.try(t.Context(), line), line)
}

func (w *workplace) try(ctx context.Context, line string) error {
	words := strings.Fields(line)
	call := &magics.Call{Stdout: &w.cell.out, Stderr: &w.cell.errs, Screen: &w.cell.screen, Notebook: w}
	return w.set.Lookup(words[0]).Run(ctx, words[1:], call)
}

// begin and end are the run's.
func (w *workplace) begin(t *testing.T) {
	t.Helper()
	got, err := w.lock.TryLock()
	require.NoError(t, err)
	require.True(t, got)
}

func (w *workplace) end(t *testing.T) {
	t.Helper()
	require.NoError(t, w.lock.Unlock())
}

// pass lets time go by.
func (w *workplace) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// Working implements magics.Notebook.
func (w *workplace) Working(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy = append(w.busy, on)
}

// Exec implements magics.Notebook.
func (w *workplace) Exec(_ context.Context, code string) error {
	w.ran = append(w.ran, code)
	return w.python
}

func (w *workplace) see(v magics.View) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.shown = append(w.shown, v)
}

// told returns what the kernel was told so far, in turn busy and idle.
func (w *workplace) told() []bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.busy
}

// cards returns how often a card was sent, and the last one.
func (w *workplace) cards() (int, magics.View) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.shown), w.shown[len(w.shown)-1]
}

// page returns the text of all that can be seen.
func (w *workplace) page() string { return w.cell.screen.text() }

func TestTheKernelIsBusyExactlyAsLongAsARunWorks(t *testing.T) {
	inWorkplace(t, magics.HostJupyter, func(t *testing.T, w *workplace) {
		w.run(t, "keepalive")
		w.pass(10 * time.Second)
		assert.Empty(t, w.told(), "nothing works, and a notebook that does nothing is idle")
		_, card := w.cards()
		assert.Contains(t, card.Text, "Keep-alive: on; nothing works now")

		w.begin(t)
		w.pass(10 * time.Second)
		assert.Equal(t, []bool{true}, w.told())
		_, card = w.cards()
		assert.Contains(t, card.Text, "busy as long as this works: digits (last sign of life at ")
		assert.Contains(t, card.HTML, `"working":true`)

		w.end(t)
		w.pass(10 * time.Second)
		assert.Equal(t, []bool{true, false}, w.told())
		_, card = w.cards()
		assert.Contains(t, card.HTML, `"working":false`)
	})
}

func TestSignsOfLifeComeAsLongAsARunWorksAndNoLonger(t *testing.T) {
	inWorkplace(t, magics.HostJupyter, func(t *testing.T, w *workplace) {
		w.begin(t)
		w.run(t, "keepalive --every 10s")
		w.pass(time.Second)
		before, _ := w.cards()
		w.pass(time.Hour)
		after, _ := w.cards()
		assert.Equal(t, 360, after-before, "each is a message, also where nothing in it has changed but the time")
		w.run(t, "keepalive status")
		assert.Contains(t, w.page(), "Kernel's signs of life: 361, one every 10 s, the last at 13:00:0")

		w.end(t)
		w.pass(time.Minute)
		quiet, _ := w.cards()
		w.pass(24 * time.Hour)
		still, _ := w.cards()
		assert.Equal(t, quiet, still)
	})
}

func TestForEndsTheKeepAliveAlthoughTheRunGoesOn(t *testing.T) {
	inWorkplace(t, magics.HostJupyter, func(t *testing.T, w *workplace) {
		w.begin(t)
		w.run(t, "keepalive --for 90m")
		w.pass(89 * time.Minute)
		assert.Equal(t, []bool{true}, w.told())
		_, card := w.cards()
		assert.Contains(t, card.Text, "Keep-alive: on until 13:30:00, and the kernel is busy")
		w.pass(2 * time.Minute)
		assert.Equal(t, []bool{true, false}, w.told())
		_, card = w.cards()
		assert.Contains(t, card.Text, "Keep-alive: over since 13:30:00, as --for said")
		assert.NotContains(t, card.HTML, "<script>", "nobody has to watch any more")
	})
}

func TestOffIsIdleAtOnceAndTheCardSaysSo(t *testing.T) {
	inWorkplace(t, magics.HostJupyter, func(t *testing.T, w *workplace) {
		w.begin(t)
		w.run(t, "keepalive")
		w.pass(time.Second)
		w.run(t, "keepalive off")
		assert.Equal(t, []bool{true, false}, w.told())
		assert.Contains(t, w.page(), "Keep-alive: off since 12:00:01")
		const off = "Keep-alive is off. digits goes on, but an idle notebook may be stopped with its machine."
		last := w.cell.screen.shown[len(w.cell.screen.shown)-1]
		assert.Equal(t, off, strings.TrimSpace(last.Text))
		assert.Contains(t, last.HTML, ">"+off+"<")
		w.run(t, "keepalive status")
		assert.Contains(t, w.page(), "%keepalive switches it on again")
	})
}

func TestRunAgainItTakesThePlaceOfTheCardBefore(t *testing.T) {
	inWorkplace(t, magics.HostJupyter, func(t *testing.T, w *workplace) {
		w.begin(t)
		for range 3 {
			w.run(t, "keepalive")
			w.pass(time.Second)
		}
		assert.Equal(t, []bool{true, false, true, false, true}, w.told())
		assert.Equal(t, 2, strings.Count(w.page(), "Keep-alive: off since"), "the two before")
		assert.Equal(t, 1, strings.Count(w.page(), "Keep-alive: on"))
		before, _ := w.cards()
		w.pass(10 * time.Minute)
		after, _ := w.cards()
		assert.Equal(t, 10, after-before, "one watches")
	})
}

func TestTheCardWarnsBeforeTheMachineEnds(t *testing.T) {
	inWorkplace(t, magics.HostColab, func(t *testing.T, w *workplace) {
		began := time.Now().Add(-10*time.Hour - 50*time.Minute)
		w.deps.MachineAge = func() (time.Duration, error) { return time.Since(began), nil }
		w.begin(t)
		w.run(t, "keepalive")
		w.pass(9 * time.Minute)
		_, card := w.cards()
		assert.NotContains(t, card.Text, "Limit near")
		assert.Contains(t, card.Text, "this machine was up for 10 h 5")

		w.pass(90 * time.Second)
		_, card = w.cards()
		assert.Contains(t, card.Text, "⚠ Limit near: the host usually ends this machine at about 13:10:00")
		assert.Contains(t, card.Text, "%stop digits, then %resume on the next machine")
		assert.Contains(t, card.HTML, "⚠ Limit near", "in words, not by a colour")

		w.pass(2 * time.Hour)
		_, card = w.cards()
		assert.NotContains(t, card.Text, "Limit near", "it was wrong about this machine")
		assert.Contains(t, card.Text, "beyond the usual limit of 12 h")
	})
}

func TestAnIdleNotebookIsWarnedToo(t *testing.T) {
	inWorkplace(t, magics.HostKaggle, func(t *testing.T, w *workplace) {
		began := time.Now().Add(-11*time.Hour + time.Minute)
		w.deps.MachineAge = func() (time.Duration, error) { return time.Since(began), nil }
		w.run(t, "keepalive")
		w.pass(2 * time.Minute)
		_, card := w.cards()
		assert.Contains(t, card.Text, "Limit near: the host usually ends this machine at about 13:01:00.")
	})
}

func TestAPageOfColabIsHeard(t *testing.T) {
	inWorkplace(t, magics.HostColab, func(t *testing.T, w *workplace) {
		w.run(t, "keepalive")
		require.Len(t, w.ran, 1)
		assert.Contains(t, w.ran[0], `register_callback("outlast_beat"`)
		w.run(t, "keepalive status")
		assert.Contains(t, w.page(), "Page's last sign of life: none yet.")
		w.pass(time.Minute)
		w.run(t, "keepalive beat")
		w.run(t, "keepalive status")
		assert.Contains(t, w.page(), "Page's last sign of life: 12:01:00.")
	})
}

func TestAPythonWithoutGoogleColabIsSaidToBeOne(t *testing.T) {
	inWorkplace(t, magics.HostColab, func(t *testing.T, w *workplace) {
		w.python = errors.New("ModuleNotFoundError: No module named 'google'")
		w.run(t, "keepalive")
		w.run(t, "keepalive status")
		assert.Contains(t, w.page(), "none: google.colab could not be reached")
	})
}

func TestElsewhereNothingIsOfferedToThePage(t *testing.T) {
	inWorkplace(t, magics.HostJupyterHub, func(t *testing.T, w *workplace) {
		w.run(t, "keepalive")
		assert.Empty(t, w.ran)
		w.run(t, "keepalive status")
		assert.Contains(t, w.page(), "they ask the server")
	})
}

// restart puts another process in the place of the notebook's: it knows nothing but
// what the one before, which had no time to say anything, has left on the disk.
func (w *workplace) restart(t *testing.T) {
	t.Helper()
	left, err := os.ReadFile(w.deps.KeepNote)
	w.run(t, "keepalive off") // else its goroutines would live on
	if err == nil {
		require.NoError(t, os.WriteFile(w.deps.KeepNote, left, 0o600))
	}
	w.mu.Lock()
	w.busy = nil
	w.mu.Unlock()
	w.deps.Session = &magics.Session{}
	w.set = magics.All(w.deps)
	w.set.Wake(w.Working)
}

func TestARestartedKernelIsBusyAgainAsLongAsARunWorks(t *testing.T) {
	inWorkplace(t, magics.HostJupyter, func(t *testing.T, w *workplace) {
		w.deps.KeepNote = filepath.Join(t.TempDir(), "keepalive", "the-kernel.json")
		w.begin(t)
		w.run(t, "keepalive --every 10s")
		w.pass(time.Second)

		w.restart(t)
		w.pass(35 * time.Second)
		assert.Equal(t, []bool{true, true, true, true, true}, w.told(), "at once, and then signs of life without a card")
		w.run(t, "keepalive status")
		assert.Contains(t, w.page(), "Keep-alive: on again since this kernel was restarted at 12:00:01, and the kernel is busy as long as this works: digits")
		assert.Contains(t, w.page(), "Its card: ended with the kernel before; %keepalive shows a new one.")

		w.end(t)
		w.pass(10 * time.Second)
		told := w.told()
		assert.False(t, told[len(told)-1], "nothing works any more")
		w.pass(time.Hour)
		assert.Equal(t, told, w.told())

		w.run(t, "keepalive")
		_, card := w.cards()
		assert.Contains(t, card.Text, "Keep-alive: on; nothing works now", "a new card takes its place")
	})
}

func TestARestartedKernelLeavesOffWhatWasOff(t *testing.T) {
	for name, line := range map[string]string{"never on": "", "off": "keepalive off", "over": "keepalive --for 1m"} {
		t.Run(name, func(t *testing.T) {
			inWorkplace(t, magics.HostJupyter, func(t *testing.T, w *workplace) {
				w.deps.KeepNote = filepath.Join(t.TempDir(), "keepalive", "the-kernel.json")
				w.begin(t)
				if line != "" {
					w.run(t, "keepalive")
					w.run(t, line)
				}
				w.pass(2 * time.Minute)
				w.restart(t)
				w.pass(time.Minute)
				assert.Empty(t, w.told())
				w.run(t, "keepalive status")
				assert.Contains(t, w.page(), "Keep-alive: off; %keepalive switches it on.")
			})
		})
	}
}

func TestAKeepAliveThatCannotBeRememberedIsOnAllTheSame(t *testing.T) {
	inWorkplace(t, magics.HostJupyter, func(t *testing.T, w *workplace) {
		file := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(file, nil, 0o644))
		w.deps.KeepNote = filepath.Join(file, "the-kernel.json")
		w.run(t, "keepalive")
		assert.Contains(t, w.page(), "Keep-alive: on")
		assert.Contains(t, w.cell.errs.String(), "It ends with this kernel, also if that is restarted: remember the keep-alive: ")
	})
}

func TestEveryHostSaysWhatHelpsAndWhatCannot(t *testing.T) {
	for _, host := range []magics.Host{
		magics.HostColab, magics.HostColabEnterprise, magics.HostKaggle, magics.HostJupyterHub, magics.HostVSCode, magics.HostJupyter, magics.HostConsole,
	} {
		t.Run(string(host), func(t *testing.T) {
			inWorkplace(t, host, func(t *testing.T, w *workplace) {
				w.run(t, "keepalive")
				_, card := w.cards()
				assert.Contains(t, card.Text, "Host: "+string(host))
				assert.Regexp(t, `(?m)^Protects: .{30,}\.$`, card.Text)
				assert.Regexp(t, `(?m)^Cannot be helped: .{30,}\.$`, card.Text)
				assert.Contains(t, card.HTML, `role="status"`)
				assert.Contains(t, card.HTML, `"kernel":"the-kernel"`)
			})
		})
	}
}

func TestKeepaliveSaysWhatIsWrongWithACall(t *testing.T) {
	inWorkplace(t, magics.HostJupyter, func(t *testing.T, w *workplace) {
		for line, why := range map[string]string{
			"keepalive maybe":             "on, off or status, not maybe",
			"keepalive on off":            "one name",
			"keepalive --for 0s":          "--for is a time",
			"keepalive --for -5m":         "--for is a time",
			"keepalive --for soon":        "soon",
			"keepalive --every 10ms":      "at least 1s",
			"keepalive off --for 2h":      "belong to on, not to off",
			"keepalive status --every 2m": "belong to on, not to status",
		} {
			err := w.try(t.Context(), line)
			var usage *magics.UsageError
			require.ErrorAs(t, err, &usage, line)
			assert.Contains(t, usage.Why, why, line)
		}
		w.run(t, "keepalive status")
		assert.Contains(t, w.page(), "Keep-alive: off; %keepalive switches it on.")
	})
}

func TestANotebookHasOneKeepAliveHoweverOftenItsMagicsAreMade(t *testing.T) {
	inWorkplace(t, magics.HostJupyter, func(t *testing.T, w *workplace) {
		w.run(t, "keepalive")
		w.set = magics.All(w.deps)
		w.run(t, "keepalive status")
		assert.Contains(t, w.page(), "On since: 12:00:00.")
	})
}
