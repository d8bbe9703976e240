//go:build unix

package training_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/checkpoint/durable"
	"outlast/training"
	"outlast/training/trainingtest"
)

const oom = "fail user OutOfMemoryError CUDA out of memory. Tried to allocate 540.00 MiB. GPU 0 has a total capacity of 14.75 GiB of which 298.75 MiB is free. Of the allocated memory 13.90 GiB is allocated by PyTorch, and 310.50 MiB is reserved by PyTorch but unallocated."

func TestAModelTooLargeForTheDeviceIsTrainedWithLess(t *testing.T) {
	p := trainingtest.Plan("digits",
		trainingtest.Model("a", "hello", "note batch_size", "note grad_accum", "note effective_batch", "restore", "train 3 every 1", "when batch_size > 4: "+oom, "train 6 every 2", "finish"))
	p.Settings.DeviceName = "Tesla T4"
	r := createPlan(t, t.TempDir(), p)
	status, err := work(t, r)
	require.NoError(t, err)
	requireExact(t, r, "a", 6)
	require.Equal(t, []string{"16", "8", "4"}, lines(t, filepath.Join(r.Dir(), "a.batch_size")))
	require.Equal(t, []string{"1", "2", "4"}, lines(t, filepath.Join(r.Dir(), "a.grad_accum")))
	require.Equal(t, []string{"16", "16", "16"}, lines(t, filepath.Join(r.Dir(), "a.effective_batch")))
	a := model(t, status, "a")
	assert.Equal(t, 4, a.BatchSize)
	assert.Equal(t, 4, a.GradAccum)
	assert.Equal(t, []training.Cause{training.CauseDeviceOOM, training.CauseDeviceOOM, training.CauseDone}, causes(t, r))
	require.Len(t, status.Notes, 2)
	assert.Contains(t, status.Notes[0], "a: the device ran out of memory (it had 13.9 GiB and wanted 540 MiB more")
	assert.Contains(t, status.Notes[0], "It goes on with batch 8 × accumulation 2")
	starts := ledger(t, r, training.EntryStart)
	assert.Equal(t, 4, starts[2].Fit.BatchSize)
	assert.Equal(t, 4, starts[2].Settings.BatchSize)
	assert.Equal(t, int64(3), starts[2].FromStep, "what was trained with the larger batch is kept")
}

// What was learnt holds for this device and precision only, and for the same
// code.
func TestWhatWasLearntIsRememberedForTheDevice(t *testing.T) {
	dir := t.TempDir()
	script := []string{"hello", "note batch_size", "restore", "@1 train 2 every 1", "when batch_size > 4: " + oom, "when attempt > 3: train 4 every 1", "when attempt > 3: finish", "exit 0"}
	plan := func(device, precision string) *training.Plan {
		p := trainingtest.Plan("digits", trainingtest.Model("a", script...))
		p.Settings.DeviceName, p.Settings.Precision, p.Settings.Retries = device, precision, 0
		return p
	}
	var tried []string
	for _, on := range [][2]string{{"Tesla T4", "fp16"}, {"Tesla T4", "fp16"}, {"NVIDIA L4", "bf16"}} {
		r := createPlan(t, dir, plan(on[0], on[1]))
		require.NoError(t, os.RemoveAll(r.ModelPath("a", "final")))
		_, err := work(t, r)
		require.NoError(t, err)
		tried = lines(t, filepath.Join(r.Dir(), "a.batch_size"))
	}
	require.Equal(t, []string{"16", "8", "4", "4", "16", "8", "4"}, tried)
	var learnt struct{ Lessons []map[string]any }
	data, err := os.ReadFile(filepath.Join(dir, "digits", "learnt.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &learnt))
	require.Len(t, learnt.Lessons, 2)
	assert.Equal(t, "Tesla T4", learnt.Lessons[0]["device"])
	assert.Equal(t, true, learnt.Lessons[0]["fits"])
	assert.InDelta(t, 14773.6, learnt.Lessons[0]["need_mib"], 1)
}

func TestALearntFileThatIsGarbledTeachesNothing(t *testing.T) {
	r := create(t, trainingtest.Model("a", trainingtest.Good("2", "1")...))
	require.NoError(t, os.WriteFile(filepath.Join(r.Dir(), "learnt.json"), []byte("{"), 0o644))
	_, err := work(t, r)
	require.NoError(t, err)
}

func TestAModelThatDoesNotFitAtAllFailsWithItsNeed(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "note grad_checkpointing", oom), trainingtest.Model("b", trainingtest.Good("2", "1")...))
	status, err := work(t, r)
	require.ErrorIs(t, err, training.ErrSomeFailed)
	a := model(t, status, "a")
	assert.Equal(t, training.CauseDeviceOOM, a.Cause)
	assert.Contains(t, a.Error, "It needs more than 14.4 GiB; the device has 14.8 GiB.")
	assert.Equal(t, 6, a.Attempts, "16, 8, 4, 2, 1, and with gradient checkpointing")
	noted := lines(t, filepath.Join(r.Dir(), "a.grad_checkpointing"))
	assert.Equal(t, "true", noted[5])
	assert.Equal(t, "false", noted[4])
	requireExact(t, r, "b", 2)
}

func TestAMachineWithoutMemoryCutsTheLoaders(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "note loader_workers", "note batch_size", "restore", "train 2 every 1", "@1 fail user MemoryError x", "@2 fail host_oom X y", "train 4 every 1", "finish"))
	_, err := work(t, r)
	require.NoError(t, err)
	requireExact(t, r, "a", 4)
	require.Equal(t, []string{"null", "2", "0"}, lines(t, filepath.Join(r.Dir(), "a.loader_workers")))
	require.Equal(t, []string{"16", "16", "16"}, lines(t, filepath.Join(r.Dir(), "a.batch_size")))
}

// Steps that are lost again are no progress: what ends each attempt in the same
// place, before a checkpoint, is counted in a row.
func TestStepsThatAreLostAgainForgiveNothing(t *testing.T) {
	scattered := "fail user OutOfMemoryError CUDA out of memory. Tried to allocate 100.00 MiB. GPU 0 has a total capacity of 14.75 GiB of which 1.00 MiB is free. Of the allocated memory 9.90 GiB is allocated by PyTorch, and 4.00 GiB is reserved by PyTorch but unallocated."
	for name, test := range map[string]struct {
		trouble  string
		attempts int
		state    training.RunState
		says     string
	}{
		"hangs":         {"hang", 3, training.RunFailed, "It hung 3 times in a row without a new checkpoint."},
		"kills":         {"signal KILL", 20, training.RunFailed, "It was killed 20 times in a row without a new checkpoint. Save more often (--checkpoint-every)"},
		"a full disk":   {"fail disk_full OSError no", 9, training.RunFailed, "perhaps it writes to another disk"},
		"a lost device": {"fail device_lost X y", 2, training.RunPaused, "the GPU is gone"},
		"pieces":        {"when batch_size > 15: " + scattered, 3, training.RunDone, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := trainingtest.Plan("digits", trainingtest.Model("a", "hello", "restore", "train 4 every 4", "train 6 every 100", test.trouble, "finish"))
			p.Settings.HangAfter = 0.5
			r := createPlan(t, t.TempDir(), p)
			s, _ := supervisor(t, r)
			s.Free = func(string) (uint64, uint64, error) { return 1 << 40, 1 << 40, nil }
			status, _ := finish(t, s) // its error is in the state
			require.Equal(t, test.state, status.State)
			a := model(t, status, "a")
			require.Equal(t, test.attempts, a.Attempts)
			require.Contains(t, a.Error, test.says)
		})
	}
}

func TestALostDevicePausesTheRun(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "fail user RuntimeError CUDA error: uncorrectable ECC error encountered"), trainingtest.Model("b", trainingtest.Good("2", "1")...))
	status, err := work(t, r)
	require.ErrorIs(t, err, training.ErrPaused)
	assert.Equal(t, training.CauseDeviceLost, model(t, status, "a").Cause)
	assert.Equal(t, training.ModelPaused, model(t, status, "a").State)
	assert.Equal(t, training.ModelPending, model(t, status, "b").State)
	assert.Contains(t, strings.Join(status.Notes, "\n"), "Restart the machine, then resume.")
}

// full lets the vault say that the disk is full until there is room.
func full(v *trainingtest.Vault, calls ...string) (room *atomic.Bool) {
	room = &atomic.Bool{}
	v.FailOn = func(call string, c training.Checkpoint) error {
		for _, each := range calls {
			if each == fmt.Sprintf("%s %d", call, c.Step) && !room.Load() {
				return fmt.Errorf("save: %w", syscall.ENOSPC)
			}
		}
		return nil
	}
	return room
}

// asking is a script whose checkpoint after step 4 nothing overtakes.
var asking = []string{"hello", "restore", "train 4 every 100", "checkpoint asked", "train 8 every 100", "finish"} //nolint:gochecknoglobals // a constant

// A full disk pauses the worker, is told, and goes on by itself: nothing is
// trained again, and no retry is used.
func TestAFullDiskIsWaitedFor(t *testing.T) {
	for _, call := range []string{"save 4", "save 8", "finish 8"} {
		t.Run(call, func(t *testing.T) {
			p := trainingtest.Plan("digits", trainingtest.Model("a", asking...))
			p.Settings.Retries = 0
			p.Settings.HangAfter = 0.2 // to wait is not to hang
			r := createPlan(t, t.TempDir(), p)
			s, v := supervisor(t, r)
			room := full(v, call)
			waits := 0
			var seen training.Status
			s.Sleep = func(ctx context.Context, _ time.Duration) error {
				if waits++; waits == 3 {
					time.Sleep(400 * time.Millisecond) // twice what would be a hang
					seen, _ = r.Status()
					room.Store(true)
				}
				return ctx.Err()
			}
			status, err := finish(t, s)
			require.NoError(t, err)
			requireExact(t, r, "a", 8)
			assert.Equal(t, 1, model(t, status, "a").Attempts)
			assert.Equal(t, 3, waits)
			assert.Equal(t, training.CauseDiskFull, seen.Models[0].Cause)
			assert.Contains(t, seen.Models[0].Error, "Free some space; it goes on by itself")
			assert.Equal(t, training.CauseDone, model(t, status, "a").Cause)
		})
	}
}

// What would be lost is not computed: the worker stands still until there is
// room, and that is no hang.
func TestTheWorkerWaitsForAFullDisk(t *testing.T) {
	p := trainingtest.Plan("digits", trainingtest.Model("a", "hello", "restore", "train 4 every 10000", "checkpoint asked", "train 3000 every 10000", "touch here", "finish"))
	p.Settings.HangAfter = 0.2
	r := createPlan(t, t.TempDir(), p)
	s, v := supervisor(t, r)
	room := full(v, "save 4")
	waits := 0
	s.Sleep = func(ctx context.Context, _ time.Duration) error {
		if waits++; waits == 2 {
			time.Sleep(600 * time.Millisecond) // it trains 3000 steps in less
			require.NoFileExists(t, filepath.Join(r.Dir(), "here"))
			room.Store(true)
		}
		return ctx.Err()
	}
	_, err := finish(t, s)
	require.NoError(t, err)
	requireExact(t, r, "a", 3000)
	require.Equal(t, []training.Cause{training.CauseDone}, causes(t, r))
}

// A worker that could not write a checkpoint says so and trains on.
func TestAWorkerThatFoundTheDiskFullIsHeard(t *testing.T) {
	note := `event {"event":"note","kind":"disk_full","step":2,"message":"[Errno 28] No space left on device"}`
	r := create(t, trainingtest.Model("a", "hello", "restore", "train 2 every 10", note, note, "train 4 every 10", "finish"))
	s, _ := supervisor(t, r)
	asked := 0
	s.Free = func(string) (uint64, uint64, error) {
		asked++
		return uint64(asked) << 25, 1 << 40, nil // 32 MiB more each time
	}
	status, err := finish(t, s)
	require.NoError(t, err)
	requireExact(t, r, "a", 4)
	require.Equal(t, 3, asked, "twice for the first note, once for the second")
	require.Len(t, status.Notes, 1, "it is told once")
	require.Contains(t, status.Notes[0], "a: the disk was full and a checkpoint could not be written")
	require.Equal(t, training.CauseDone, status.Models[0].Cause)
}

func TestAPauseDoesNotWaitForAFullDisk(t *testing.T) {
	r := create(t, trainingtest.Model("a", asking...))
	s, v := supervisor(t, r)
	v.FailOn = func(call string, _ training.Checkpoint) error {
		if call == "save" {
			return fmt.Errorf("save: %w", syscall.ENOSPC)
		}
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	s.Sleep = func(ctx context.Context, _ time.Duration) error {
		cancel()
		return ctx.Err()
	}
	require.ErrorIs(t, s.Work(ctx), training.ErrPaused)
	require.Equal(t, []training.Cause{training.CauseDiskFull}, causes(t, r))
	status, err := r.Status()
	require.NoError(t, err)
	require.Equal(t, training.ModelPaused, status.Models[0].State)
	_, err = work(t, r)
	require.NoError(t, err)
	requireExact(t, r, "a", 8)
}

// A worker that cannot write its checkpoint dies of it, and is started again
// once there is room.
func TestAWorkerThatFilledTheDiskIsTriedAgainWhenThereIsRoom(t *testing.T) {
	p := trainingtest.Plan("digits", trainingtest.Model("a", "hello", "restore", "train 4 every 4", "@1 fail user OSError [Errno 28] No space left on device", "@2 exit 3", "train 8 every 4", "finish"))
	p.Settings.Retries = 1
	r := createPlan(t, t.TempDir(), p)
	s, _ := supervisor(t, r)
	var asked int
	s.Free = func(string) (uint64, uint64, error) {
		if asked++; asked < 4 {
			return 10 << 20, 1 << 40, nil
		}
		return 1 << 39, 1 << 40, nil
	}
	_, err := finish(t, s)
	require.NoError(t, err)
	requireExact(t, r, "a", 8)
	require.Equal(t, 4, asked)
	require.Equal(t, []training.Cause{training.CauseDiskFull, training.CauseCrash, training.CauseDone}, causes(t, r))
}

// What a full disk has lost is not asked for again, though there is room by then:
// what is left of it may be something else. A later checkpoint takes its place,
// or else what was computed since the one before is computed once more.
func TestWhatAFullDiskHasLostIsNotSaved(t *testing.T) {
	for step, want := range map[int64][]training.Cause{
		4: {training.CauseDone}, 8: {training.CauseDiskFull, training.CauseDone},
	} {
		t.Run(fmt.Sprint(step), func(t *testing.T) {
			r := create(t, trainingtest.Model("a", asking...))
			s, v := supervisor(t, r)
			var lost atomic.Bool
			v.FailOn = func(call string, c training.Checkpoint) error {
				if call == "save" && c.Step == step && lost.CompareAndSwap(false, true) {
					return fmt.Errorf("sync: %w: %w", durable.ErrLost, syscall.ENOSPC)
				}
				return nil
			}
			_, err := finish(t, s)
			require.NoError(t, err)
			requireExact(t, r, "a", 8)
			require.Equal(t, want, causes(t, r))
			asked := slices.DeleteFunc(v.Calls(), func(call string) bool { return call != fmt.Sprintf("save a %d", step) })
			require.Len(t, asked, len(want), "once in each attempt that came so far")
		})
	}
}

type pruningVault struct {
	*trainingtest.Vault
	pruned func()
}

func (v pruningVault) Prune(context.Context) (uint64, error) {
	v.pruned()
	return 1, nil
}

func TestAFullDiskIsPrunedFirst(t *testing.T) {
	r := create(t, trainingtest.Model("a", trainingtest.Good("4", "4")...))
	s, v := supervisor(t, r)
	room := full(v, "save 4")
	s.Vault = pruningVault{v, func() { room.Store(true) }}
	s.Sleep = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	_, err := finish(t, s)
	require.NoError(t, err)
	requireExact(t, r, "a", 4)
}

// The budget pauses the run in time, with its models saved, and says how to go
// on.
func TestMaxHoursPauseTheRun(t *testing.T) {
	p := trainingtest.Plan("digits", trainingtest.Model("a", "hello", "restore", "@1 slow 5ms", "@1 train 100000 every 100000", "train 400 every 500", "finish"), trainingtest.Model("b", trainingtest.Good("2", "1")...))
	p.Settings.MaxHours = 1.0 / 3600
	r := createPlan(t, t.TempDir(), p)
	began := time.Now()
	status, err := work(t, r)
	require.ErrorIs(t, err, training.ErrPaused)
	require.Less(t, time.Since(began), time.Second+200*time.Millisecond)
	a := model(t, status, "a")
	require.Positive(t, a.Checkpoint.Step)
	require.Equal(t, training.CausePaused, a.Cause)
	require.Regexp(t, `^Paused before the time budget of 1s ended\. Done: none\. To do: a \(step \d+ of 100000\), b\. To go on: outlast resume digits \(in a notebook: %resume digits\)$`, status.Notes[0])
	if a.Checkpoint.Step < 400 {
		_, err = work(t, r)
		require.NoError(t, err)
		requireExact(t, r, "a", 400)
	}
}
