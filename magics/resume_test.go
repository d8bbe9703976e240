//go:build unix

package magics_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/gpu"
	"outlast/magics"
	"outlast/training"
	"outlast/training/trainingtest"
)

// resumed goes on with the only run without training it, and returns its plan
// and what was said. The supervisor is planOf's.
func resumed(t *testing.T, d *magics.Deps, line string) (*training.Plan, string) {
	t.Helper()
	said := must(t, d, line+" --detach")
	return findRun(t, d).Plan(), said
}

// oneGPU gives d a GPU of a kind.
func oneGPU(d *magics.Deps, name, capability string) {
	d.Devices = func(context.Context) (gpu.Inventory, error) {
		return gpu.Inventory{Source: gpu.SourceNVML, Devices: []gpu.Device{{
			Name: name, UUID: "GPU-1", MemoryTotalMiB: 40960, MemoryFreeMiB: 40000, ComputeCapability: capability,
		}}}, nil
	}
}

func TestResumeKeepsWhatTheRunWasAskedFor(t *testing.T) {
	d := deps(t)
	write(t, d, "t.py", "print(1)")
	must(t, d, "gpu_config --memory-fraction 0.5")
	began, err := planOf(t, d, &typed{}, "train r --script t.py --precision bf16 --batch-size 4")
	require.NoError(t, err)
	require.Equal(t, "bf16", began.Settings.Precision)

	d.Session = &magics.Session{} // another notebook
	plan, said := resumed(t, d, "resume r")
	assert.Equal(t, began.Settings, plan.Settings)
	assert.Equal(t, []int{4, 4}, []int{plan.Settings.BatchSize, plan.Settings.GradAccum})
	assert.NotContains(t, said, "asked for")
	plan, _ = resumed(t, d, "resume r")
	assert.Equal(t, began.Settings, plan.Settings, "nor is it forgotten later")

	plan, err = planOf(t, d, &typed{}, "train r --script t.py")
	require.NoError(t, err)
	assert.Equal(t, "fp32", plan.Settings.Precision)
	plan, _ = resumed(t, d, "resume r")
	assert.Equal(t, "fp32", plan.Settings.Precision, "it is what was asked for last")
}

func TestResumeSaysWhatThisMachineCannotDo(t *testing.T) {
	d := deps(t)
	write(t, d, "t.py", "print(1)")
	oneGPU(d, "NVIDIA A100", "8.0")
	_, err := planOf(t, d, &typed{}, "train r --script t.py --precision bf16 --batch-size 4")
	require.NoError(t, err)

	oneGPU(d, "Tesla T4", "7.5")
	plan, said := resumed(t, d, "resume r")
	assert.Equal(t, "fp16", plan.Settings.Precision)
	assert.Equal(t, 4, plan.Settings.BatchSize, "the rest is as asked for")
	assert.Contains(t, said, "Not as asked for: bf16 needs compute capability 8.0, and Tesla T4 has 7.5. It goes on with fp16.")

	oneGPU(d, "NVIDIA A100", "8.0")
	plan, said = resumed(t, d, "resume r")
	assert.Equal(t, "bf16", plan.Settings.Precision, "what was asked for is still known")
	assert.NotContains(t, said, "asked for")
}

func TestResumeHeedsTheNotebooksWishesAfterTheRunsOwn(t *testing.T) {
	d := deps(t)
	write(t, d, "t.py", "print(1)")
	_, err := planOf(t, d, &typed{}, "train r --script t.py --batch-size 8 --effective-batch 32")
	require.NoError(t, err)
	must(t, d, "gpu_config --batch-size 2 --effective-batch 64 --lora-rank 4 --precision bf16")
	plan, _ := resumed(t, d, "resume r")
	s := plan.Settings
	assert.Equal(t, []int{8, 4, 32, 16}, []int{s.BatchSize, s.GradAccum, s.EffectiveBatch, s.LoRARank})
	assert.Equal(t, "bf16", s.Precision, "the run had none of its own")

	d.Session = &magics.Session{}
	plan, _ = resumed(t, d, "resume r")
	assert.Equal(t, "fp32", plan.Settings.Precision, "another notebook's wishes are not the run's")

	_, err = planOf(t, d, &typed{}, "train s --script t.py --effective-batch 16")
	require.NoError(t, err)
	must(t, d, "gpu_config --batch-size 3 --effective-batch 9")
	plan, said := resumed(t, d, "resume s")
	assert.Equal(t, 16, plan.Settings.BatchSize)
	assert.Contains(t, said, "Not as asked for: an effective batch of 16 cannot be made of batches of 3. It goes on with a batch of 16.")
}

// program returns the path of a program that is on every machine.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	require.NoError(t, err)
	return path
}

func TestResumeTakesThePythonOfThisMachine(t *testing.T) {
	theirs, ours, other := program(t, "sh"), program(t, "env"), program(t, "ls")
	began := func(t *testing.T) (there, here *magics.Deps, store string) {
		there, here = deps(t), deps(t)
		there.Python, here.Python = theirs, ours
		write(t, there, "t.py", "print(1)")
		plan, err := planOf(t, there, &typed{}, "train r --script t.py")
		require.NoError(t, err)
		require.Equal(t, theirs, plan.Python)
		data, err := os.ReadFile(filepath.Join(there.Dir, "r", "run.json"))
		require.NoError(t, err)
		store = t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(store, "r"), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(store, "r", "run.json"), data, 0o644))
		here.Supervisor = func(string, string) training.Command { return training.Command{Path: "true"} }
		return there, here, store
	}
	t.Run("the same machine", func(t *testing.T) {
		d, _, store := began(t)
		d.Python = ours
		for _, line := range []string{"resume r", "resume --store " + store} {
			plan, _ := resumed(t, d, line)
			assert.Equal(t, theirs, plan.Python, "%s: the run keeps its own", line)
		}
		plan, _ := resumed(t, d, "resume r --python "+other)
		assert.Equal(t, other, plan.Python)
		plan, _ = resumed(t, d, "resume r")
		assert.Equal(t, other, plan.Python, "it is the run's own now")
	})
	t.Run("a fresh machine", func(t *testing.T) {
		_, d, store := began(t)
		plan, _ := resumed(t, d, "resume --store "+store)
		assert.Equal(t, ours, plan.Python, "what lies at the other machine's path is another Python")
	})
	t.Run("a fresh machine on which it is named", func(t *testing.T) {
		_, d, store := began(t)
		_, err := try(t, d, "resume --store "+store+" --python ./nowhere")
		require.ErrorContains(t, err, "there is no such program")
		assert.Contains(t, magics.CureOf(err), ours)
		plan, _ := resumed(t, d, "resume --store "+store+" --python "+other)
		assert.Equal(t, other, plan.Python)
		plan, _ = resumed(t, d, "resume --store "+store)
		assert.Equal(t, other, plan.Python, "it is the run's own now")
	})
	t.Run("a run that was fetched before", func(t *testing.T) {
		_, d, url := began(t)
		store, err := d.OpenStore(t.Context(), url)
		require.NoError(t, err)
		_, err = checkpoint.Restore(t.Context(), store, "r", d.Dir)
		require.NoError(t, err)
		plan, _ := resumed(t, d, "resume r")
		assert.Equal(t, ours, plan.Python)
	})
}

func TestResumeFromAnEmptyStoreSaysThatItIsEmpty(t *testing.T) {
	d := deps(t)
	store := t.TempDir()
	_, err := try(t, d, "resume --store "+store)
	require.EqualError(t, err, "resume from "+store+": no run is in it")
	assert.Equal(t, "check its address", magics.CureOf(err))
}

func TestResumeWithoutAStoreKeepsNoMoreCopies(t *testing.T) {
	d := deps(t)
	write(t, d, "t.py", "print(1)")
	plan, err := planOf(t, d, &typed{}, "train r --script t.py --store copies")
	require.NoError(t, err)
	require.Equal(t, filepath.Join(d.WorkDir, "copies"), plan.Store)
	plan, _ = resumed(t, d, "resume r --store none")
	assert.Empty(t, plan.Store)
	assert.NoDirExists(t, filepath.Join(d.WorkDir, "none"))
	_, err = try(t, d, "resume nosuch --store none")
	require.ErrorContains(t, err, "there is no such run")
}

// Nobody is asked to send what is done and was asked to stay here.
func TestResumeOfADoneRunWithoutAStoreSendsNothing(t *testing.T) {
	d := deps(t)
	good := trainingtest.Good("10", "5")
	must(t, d, "train digits --store copies "+scripts(t, d, map[string][]string{"a": good, "b": good}, "a", "b")+" "+worker(t))
	d.Supervisor = func(string, string) training.Command {
		assert.Fail(t, "a supervisor is started")
		return training.Command{Path: "false"}
	}
	text := must(t, d, "resume digits --store none")
	assert.Contains(t, text, "Nothing to do: all of digits is done, 2 models.")
	assert.Contains(t, text, "On this disk only, and not sent to "+filepath.Join(d.WorkDir, "copies")+", as --store none asks: a, b.")
	assert.Contains(t, text, "digits: done, 2 of 2 models done")
	assert.NotContains(t, text, "now")
}
