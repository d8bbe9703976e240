//go:build unix

package training_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint/durable"
	"outlast/training"
	"outlast/training/trainingtest"
)

// atOnce makes a run whose models are trained so many at once.
func atOnce(t *testing.T, n training.Parallel, models ...training.Model) *training.Run {
	t.Helper()
	p := trainingtest.Plan("digits", models...)
	p.Settings.Parallel = n
	return createPlan(t, t.TempDir(), p)
}

// meeting is the script of a model that goes on only when all the others are
// there, too.
func meeting(name string, others ...string) []string {
	script := []string{"hello", "restore", "train 3 every 1", "touch " + name + ".here"}
	for _, other := range others {
		script = append(script, "await "+other+".here")
	}
	return append(script, "train 8 every 2", "finish")
}

// crowds replays a ledger: how many models were at work at once at most, and
// after each entry of a kind that is given the ones that were.
func crowds(t *testing.T, r *training.Run) (most int, order []string) {
	t.Helper()
	at := map[string]bool{}
	require.NoError(t, durable.ReadLog(filepath.Join(r.Dir(), "ledger.jsonl"), func(line []byte) error {
		var e training.Entry
		err := json.Unmarshal(line, &e)
		switch e.Type {
		case training.EntryStart:
			at[e.Model] = true
			order = append(order, e.Model)
		case training.EntryEnd:
			delete(at, e.Model)
			order = append(order, e.Model+" "+string(e.Cause))
		case training.EntryTakeover, training.EntryNote:
		}
		most = max(most, len(at))
		return err
	}))
	return most, order
}

func TestSeveralModelsAreTrainedAtOnce(t *testing.T) {
	r := atOnce(t, 3, trainingtest.Model("a", meeting("a", "b", "c")...), trainingtest.Model("b", meeting("b", "a", "c")...), trainingtest.Model("c", append(meeting("c", "a", "b")[:6], "await gate", "train 8 every 2", "finish")...))
	start(t, r)
	var s training.Status
	until(t, "two are done and one works", func() bool {
		s = status(t, r)
		return s.Models[0].State == training.ModelDone && s.Models[1].State == training.ModelDone && s.Models[2].WorkerPID != 0
	})
	require.Zero(t, s.Models[0].WorkerPID)
	release(t, r)
	require.Equal(t, training.RunDone, follow(t, r).State)
	for _, name := range []string{"a", "b", "c"} {
		requireExact(t, r, name, 8)
	}
	most, _ := crowds(t, r)
	require.Equal(t, 3, most)
}

func TestTwelveModelsTwoAtOnceAreAllTrainedOnce(t *testing.T) {
	var models []training.Model
	for i := range 12 {
		models = append(models, trainingtest.Model(fmt.Sprintf("m%02d", i), "hello", "restore", "slow 2ms", "train 30 every 7", "finish"))
	}
	r := atOnce(t, 2, models...)
	status, err := work(t, r)
	require.NoError(t, err)
	var began []string
	for i, m := range status.Models {
		requireExact(t, r, models[i].Name, 30)
		require.Equal(t, training.ModelDone, m.State)
		require.Equal(t, 1, m.Attempts)
	}
	for _, e := range ledger(t, r, training.EntryStart) {
		began = append(began, e.Model)
	}
	most, _ := crowds(t, r)
	require.Equal(t, 2, most)
	require.Len(t, began, 12)
	for i, name := range began { // of two that begin at once either may be faster
		require.InDelta(t, i, int(name[1]-'0')*10+int(name[2]-'0'), 2, "in the order of the plan")
	}
}

func TestOneAtATimeIsTheDefault(t *testing.T) {
	for _, n := range []training.Parallel{0, 1} {
		r := atOnce(t, n, trainingtest.Model("a", trainingtest.Good("3", "1")...), trainingtest.Model("b", trainingtest.Good("3", "1")...))
		_, err := work(t, r)
		require.NoError(t, err)
		_, order := crowds(t, r)
		require.Equal(t, []string{"a", "a done", "b", "b done"}, order)
	}
}

// endless is the script of a model that would train for a long time, and says
// that it has begun.
func endless(name string) []string {
	return []string{"hello", "restore", "@1 train 3 every 1", "@1 touch " + name + ".here", "@1 slow 5ms", "train 400 every 50", "finish"}
}

func here(t *testing.T, r *training.Run, names ...string) {
	t.Helper()
	for _, name := range names {
		until(t, name+" is here", func() bool {
			_, err := os.Stat(filepath.Join(r.Dir(), name+".here"))
			return err == nil
		})
	}
}

func TestAPauseReachesEverybodyAtWork(t *testing.T) {
	r := atOnce(t, 3, trainingtest.Model("a", endless("a")...), trainingtest.Model("b", endless("b")...), trainingtest.Model("c", endless("c")...), trainingtest.Model("d", trainingtest.Good("2", "1")...))
	start(t, r)
	here(t, r, "a", "b", "c")
	s, err := r.Pause(t.Context())
	require.NoError(t, err)
	require.Equal(t, training.RunPaused, s.State)
	for _, m := range s.Models[:3] {
		require.Equal(t, training.ModelPaused, m.State)
		require.Zero(t, m.WorkerPID)
		require.Equal(t, m.Step, m.Checkpoint.Step, "nothing is to be done again")
		require.Equal(t, trainingtest.StateAfter(m.Step), trainingtest.State(m.Checkpoint.Path))
	}
	require.Equal(t, training.ModelPending, s.Models[3].State)
	require.Contains(t, s.Notes[len(s.Notes)-1], "To do: a (step")
	start(t, r)
	require.Equal(t, training.RunDone, follow(t, r).State)
	for _, name := range []string{"a", "b", "c"} {
		requireExact(t, r, name, 400)
	}
}

func TestKillEndsEverybodyAtWork(t *testing.T) {
	script := func(name string) []string { return append([]string{"deaf"}, endless(name)...) }
	r := atOnce(t, 2, trainingtest.Model("a", script("a")...), trainingtest.Model("b", script("b")...))
	start(t, r)
	here(t, r, "a", "b")
	var s training.Status
	until(t, "both are shown", func() bool { s = status(t, r); return s.Models[0].WorkerPID*s.Models[1].WorkerPID != 0 })
	require.NoError(t, r.Kill(t.Context()))
	for _, pid := range []int{s.SupervisorPID, s.Models[0].WorkerPID, s.Models[1].WorkerPID} {
		until(t, "its end", func() bool { return syscall.Kill(pid, 0) != nil })
	}
	require.Equal(t, training.RunPaused, status(t, r).State)
	start(t, r)
	require.Equal(t, training.RunDone, follow(t, r).State)
	requireExact(t, r, "a", 400)
	requireExact(t, r, "b", 400)
}

func TestKillsAtAnyMomentLoseNothingThreeAtOnce(t *testing.T) {
	var models []training.Model
	for i := range 5 {
		models = append(models, trainingtest.Model(fmt.Sprint("m", i), "hello", "restore", "slow 1ms", "train 120 every 7", "finish"))
	}
	r := atOnce(t, 3, models...)
	for i := range 12 {
		start(t, r)
		time.Sleep(time.Duration(i*11) * time.Millisecond) // the moments differ; none of them matters
		require.NoError(t, r.Kill(t.Context()))
	}
	start(t, r)
	require.Equal(t, training.RunDone, follow(t, r).State)
	for _, m := range models {
		requireExact(t, r, m.Name, 120)
	}
}

func TestAFailureDoesNotStopThoseBesideIt(t *testing.T) {
	r := atOnce(t, 2, trainingtest.Model("bad", "hello", "touch bad.here", "await good.here", "fail user ValueError no"), trainingtest.Model("good", meeting("good", "bad")...), trainingtest.Model("next", trainingtest.Good("3", "1")...))
	s, err := work(t, r)
	require.ErrorIs(t, err, training.ErrSomeFailed)
	require.Equal(t, training.ModelFailed, model(t, s, "bad").State)
	requireExact(t, r, "good", 8)
	requireExact(t, r, "next", 3)
}

// What would stop every model pauses those at work: they lose nothing.
func TestALostDevicePausesThoseAtWork(t *testing.T) {
	r := atOnce(t, 2, trainingtest.Model("a", "hello", "await b.here", "fail device_lost X y"), trainingtest.Model("b", endless("b")...), trainingtest.Model("c", trainingtest.Good("2", "1")...))
	s, err := work(t, r)
	require.ErrorIs(t, err, training.ErrPaused)
	b := model(t, s, "b")
	require.Equal(t, training.ModelPaused, b.State)
	require.Equal(t, training.CausePaused, b.Cause)
	require.Equal(t, b.Step, b.Checkpoint.Step)
	require.Equal(t, training.ModelPending, model(t, s, "c").State)
	require.Contains(t, strings.Join(s.Notes, "\n"), "Restart the machine, then resume.")
}

func TestAnErrorOfTheMachinePausesThoseAtWork(t *testing.T) {
	r := atOnce(t, 2, trainingtest.Model("a", endless("a")...), trainingtest.Model("b", "hello", "await a.here", "exit 3"))
	s, v := supervisor(t, r)
	tries := 0
	v.FailOn = func(call string, c training.Checkpoint) error {
		if call == "newest" && c.Model == "b" {
			if tries++; tries == 2 {
				return syscall.EIO
			}
		}
		return nil
	}
	st, err := finish(t, s)
	require.ErrorIs(t, err, syscall.EIO)
	require.Equal(t, training.ModelPaused, model(t, st, "a").State)
	require.NotNil(t, model(t, st, "a").Checkpoint)
}

// onDevice makes a run of models that share a GPU.
func onDevice(t *testing.T, n training.Parallel, models ...training.Model) *training.Run {
	t.Helper()
	p := trainingtest.Plan("digits", models...)
	p.Settings.Parallel, p.Settings.Device, p.Settings.DeviceName, p.Settings.MemoryFraction = n, "cuda:0", "Tesla T4", 0.85
	return createPlan(t, t.TempDir(), p)
}

// A model that shares the device and lacks memory is first tried alone, with the
// whole device; the one beside it is not touched.
func TestOutOfMemoryBesideOthersIsAnsweredByBeingAlone(t *testing.T) {
	r := onDevice(t, 2,
		trainingtest.Model("a", "hello", "note batch_size", "note memory_fraction", "restore", "train 2 every 1", "touch a.here", "@1 await b.here", "@1 "+oom, "@2 "+oom, "train 8 every 2", "finish"),
		trainingtest.Model("b", "hello", "restore", "touch b.here", "await a.here", "slow 15ms", "train 40 every 10", "finish"),
		trainingtest.Model("c", trainingtest.Good("3", "1")...))
	s, err := work(t, r)
	require.NoError(t, err)
	requireExact(t, r, "a", 8)
	requireExact(t, r, "b", 40)
	require.Equal(t, []string{"16", "16", "8"}, lines(t, filepath.Join(r.Dir(), "a.batch_size")), "halved once it was alone")
	require.Equal(t, []string{"0.425", "0.85", "0.85"}, lines(t, filepath.Join(r.Dir(), "a.memory_fraction")))
	require.Contains(t, s.Notes[0], "it goes on alone, and its batch stays")
	require.Contains(t, s.Notes[1], "It goes on with batch 8 × accumulation 2")
	require.Equal(t, 1, model(t, s, "b").Attempts)
	_, order := crowds(t, r)
	require.Equal(t, []string{"a device_oom", "b done", "a", "a device_oom", "a", "a done", "c", "c done"}, order[2:], "c waits: a is not left for ever")
}

func TestOutOfHostMemoryBesideOthersIsAnsweredByFewerAtOnce(t *testing.T) {
	gate := func(name string, others ...string) []string {
		return append(append([]string{"note loader_workers"}, meeting(name, others...)[:6]...), "train 8 every 2", "finish")
	}
	a := []string{"hello", "note loader_workers", "restore", "train 2 every 1", "touch a.here", "@1 await b.here", "@1 await c.here", "@1 fail user MemoryError x", "train 8 every 2", "finish"}
	r := atOnce(t, 3, trainingtest.Model("a", a...), trainingtest.Model("b", gate("b", "a", "c")...), trainingtest.Model("c", gate("c", "a", "b")...),
		trainingtest.Model("d", trainingtest.Good("3", "1")...), trainingtest.Model("e", trainingtest.Good("3", "1")...), trainingtest.Model("f", trainingtest.Good("3", "1")...))
	s, err := work(t, r)
	require.NoError(t, err)
	for _, name := range []string{"a", "b", "c"} {
		requireExact(t, r, name, 8)
	}
	require.Equal(t, []string{"null", "null"}, lines(t, filepath.Join(r.Dir(), "a.loader_workers")), "the loaders are left as they were")
	require.Contains(t, strings.Join(s.Notes, "\n"), "From now on at most 2 are trained at once.")
	_, order := crowds(t, r)
	at, failed := map[string]bool{}, false
	for _, what := range order {
		name, cause, end := strings.Cut(what, " ")
		failed = failed || cause == string(training.CauseHostOOM)
		if at[name] = !end; end {
			delete(at, name)
		} else if failed {
			require.LessOrEqual(t, len(at), 2, order)
		}
	}
	require.True(t, failed)
}

// Who has only a part of the device lacks no less of the machine's memory once it
// is alone: then it is the loaders' turn, and it comes to an end.
func TestOutOfHostMemoryWithAPartOfTheDeviceComesToAnEnd(t *testing.T) {
	r := onDevice(t, 2,
		trainingtest.Model("a", "hello", "note loader_workers", "@1 await b.here", "fail user MemoryError x"),
		trainingtest.Model("b", "hello", "restore", "touch b.here", "train 3 every 1", "finish"))
	s, err := work(t, r)
	require.ErrorIs(t, err, training.ErrSomeFailed)
	require.Contains(t, model(t, s, "a").Error, "more memory than this machine has")
	require.Equal(t, []string{"null", "null", "2", "0"}, lines(t, filepath.Join(r.Dir(), "a.loader_workers")), "fewer at once first")
	requireExact(t, r, "b", 3)
}

// Two models that find the disk full wait at the same time, and go on.
func TestAFullDiskIsWaitedForByAll(t *testing.T) {
	r := atOnce(t, 2, trainingtest.Model("a", asking...), trainingtest.Model("b", asking...))
	s, v := supervisor(t, r)
	room := full(v, "save 4")
	var mu sync.Mutex
	waited := map[training.Cause]bool{}
	s.Sleep = func(ctx context.Context, _ time.Duration) error {
		mu.Lock()
		defer mu.Unlock()
		seen, _ := r.Status() // an error shows in what was seen
		both := len(seen.Models) == 2 && seen.Models[0].Cause == training.CauseDiskFull && seen.Models[1].Cause == training.CauseDiskFull
		if both {
			waited[training.CauseDiskFull] = true
			room.Store(true)
		}
		return ctx.Err()
	}
	st, err := finish(t, s)
	require.NoError(t, err)
	require.True(t, waited[training.CauseDiskFull])
	for _, name := range []string{"a", "b"} {
		requireExact(t, r, name, 8)
		require.Equal(t, 1, model(t, st, name).Attempts)
	}
}

// Threads change sums: a model keeps the number with which it was begun.
func TestAModelKeepsItsThreads(t *testing.T) {
	dir := t.TempDir()
	make := func(n training.Parallel, names ...string) *training.Run {
		var models []training.Model
		for _, name := range names {
			models = append(models, trainingtest.Model(name, "hello", "note threads", "restore", "train 2 every 1", "@1 exit 3", "finish"))
		}
		p := trainingtest.Plan("digits", models...)
		p.Settings.Parallel, p.Settings.Retries = n, 0
		return createPlan(t, dir, p)
	}
	t.Setenv("OMP_NUM_THREADS", "") // it counts as set only if it is
	require.NoError(t, os.Unsetenv("OMP_NUM_THREADS"))
	for _, step := range []struct {
		n     training.Parallel
		names []string
	}{{1, []string{"a"}}, {training.MaxParallel, []string{"a", "b"}}, {1, []string{"a", "b", "c"}}} {
		_, err := work(t, make(step.n, step.names...))
		require.ErrorIs(t, err, training.ErrSomeFailed) // the newest one
	}
	run := make(1, "a", "b", "c")
	_, err := work(t, run)
	require.NoError(t, err)
	require.Equal(t, []string{"0", "0"}, lines(t, filepath.Join(run.Dir(), "a.threads")), "begun alone")
	require.Equal(t, []string{"1", "1"}, lines(t, filepath.Join(run.Dir(), "b.threads")), "begun beside others")
	require.Equal(t, []string{"0", "0"}, lines(t, filepath.Join(run.Dir(), "c.threads")))
}

func TestWhatTheUserSaysOfThreadsHolds(t *testing.T) {
	p := trainingtest.Plan("digits", trainingtest.Model("a", "hello", "note threads", "exit 0"))
	p.Settings.Parallel = 2
	p.Settings.Env["OMP_NUM_THREADS"] = "7"
	r := createPlan(t, t.TempDir(), p)
	_, err := work(t, r)
	require.NoError(t, err)
	require.Equal(t, []string{"0"}, lines(t, filepath.Join(r.Dir(), "a.threads")))
}

// background works r off until the test pauses it, and returns how to do that.
func background(t *testing.T, s *training.Supervisor) (pause func() training.Status) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Work(ctx) }()
	t.Cleanup(cancel)
	return func() training.Status {
		cancel()
		require.ErrorIs(t, <-ended, training.ErrPaused)
		return status(t, s.Run)
	}
}

// noted waits until the run has told something.
func noted(t *testing.T, r *training.Run, text string) (s training.Status) {
	t.Helper()
	until(t, text, func() bool {
		s = status(t, r)
		return strings.Contains(strings.Join(s.Notes, "\n"), text)
	})
	return s
}

// Workers that wait leave the processor to others: it pays to pack them.
func TestAutoPacksWhatPays(t *testing.T) {
	script := []string{"hello", "restore", "slow 4ms", "train 50000 every 300", "finish"}
	r := atOnce(t, training.ParallelAuto, trainingtest.Model("a", script...), trainingtest.Model("b", script...), trainingtest.Model("c", script...))
	s, _ := supervisor(t, r)
	pause := background(t, s)
	seen := noted(t, r, "2 models at once train ")
	require.NotZero(t, seen.Models[0].WorkerPID)
	require.NotZero(t, seen.Models[1].WorkerPID)
	for _, m := range pause().Models[:2] {
		require.Equal(t, training.ModelPaused, m.State)
		require.Equal(t, trainingtest.StateAfter(m.Step), trainingtest.State(m.Checkpoint.Path))
	}
}

// Steps that are in each other's way are slower side by side: the newest has to
// wait until the other one is done.
func TestAutoStopsWherePackingDoesNotPay(t *testing.T) {
	script := []string{"hello", "restore", "exclusive turn", "slow 4ms", "train 50000 every 300", "finish"}
	r := atOnce(t, training.ParallelAuto, trainingtest.Model("a", script...), trainingtest.Model("b", script...))
	s, _ := supervisor(t, r)
	training.SetPatience(s, 1500*time.Millisecond)
	pause := background(t, s)
	noted(t, r, "2 models at once are not worth it")
	var seen training.Status
	until(t, "the newest waits", func() bool { seen = status(t, r); return seen.Models[1].WorkerPID == 0 })
	require.Equal(t, training.ModelRunning, seen.Models[0].State)
	require.Equal(t, training.ModelPending, seen.Models[1].State)
	require.Equal(t, seen.Models[1].Step, seen.Models[1].Checkpoint.Step, "nothing is to be done again")
	pause()
	_, order := crowds(t, r)
	require.Equal(t, []string{"a", "b", "b paused", "a paused"}, order)
	require.Equal(t, training.ModelPending, ledger(t, r, training.EntryEnd)[0].State, "nobody asked for a pause")
}

// Who had to wait goes on where it was, as soon as there is a place.
func TestWhoHadToWaitGoesOn(t *testing.T) {
	r := atOnce(t, training.ParallelAuto,
		trainingtest.Model("a", "hello", "restore", "exclusive turn", "slow 4ms", "train 2000 every 300", "finish"),
		trainingtest.Model("b", "hello", "restore", "@1 exclusive turn", "@1 slow 4ms", "@1 train 50000 every 300", "train 4000 every 300", "finish"))
	s, _ := supervisor(t, r)
	training.SetPatience(s, time.Second)
	_, err := finish(t, s)
	require.NoError(t, err)
	requireExact(t, r, "a", 2000)
	requireExact(t, r, "b", 4000)
	most, _ := crowds(t, r)
	require.Equal(t, 2, most)
}

// What a GPU can bear is not known before a model was trained on it to its end.
func TestAutoPacksADeviceOnlyOnceAPeakIsKnown(t *testing.T) {
	peak := `event {"event":"finish","step":900,"metrics":{},"memory":{"peak_mib":1500}}`
	script := func(steps string) []string {
		return []string{"hello", "note memory_fraction", "restore", "slow 4ms", "train " + steps + " every 300", "final", peak}
	}
	r := onDevice(t, training.ParallelAuto, trainingtest.Model("a", script("900")...), trainingtest.Model("b", script("50000")...), trainingtest.Model("c", script("50000")...))
	s, _ := supervisor(t, r)
	s.Device = func(context.Context) (training.DeviceMemory, error) {
		return training.DeviceMemory{Free: 15000, Total: 15360}, nil
	}
	pause := background(t, s)
	until(t, "two at work", func() bool { now := status(t, r); return now.Models[1].Step*now.Models[2].Step != 0 })
	pause()
	_, order := crowds(t, r)
	require.Equal(t, []string{"a", "a done", "b", "c"}, order[:4])
	require.Equal(t, []string{"0.85"}, lines(t, filepath.Join(r.Dir(), "a.memory_fraction")))
	for _, name := range []string{"b", "c"} {
		require.Equal(t, []string{fmt.Sprint(1.2 * 1500 / 15360)}, lines(t, filepath.Join(r.Dir(), name+".memory_fraction")), "a hard cap")
	}
}
