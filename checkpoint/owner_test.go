package checkpoint_test

import (
	"context"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/checkpointtest"
)

// A writer is a rig that has taken the run over.
type writer struct {
	*rig
	store      checkpoint.Store
	generation int64
	name       string
	ended      chan error
}

// takeOver begins a process in a rig's folder, with the generation that this
// folder is due.
func takeOver(t *testing.T, r *rig, name string) *writer {
	t.Helper()
	last, err := checkpoint.LastGeneration(r.Dir)
	require.NoError(t, err)
	w := &writer{r, r.mirror.Store, last + 1, name, make(chan error, 1)}
	require.NoError(t, w.mirror.TakeOver(w.generation, name))
	go func() { w.ended <- w.mirror.Run(t.Context()) }()
	return w
}

// onAnother restores the run on another machine and takes it over there.
func onAnother(t *testing.T, store checkpoint.Store, name string) (*writer, checkpoint.Report) {
	t.Helper()
	dir := t.TempDir()
	report, err := checkpoint.Restore(t.Context(), store, run, dir)
	require.NoError(t, err)
	return takeOver(t, rigIn(dir, store, 3), name), report
}

func (w *writer) manifest(step int64) checkpoint.Manifest {
	m := manifest(step)
	m.Generation, m.Writer = w.generation, w.name
	return m
}

func (w *writer) save(t *testing.T, step int64, what string) {
	t.Helper()
	w.mirror.Saved(model, step, saveAs(t, w.Keeper, w.manifest(step), content(what)), false)
}

func (w *writer) finish(t *testing.T, step int64, what string) {
	t.Helper()
	saveAs(t, w.Keeper, w.manifest(step), content(what))
	_, path, err := w.Finish(t.Context(), w.manifest(step))
	require.NoError(t, err)
	w.mirror.Saved(model, step, path, true)
}

// requireFenced requires that the mirror has ended because of by.
func (w *writer) requireFenced(t *testing.T, by *writer) {
	t.Helper()
	var fenced, flushed *checkpoint.FencedError
	require.ErrorAs(t, <-w.ended, &fenced)
	require.Equal(t, by.name, fenced.By.Writer)
	require.Equal(t, by.generation, fenced.By.Generation)
	require.Contains(t, fenced.Error(), by.name)
	require.NotEmpty(t, fenced.Cure())
	require.ErrorAs(t, w.mirror.Flush(t.Context()), &flushed)
	w.mirror.Touch("run.json")
	n, _, err := w.mirror.Pending()
	require.Zero(t, n)
	require.ErrorAs(t, err, &flushed)
	require.NoDirExists(t, filepath.Join(w.Dir, "outbox", model, "10-1"))
}

// alone runs f in a bubble with a run that one writer has at steps 10 and 20.
func alone(t *testing.T, f func(t *testing.T, s *checkpointtest.Memory, a *writer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := new(checkpointtest.Memory)
		wrong := watchWhole(s)
		a := takeOver(t, newRig(t, s, 3), "a")
		for _, step := range []int64{10, 20} {
			a.save(t, step, "a")
			a.flush(t)
		}
		f(t, s, a)
		require.Empty(t, wrong(), "the store never shows what is not whole")
	})
}

// Who has taken the run over last writes it; the one before stops before it
// publishes, touches nothing, and loses nothing.
func TestASecondRuntimeFencesTheFirst(t *testing.T) {
	alone(t, func(t *testing.T, s *checkpointtest.Memory, a *writer) {
		b, report := onAnother(t, s, "b")
		require.Equal(t, int64(1), report.Generation)
		require.Equal(t, int64(2), b.generation)
		b.flush(t)
		before := snapshot(t, s)

		write(t, a.Dir, files{"run.json": "{}", "models/cnn/metrics.jsonl": "a's"})
		a.mirror.Touch("run.json")
		a.save(t, 25, "a")
		a.requireFenced(t, b)
		require.Equal(t, before, snapshot(t, s), "not a byte of it was sent")
		requireCheckpoint(t, checkpoints(a.Keeper, "25"), 25, content("a"))

		b.save(t, 30, "b")
		b.flush(t)
		require.Equal(t, "weights of b", stored(t, s, inStore("checkpoints/30/model.pt")))
		require.Contains(t, b.said(), "cnn 30 mirrored")
	})
}

func snapshot(t *testing.T, s *checkpointtest.Memory) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, name := range s.Names() {
		all[name] = stored(t, s, name)
	}
	return all
}

// A takeover in the middle of a copy keeps the manifest from being written.
func TestATakeoverInTheMiddleOfACopy(t *testing.T) {
	alone(t, func(t *testing.T, s *checkpointtest.Memory, a *writer) {
		half, release := make(chan struct{}), make(chan struct{})
		s.Fail(func(_ context.Context, op checkpointtest.Op) error {
			if op == (checkpointtest.Op{Method: "Put", Name: inStore("checkpoints/30/model.pt")}) {
				close(half)
				<-release
			}
			return nil
		})
		a.save(t, 30, "a")
		<-half
		b, _ := onAnother(t, s, "b")
		b.flush(t)
		close(release)
		a.requireFenced(t, b)
		require.Equal(t, []string{"10", "20"}, stepsInStore(s))
	})
}

// The same folder goes on: after a restart, and after a crash right between the
// note of the claim on the disk and the claim in the store, or after it.
func TestARestartIsNoTakeover(t *testing.T) {
	for name, fail := range map[string]func(context.Context, checkpointtest.Op) error{
		"a restart":       nil,
		"a claim too few": failing("Put", "Get"),
	} {
		t.Run(name, func(t *testing.T) {
			alone(t, func(t *testing.T, s *checkpointtest.Memory, a *writer) {
				s.Fail(fail)
				lost := a.another()
				require.NoError(t, lost.mirror.TakeOver(2, "lost"))
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- lost.mirror.Run(ctx) }()
				time.Sleep(time.Minute)
				cancel()
				require.NoError(t, <-ended)
				s.Fail(nil)

				last := takeOver(t, a.another(), "last")
				require.Equal(t, int64(3), last.generation)
				last.save(t, 30, "last")
				last.flush(t)
				require.Equal(t, []string{"10", "20", "30"}, stepsInStore(s))
			})
		})
	}
}

// Of two that take over at the same moment one goes on.
func TestTwoTakeOverAtOnce(t *testing.T) {
	alone(t, func(t *testing.T, s *checkpointtest.Memory, _ *writer) {
		looked, release := make(chan struct{}), make(chan struct{})
		s.Fail(func(ctx context.Context, op checkpointtest.Op) error {
			if op.Method == "Put" && path.Base(op.Name) == "generation.json" {
				looked <- struct{}{}
				<-release
			}
			return nil
		})
		b, _ := onAnother(t, s, "b")
		c, _ := onAnother(t, s, "c")
		<-looked
		<-looked // both have seen a's claim
		s.Fail(nil)
		close(release)
		b.save(t, 30, "b")
		c.save(t, 30, "c")
		synctest.Wait()
		time.Sleep(time.Minute)
		var claim string
		if strings.Contains(stored(t, s, run+"/generation.json"), `"b"`) {
			claim = "b"
			c.requireFenced(t, b)
		} else {
			claim = "c"
			b.requireFenced(t, c)
		}
		require.Equal(t, "weights of "+claim, stored(t, s, inStore("checkpoints/30/model.pt")))
	})
}

// A store that has a run of this name which this folder knows nothing of is not
// written to: somebody's work is in it.
func TestAFreshFolderDoesNotOverwriteARun(t *testing.T) {
	alone(t, func(t *testing.T, s *checkpointtest.Memory, a *writer) {
		before := snapshot(t, s)
		stranger := takeOver(t, newRig(t, s, 3), "stranger")
		stranger.requireFenced(t, a)
		require.Equal(t, before, snapshot(t, s))
	})
}

// Both histories stay: what the first had published when the second took over
// without having seen it, and what it had not.
func TestBothHistoriesStay(t *testing.T) {
	alone(t, func(t *testing.T, s *checkpointtest.Memory, a *writer) {
		dir := t.TempDir() // b restores at 20 ...
		_, err := checkpoint.Restore(t.Context(), s, run, dir)
		require.NoError(t, err)
		for _, step := range []int64{30, 40, 50} { // ... while a goes on
			a.save(t, step, "a")
			a.flush(t)
		}
		a.finish(t, 50, "a")
		a.flush(t)
		b := takeOver(t, rigIn(dir, s, 2), "b")
		for _, step := range []int64{30, 40, 60, 70, 80} {
			b.save(t, step, "b")
			b.flush(t)
		}
		b.finish(t, 80, "b")
		b.flush(t)

		require.Equal(t, []string{"30", "40", "50", "70", "80"}, stepsInStore(s), "a's are not b's to remove or replace")
		for _, step := range []string{"30", "40", "50"} {
			require.Equal(t, "weights of a", stored(t, s, inStore("checkpoints/"+step+"/model.pt")))
		}
		require.Equal(t, "weights of b", stored(t, s, inStore("final/model.pt")))
		aside := inStore("superseded/g1-a/final")
		require.Equal(t, "weights of a", stored(t, s, aside+"/model.pt"))
		m, err := checkpoint.ReadManifest(strings.NewReader(stored(t, s, aside+"/manifest.json")))
		require.NoError(t, err)
		require.Equal(t, "a", m.Writer)
		requireRestores(t, s, 80, "b")
	})
}

// requireRestores requires that a fresh machine gets this.
func requireRestores(t *testing.T, s checkpoint.Store, step int64, what string) {
	t.Helper()
	dir := t.TempDir()
	report, err := checkpoint.Restore(t.Context(), s, run, dir)
	require.NoError(t, err)
	require.Equal(t, map[string]int64{model: step}, report.Restored)
	k := keeperIn(dir, 3)
	found, damage, err := k.Final(model, print)
	require.NoError(t, err)
	if found.Path == "" {
		found, damage, err = k.Newest(model, print)
		require.NoError(t, err)
	}
	require.Empty(t, damage)
	requireCheckpoint(t, found.Path, step, content(what))
}

// The history that was taken over leads, though the other has later steps and
// even a result; without it, what is left of the other is better than nothing.
func TestRestorePrefersTheLaterHistory(t *testing.T) {
	alone(t, func(t *testing.T, s *checkpointtest.Memory, a *writer) {
		dir := t.TempDir()
		_, err := checkpoint.Restore(t.Context(), s, run, dir)
		require.NoError(t, err)
		a.save(t, 40, "a")
		a.flush(t)
		a.finish(t, 50, "a")
		a.flush(t)
		b := takeOver(t, rigIn(dir, s, 3), "b")
		b.save(t, 30, "b")
		b.flush(t)
		requireRestores(t, s, 30, "b")

		s.Corrupt(inStore("checkpoints/30/model.pt"), flip)
		requireRestores(t, s, 50, "a")
	})
}

// The first comes back for what the second has done: its own later steps, of the
// history that was left behind, go aside and are not taken for newer.
func TestTheFirstComesBack(t *testing.T) {
	alone(t, func(t *testing.T, s *checkpointtest.Memory, a *writer) {
		b, _ := onAnother(t, s, "b")
		b.save(t, 30, "b")
		b.flush(t)
		a.save(t, 30, "a")
		a.save(t, 40, "a")
		a.requireFenced(t, b)

		write(t, a.Dir, files{"models/cnn/metrics.jsonl": "a's own"})
		write(t, b.Dir, files{"models/cnn/metrics.jsonl": "a's up to 20, then b's"})
		b.save(t, 35, "b")
		b.flush(t)
		again := takeOver(t, a.another(), "again")
		again.requireFenced(t, b) // a restart alone is not enough

		report, err := checkpoint.Restore(t.Context(), s, run, a.mirror.Dir)
		require.NoError(t, err)
		require.Equal(t, map[string]int64{model: 35}, report.Restored)
		require.Len(t, report.Notes, 2)
		require.Contains(t, report.Notes[0], "superseded/g1-a")
		metrics, err := os.ReadFile(modelFolder(a.Keeper, "metrics.jsonl"))
		require.NoError(t, err)
		require.Equal(t, "a's up to 20, then b's", string(metrics))
		metrics, err = os.ReadFile(modelFolder(a.Keeper, "superseded", "g1-a", "metrics.jsonl"))
		require.NoError(t, err)
		require.Equal(t, "a's own", string(metrics))
		found, damage, err := a.Newest(model, print)
		require.NoError(t, err)
		require.Empty(t, damage)
		requireCheckpoint(t, found.Path, 35, content("b"))
		requireCheckpoint(t, modelFolder(a.Keeper, "superseded", "g1-a", "checkpoints", "40"), 40, content("a"))

		back := takeOver(t, a.another(), "back")
		require.Greater(t, back.generation, b.generation)
		back.save(t, 50, "back")
		back.flush(t)
		b.save(t, 60, "b")
		b.requireFenced(t, back)
		requireRestores(t, s, 50, "back")
	})
}

// Each process that the first began in vain has raised its generation, above the
// second's. What it has saved then is not taken for later all the same, also when
// the second's last process has not saved anything yet.
func TestTheFirstComesBackAfterTryingInVain(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, b *writer){
		"the second works":   func(t *testing.T, b *writer) { b.save(t, 100, "b") },
		"the second is done": func(t *testing.T, b *writer) { b.finish(t, 100, "b") },
		"the second goes on": func(t *testing.T, b *writer) {
			b.save(t, 100, "b")
			b.flush(t)
			takeOver(t, b.another(), "b again").flush(t)
		},
		"a third has it": func(t *testing.T, b *writer) {
			b.save(t, 100, "b")
			b.flush(t)
			c, _ := onAnother(t, b.store, "c")
			c.flush(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			alone(t, func(t *testing.T, s *checkpointtest.Memory, a *writer) {
				b, _ := onAnother(t, s, "b")
				end(t, b)
				b.mirror.Flush(t.Context()) //nolint:errcheck // another may have it by now
				for step, vain := range []string{"vain", "vainer", "vainest"} {
					w := takeOver(t, a.another(), vain)
					require.Error(t, <-w.ended)
					w.save(t, int64(51+step), "a")
				}
				report, err := checkpoint.Restore(t.Context(), s, run, a.mirror.Dir)
				require.NoError(t, err)
				require.Equal(t, map[string]int64{model: 100}, report.Restored)
				require.Contains(t, report.Notes[0], "superseded/g4-vainest")
				requireCheckpoint(t, modelFolder(a.Keeper, "superseded", "g4-vainest", "checkpoints", "53"), 53, content("a"))
				takeOver(t, a.another(), "back").flush(t)
				requireRestores(t, s, 100, "b")
			})
		})
	}
}

// Also when the second has come further, what the first has goes aside: its
// checkpoints and its log tell of steps that the second has done otherwise.
func TestTheFirstComesBackLater(t *testing.T) {
	alone(t, func(t *testing.T, s *checkpointtest.Memory, a *writer) {
		b, _ := onAnother(t, s, "b")
		b.save(t, 90, "b")
		b.flush(t)
		write(t, a.Dir, files{"models/cnn/metrics.jsonl": "a's own"})
		a.save(t, 30, "a")
		a.requireFenced(t, b)
		_, err := checkpoint.Restore(t.Context(), s, run, a.mirror.Dir)
		require.NoError(t, err)
		require.Equal(t, []string{"90"}, stepFolders(t, a.Keeper))
		requireCheckpoint(t, modelFolder(a.Keeper, "superseded", "g1-a", "checkpoints", "30"), 30, content("a"))
		metrics, err := os.ReadFile(modelFolder(a.Keeper, "metrics.jsonl"))
		require.NoError(t, err)
		require.Equal(t, "{\"step\":0}\n", string(metrics))
	})
}

// A folder that was fetched before is brought up to date, its log as well.
func TestRestoreBringsTheLogUpToDate(t *testing.T) {
	alone(t, func(t *testing.T, s *checkpointtest.Memory, a *writer) {
		dir := t.TempDir()
		_, err := checkpoint.Restore(t.Context(), s, run, dir)
		require.NoError(t, err)
		write(t, a.Dir, files{"models/cnn/metrics.jsonl": "more"})
		a.save(t, 30, "a")
		a.flush(t)
		report, err := checkpoint.Restore(t.Context(), s, run, dir)
		require.NoError(t, err)
		require.Len(t, report.Notes, 1, "nothing was put aside")
		metrics, err := os.ReadFile(modelFolder(keeperIn(dir, 3), "metrics.jsonl"))
		require.NoError(t, err)
		require.Equal(t, "more", string(metrics))
	})
}

// A checkpoint that is ahead of the store's, of the same history, is kept.
func TestRestoreKeepsWhatIsAhead(t *testing.T) {
	alone(t, func(t *testing.T, s *checkpointtest.Memory, a *writer) {
		s.Fail(failing("Put"))
		a.save(t, 30, "a")
		time.Sleep(time.Minute)
		report, err := checkpoint.Restore(t.Context(), s, run, a.mirror.Dir)
		require.NoError(t, err)
		require.Empty(t, report.Notes)
		require.Equal(t, map[string]int64{model: 30}, report.Restored)
		require.Equal(t, steps(10, 20, 30), stepFolders(t, a.Keeper))
	})
}

// A claim that nobody can read is nobody's.
func TestADamagedClaim(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "torn": `{"format":1,"gen`, "another format": `{"format":2,"generation":9,"writer":"z"}`,
		"negative": `{"format":1,"generation":-9,"writer":"z"}`,
	} {
		t.Run(name, func(t *testing.T) {
			alone(t, func(t *testing.T, s *checkpointtest.Memory, a *writer) {
				s.Corrupt(run+"/generation.json", func([]byte) []byte { return []byte(text) })
				a.save(t, 30, "a")
				a.flush(t)
				require.Contains(t, stored(t, s, run+"/generation.json"), `"writer": "a"`)
			})
		})
	}
}

// A store that is away when the run is taken over delays the claim, and nothing
// is sent before it.
func TestAClaimWaitsForItsStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(checkpointtest.Memory)
		s.Fail(failing("Put"))
		a := takeOver(t, newRig(t, s, 3), "a")
		a.save(t, 10, "a")
		time.Sleep(time.Hour)
		for _, op := range s.Ops() {
			require.Equal(t, run+"/generation.json", op.Name, "%v", op)
		}
		s.Fail(nil)
		a.flush(t)
		require.Equal(t, []string{"10"}, stepsInStore(s))
		require.Equal(t, []string{"cnn 10 mirrored"}, a.said())
	})
}

func TestLastGeneration(t *testing.T) {
	k := newKeeper(t, 3)
	last, err := checkpoint.LastGeneration(k.Dir)
	require.NoError(t, err)
	require.Zero(t, last)

	m := manifest(10)
	m.Generation = 7
	saveAs(t, k, m, content("10"))
	last, err = checkpoint.LastGeneration(k.Dir)
	require.NoError(t, err)
	require.Equal(t, int64(7), last, "the ledger may be lost")

	write(t, k.Dir, files{"lineage.json": "{"})
	_, err = checkpoint.LastGeneration(k.Dir)
	require.Error(t, err)
	require.Error(t, rigIn(filepath.Dir(k.Dir), new(checkpointtest.Memory), 3).mirror.TakeOver(8, "w"))
}
