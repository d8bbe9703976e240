//go:build unix

package magics_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/gpu"
	"outlast/magics"
	"outlast/training"
	"outlast/training/trainingtest"
)

// write makes a file in the folder where the call is typed.
func write(t *testing.T, d *magics.Deps, name, text string) string {
	t.Helper()
	path := filepath.Join(d.WorkDir, name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

// planOf creates a run without starting it, and returns its plan: the supervisor
// that is "started" does nothing but end.
func planOf(t *testing.T, d *magics.Deps, c *typed, line string, body ...string) (*training.Plan, error) {
	t.Helper()
	dir, name := "", ""
	d.Supervisor = func(data, run string) training.Command {
		dir, name = data, run
		return training.Command{Path: "true"}
	}
	if err := c.run(t.Context(), d, strings.Replace(line, "train", "train --detach", 1), body...); err != nil {
		return nil, err
	}
	r, err := training.Find(dir, name)
	require.NoError(t, err)
	return r.Plan(), nil
}

func names(p *training.Plan) []string {
	var all []string
	for _, m := range p.Models {
		all = append(all, m.Name)
	}
	return all
}

func TestWhereTheModelsComeFrom(t *testing.T) {
	variable := map[string]string{"MODELS": `[{"name": "a", "lr": 0.1}, "b"]`, "lib.MODELS": `{"c": {"lr": 1.0}, "d": null}`}
	for name, c := range map[string]struct {
		line     string
		notebook bool
		want     []string
	}{
		"a variable":             {"train run --script t.py --models MODELS", true, []string{"a", "b"}},
		"an attribute":           {"train run --script t.py --models lib.MODELS", true, []string{"c", "d"}},
		"names":                  {"train run --script t.py --models a,b,c", true, []string{"a", "b", "c"}},
		"one name with a comma":  {"train run --script t.py --models MODELS,", true, []string{"MODELS"}},
		"names with dashes":      {"train run --script t.py --models mlp-small", true, []string{"mlp-small"}},
		"a name without a shell": {"train run --script t.py --models MODELS", false, []string{"MODELS"}},
		"a YAML file":            {"train run --script t.py --models list.yaml", false, []string{"x", "y"}},
		"none":                   {"train solo --script t.py", false, []string{"solo"}},
		"no name either":         {"train --script t.py", false, []string{"notebook"}},
		"the plan file's":        {"train plan.yaml", false, []string{"p", "q"}},
		"over the plan file's":   {"train plan.yaml --models a,b", false, []string{"a", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := deps(t)
			write(t, d, "t.py", "print(1)")
			write(t, d, "list.yaml", "- x\n- name: y\n  lr: 1\n")
			write(t, d, "plan.yaml", "run: planned\nscript: t.py\nmodels: [{name: p}, {name: q}]\n")
			var call typed
			if c.notebook {
				call.notebook = &notebook{values: variable, folder: d.WorkDir, python: "python3"}
			}
			plan, err := planOf(t, d, &call, c.line)
			require.NoError(t, err)
			assert.Equal(t, c.want, names(plan))
		})
	}
}

func TestFlagsGoBeforeThePlanFile(t *testing.T) {
	d := deps(t)
	write(t, d, "t.py", "print(1)")
	write(t, d, "plan.yaml", "run: planned\nscript: t.py\nstore: filed\neffective_batch: 32\nmodels: [{name: p, batch_size: 8}]\n")

	plan, err := planOf(t, d, &typed{}, "train plan.yaml")
	require.NoError(t, err)
	assert.Equal(t, "planned", plan.Run)
	assert.Equal(t, 32, plan.Settings.EffectiveBatch)
	assert.Equal(t, filepath.Join(d.WorkDir, "filed"), plan.Store)
	assert.Equal(t, 8, plan.Models[0].BatchSize)
	assert.Equal(t, 4, plan.Models[0].GradAccum, "accumulation keeps the effective batch")
	assert.Equal(t, training.Every{Seconds: 60}, plan.Settings.CheckpointEvery)
	assert.InDelta(t, 600, plan.Settings.HangAfter, 0)

	d = deps(t)
	write(t, d, "t.py", "print(1)")
	write(t, d, "plan.yaml", "run: planned\nscript: t.py\nstore: filed\neffective_batch: 32\nmodels: [{name: p}]\n")
	plan, err = planOf(t, d, &typed{}, "train plan.yaml --store flagged --effective-batch 64 --batch-size 16 --seed 7 --keep 5 --retries 0"+
		" --checkpoint-every 20steps --max-hours 1.5 --hang-after 0 --parallel auto --lora-rank 8 --precision bf16 --keep-best eval/accuracy:max")
	require.NoError(t, err)
	s := plan.Settings
	assert.Equal(t, filepath.Join(d.WorkDir, "flagged"), plan.Store)
	assert.Equal(t, []int{64, 16, 4, 8, 5, 0}, []int{s.EffectiveBatch, s.BatchSize, s.GradAccum, s.LoRARank, s.Keep, s.Retries})
	assert.Equal(t, training.Every{Steps: 20}, s.CheckpointEvery)
	assert.EqualValues(t, 7, s.Seed)
	assert.InDelta(t, 1.5, s.MaxHours, 0)
	assert.Zero(t, s.HangAfter)
	assert.Equal(t, "bf16", s.Precision)
	assert.Equal(t, "eval/accuracy:max", s.KeepBest)
	assert.Equal(t, training.ParallelAuto, s.Parallel)
}

// How many at once is no part of what is trained: it follows the flag, then the
// plan file, and is one if nobody says more.
func TestHowManyAreTrainedAtOnce(t *testing.T) {
	var fingerprint string
	for line, want := range map[string]training.Parallel{
		"train plan.yaml":                    1,
		"train three.yaml":                   3,
		"train three.yaml --parallel 2":      2,
		"train plan.yaml --parallel=auto":    training.ParallelAuto,
		"train three.yaml --parallel auto":   training.ParallelAuto,
		"train m --script t.py --parallel 4": 4,
	} {
		d := deps(t)
		write(t, d, "t.py", "print(1)")
		write(t, d, "plan.yaml", "run: planned\nscript: t.py\nmodels: [{name: m}]\n")
		write(t, d, "three.yaml", "run: planned\nscript: t.py\nparallel: 3\nmodels: [{name: m}]\n")
		plan, err := planOf(t, d, &typed{}, line)
		require.NoError(t, err, line)
		assert.Equal(t, want, plan.Settings.Parallel, line)
		if fingerprint == "" {
			fingerprint = plan.Models[0].Fingerprint
		}
		assert.Equal(t, fingerprint, plan.Models[0].Fingerprint, line)
	}
}

func TestTheCodeIsTheCellsTheScriptsOrACommand(t *testing.T) {
	d := deps(t)
	script := write(t, d, "t.py", "print(1)")
	d.Session.Share("1", "import torch")

	plan, err := planOf(t, d, &typed{}, "train cell --models a", "job.finish()")
	require.NoError(t, err)
	assert.Equal(t, training.Code{Kind: training.CodeCell, Name: "cell.py", Source: "job.finish()", Shared: []string{"import torch"}}, plan.Code)

	plan, err = planOf(t, d, &typed{}, "train script --script t.py --models a")
	require.NoError(t, err)
	assert.Equal(t, training.Code{Kind: training.CodeScript, Name: script, Source: "print(1)"}, plan.Code)

	plan, err = planOf(t, d, &typed{}, "train command --models a -- bash t.sh {name} --lr {lr}")
	require.NoError(t, err)
	assert.Equal(t, []string{"bash", "t.sh", "{name}", "--lr", "{lr}"}, plan.Code.Command)
}

func TestTrainRefusesWhatCannotWork(t *testing.T) {
	for name, c := range map[string]struct {
		line, body string
		says       string
		usage      bool
	}{
		"no code":                {line: "train run", says: "it needs the code", usage: true},
		"code twice":             {line: "train run --script t.py -- bash t.sh", says: "give the code once", usage: true},
		"code in cell and plan":  {line: "train plan.yaml", body: "x = 1", says: "give the code once", usage: true},
		"no such script":         {line: "train run --script no.py", says: "read the script"},
		"no such plan":           {line: "train no.yaml", says: "no.yaml"},
		"no such list":           {line: "train run --script t.py --models no.json", says: "read the list of models"},
		"no such variable":       {line: "train run --script t.py --models nothing", says: "read the variable nothing"},
		"a variable of no list":  {line: "train run --script t.py --models NUMBER", says: "it is no list of models"},
		"a name twice":           {line: "train run --script t.py --models a,b,a", says: `two models are called "a"`},
		"a name that is no file": {line: "train run --script t.py --models a/b", says: "cannot name a folder"},
		"a run that is no file":  {line: "train a/b --script t.py", says: "cannot name a folder"},
		"no models":              {line: "train run --script t.py --models ,", says: "no models"},
		"an unsafe plan":         {line: "train bad.yaml", says: "bad.yaml:3"},
		"an unknown key":         {line: "train unknown.yaml", says: "unknown.yaml:1"},
		"no such Python":         {line: "train run --script t.py --python ./nowhere", says: "no such program"},
		"a batch of words":       {line: "train run --script t.py --batch-size big", says: "--batch-size is a positive number or auto", usage: true},
		"a rank of nothing":      {line: "train run --script t.py --lora-rank 0", says: "--lora-rank is a positive number or auto", usage: true},
		"an uneven batch":        {line: "train run --script t.py --batch-size 3 --effective-batch 16", says: "cannot be made of batches of 3"},
		"no such precision":      {line: "train run --script t.py --precision fp8", says: "fp8"},
		"fp16 without a GPU":     {line: "train run --script t.py --precision fp16", says: "fp16 needs a GPU"},
		"an odd interval":        {line: "train run --script t.py --checkpoint-every often", says: "60s or 200steps", usage: true},
		"none at once":           {line: "train run --script t.py --parallel 0", says: "1 to 64, or auto", usage: true},
		"a word at once":         {line: "train run --script t.py --parallel all", says: "--parallel", usage: true},
		"negative hours":         {line: "train run --script t.py --max-hours -1", says: "--max-hours", usage: true},
		"hours of no number":     {line: "train run --script t.py --max-hours nan", says: "--max-hours", usage: true},
		"keeping nothing":        {line: "train run --script t.py --keep 0", says: "--keep is at least 1", usage: true},
		"the best in what way":   {line: "train run --script t.py --keep-best loss:most", says: "METRIC:max", usage: true},
		"a store of no kind":     {line: "train run --script t.py --store drive:x", says: "no Drive here"},
		"a store that is a file": {line: "train run --script t.py --store t.py", says: "t.py"},
	} {
		t.Run(name, func(t *testing.T) {
			d := deps(t)
			write(t, d, "t.py", "print(1)")
			write(t, d, "plan.yaml", "run: planned\nscript: t.py\nmodels: [{name: p}]\n")
			write(t, d, "bad.yaml", "script: t.py\nmodels:\n  - name: a/b\n")
			write(t, d, "unknown.yaml", "modles: []\n")
			call := &typed{notebook: &notebook{values: map[string]string{"NUMBER": "7"}, folder: d.WorkDir, python: "python3"}}
			_, err := planOf(t, d, call, c.line, c.body)
			require.Error(t, err)
			assert.Contains(t, err.Error(), c.says)
			var usage *magics.UsageError
			if assert.Equal(t, c.usage, errors.As(err, &usage), "a mistake in the call: %v", err); !c.usage && name != "a store of no kind" {
				assert.NotEmpty(t, magics.CureOf(err), "it says what to do")
			}
			assert.NoDirExists(t, filepath.Join(d.Dir, "run"), "nothing was begun")
		})
	}
}

func TestTheGPUDecidesOnlyWhatMayFollowIt(t *testing.T) {
	d := deps(t)
	write(t, d, "t.py", "print(1)")
	d.Devices = func(context.Context) (gpu.Inventory, error) {
		return gpu.Inventory{Source: gpu.SourceSMI, Devices: []gpu.Device{{
			Name: "Tesla T4", UUID: "GPU-1", MemoryTotalMiB: 15360, MemoryFreeMiB: 15000, ComputeCapability: "7.5",
		}}}, nil
	}
	plan, err := planOf(t, d, &typed{}, "train run --script t.py --effective-batch 64")
	require.NoError(t, err)
	s := plan.Settings
	assert.Equal(t, 64, s.EffectiveBatch)
	assert.Equal(t, 64, s.BatchSize*s.GradAccum)
	assert.Equal(t, "fp16", s.Precision)
	assert.Equal(t, "Tesla T4", s.DeviceName, "what is learnt is about this card")

	d.Devices = func(context.Context) (gpu.Inventory, error) { return gpu.Inventory{}, errors.New("the driver hangs") }
	_, err = planOf(t, d, &typed{}, "train other --script t.py")
	assert.ErrorContains(t, err, "the driver hangs")
}

func TestPathsAreSeenFromTheNotebooksFolder(t *testing.T) {
	d := deps(t)
	elsewhere := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(elsewhere, "t.py"), []byte("print(2)"), 0o644))
	call := &typed{notebook: &notebook{folder: elsewhere, python: "/its/python"}}
	plan, err := planOf(t, d, call, "train run --script t.py --store ~/copies")
	require.NoError(t, err)
	assert.Equal(t, filepath.Join(elsewhere, "t.py"), plan.Code.Name)
	assert.Equal(t, elsewhere, plan.Dir, "workers run where the notebook is")
	assert.Equal(t, "/its/python", plan.Python, "they find the notebook's packages")
	assert.Equal(t, filepath.Join(d.Home, "copies"), plan.Store)
}

func TestADryRunBeginsNothing(t *testing.T) {
	d := deps(t)
	write(t, d, "t.py", "print(1)")
	text := must(t, d, "train run --script t.py --models a,b --dry-run --effective-batch 32 --store copies --keep-best loss")
	assert.Contains(t, text, "the last 3 and that of the lowest loss are kept")
	assert.Contains(t, text, "run: 2 models, nothing started")
	assert.Contains(t, text, "copies")
	assert.NoDirExists(t, d.Dir)
}

// What a dry run says is what the run then does.
func TestADryRunSaysWhatIsDoneAndWhatIsTrainedAnew(t *testing.T) {
	d := deps(t)
	good := trainingtest.Good("10", "5")
	must(t, d, "train digits "+scripts(t, d, map[string][]string{"a": good, "b": good, "c": good}, "a", "b", "c")+" "+worker(t))
	before, err := os.ReadFile(filepath.Join(d.Dir, "digits", "run.json"))
	require.NoError(t, err)
	list := scripts(t, d, map[string][]string{"a": good, "b": trainingtest.Good("20", "5"), "d": good}, "a", "b", "d")
	text := must(t, d, "train digits --dry-run "+list+" "+worker(t))
	assert.Contains(t, text, "digits: 3 models, 2 to train, nothing started")
	assert.Regexp(t, `(?m)^\W*a +skipped: done `, text)
	assert.Regexp(t, `(?m)^\W*b +trained anew: changed `, text)
	assert.Regexp(t, `(?m)^\W*d +trained `, text)
	assert.Contains(t, text, "No longer in the plan, left as they are: c.")
	text = must(t, d, "train digits --fresh --dry-run "+list+" "+worker(t))
	assert.Regexp(t, `(?m)^\W*a +trained anew: --fresh `, text)
	after, err := os.ReadFile(filepath.Join(d.Dir, "digits", "run.json"))
	require.NoError(t, err)
	assert.Equal(t, string(before), string(after))
	status, err := findRun(t, d).Status()
	require.NoError(t, err)
	assert.Equal(t, training.RunDone, status.State, "the run is as it was")

	write(t, d, "t.py", "print(1)")
	text = must(t, d, "train other --script t.py --dry-run --store copies")
	assert.Regexp(t, `Run other is not here. What .*copies may have of it was not looked at.`, text)
	assert.NoDirExists(t, filepath.Join(d.Dir, "other"))
}

func TestANotebookHidesGPUsFromItsWorkers(t *testing.T) {
	first := gpu.Device{Name: "NVIDIA L4", UUID: "GPU-1", MemoryTotalMiB: 23034, MemoryFreeMiB: 22563, ComputeCapability: "8.9"}
	second := gpu.Device{Name: "Tesla T4", UUID: "GPU-2", Index: 1, MemoryTotalMiB: 15360, MemoryFreeMiB: 15000, ComputeCapability: "7.5"}
	slice := first
	slice.UUID, slice.MIG = "MIG-1", true
	for name, c := range map[string]struct {
		visible              *string
		devices              []gpu.Device
		device, card, passed string
		handed               bool // workers have a list of their own
	}{
		"nothing is said":      {nil, []gpu.Device{first, second}, "cuda:0", "NVIDIA L4", "", false},
		"the second is chosen": {new("1"), []gpu.Device{first, second}, "cuda:0", "Tesla T4", "1", true},
		"all are hidden":       {new(""), []gpu.Device{first, second}, "cpu", "", "", true},
		"a slice is chosen":    {new("0"), []gpu.Device{slice}, "cuda:0", "NVIDIA L4", "MIG-1", true},
	} {
		t.Run(name, func(t *testing.T) {
			d := deps(t)
			write(t, d, "t.py", "print(1)")
			d.Devices = func(context.Context) (gpu.Inventory, error) {
				return gpu.Inventory{Source: gpu.SourceNVML, Devices: c.devices}, nil
			}
			call := &typed{notebook: &notebook{folder: d.WorkDir, python: "python3", visible: c.visible}}
			check := func(plan *training.Plan) {
				t.Helper()
				assert.Equal(t, []string{c.device, c.card}, []string{plan.Settings.Device, plan.Settings.DeviceName})
				list, handed := plan.Settings.Env["CUDA_VISIBLE_DEVICES"]
				assert.Equal(t, c.passed, list)
				assert.Equal(t, c.handed, handed)
			}
			plan, err := planOf(t, d, call, "train run --script t.py")
			require.NoError(t, err)
			check(plan)
			require.NoError(t, call.run(t.Context(), d, "resume run --detach"))
			check(findRun(t, d).Plan())

			require.NoError(t, call.run(t.Context(), d, "gpu_config"))
			assert.Contains(t, call.screen.text(), "Chosen: "+c.device)
			plan, err = planOf(t, d, &typed{}, "train shell --script t.py")
			require.NoError(t, err)
			assert.NotEqual(t, "cpu", plan.Settings.Device, "a shell has an environment of its own")
		})
	}
}

func TestTheDataDirectoryIsSeenFromTheNotebookToo(t *testing.T) {
	elsewhere := t.TempDir()
	for given, want := range map[string]func(d *magics.Deps) string{
		"~/runs":                        func(d *magics.Deps) string { return filepath.Join(d.Home, "runs") },
		"~":                             func(d *magics.Deps) string { return d.Home },
		"mine":                          func(*magics.Deps) string { return filepath.Join(elsewhere, "mine") },
		filepath.Join(elsewhere, "abs"): func(*magics.Deps) string { return filepath.Join(elsewhere, "abs") },
	} {
		t.Run(given, func(t *testing.T) {
			d := deps(t)
			require.NoError(t, os.WriteFile(filepath.Join(elsewhere, "t.py"), []byte("print(1)"), 0o644))
			call := &typed{notebook: &notebook{folder: elsewhere, python: "python3"}}
			_, err := planOf(t, d, call, "train run --script t.py --dir "+given)
			require.NoError(t, err)
			assert.FileExists(t, filepath.Join(want(d), "run", "run.json"))
			require.NoError(t, call.run(t.Context(), d, "status run --dir "+given), "each magic means the same folder")
		})
	}
	d := deps(t)
	write(t, d, "t.py", "print(1)")
	_, err := planOf(t, d, &typed{}, "train run --script t.py --dir mine")
	require.NoError(t, err)
	assert.FileExists(t, filepath.Join(d.WorkDir, "mine", "run", "run.json"), "on the command line it is the shell's")
}
