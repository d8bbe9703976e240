//go:build unix

package magics_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/gpu"
	"outlast/magics"
	"outlast/training"
	"outlast/training/trainingtest"
)

// A checked is one line of %doctor.
type checked struct {
	Name, Detail, Cure string
	OK                 bool
}

// healthy connects %doctor to a notebook on Colab where all is as it should be.
func healthy(t *testing.T) *magics.Deps {
	t.Helper()
	d := deps(t)
	d.Host = magics.HostColab
	d.Devices = func(context.Context) (gpu.Inventory, error) {
		return gpu.Inventory{Source: gpu.SourceNVML, Devices: []gpu.Device{{
			Name: "Tesla T4", UUID: "GPU-1", MemoryTotalMiB: 15360, MemoryFreeMiB: 15000, ComputeCapability: "7.5",
		}}}, nil
	}
	program, err := os.Executable()
	require.NoError(t, err)
	d.Kernels = func(context.Context) []magics.Kernelspec {
		return []magics.Kernelspec{{Name: "python3", Dir: "/root/.local/share/jupyter/kernels/python3", Program: program, Version: "1.2.3"}}
	}
	d.DefaultStore = func(context.Context) string { return "drive:Outlast" }
	d.OpenStore = func(context.Context, string) (checkpoint.Store, error) { return nil, nil }
	d.Space = func(context.Context, checkpoint.Store) (magics.Space, error) {
		return magics.Space{Account: "ann@example.com", By: "Colab's sign-in", Limit: 15 << 30, Usage: 4 << 30}, nil
	}
	return d
}

// aPython is a notebook whose Python has the usual packages.
func aPython() *notebook {
	return &notebook{packages: `{"python": "3.12.1", "path": "/usr/bin/python3", "ipykernel": "6.29.5", "torch": "2.6.0"}`}
}

// examined runs %doctor and returns its lines by name. What is wrong always comes with what to do.
func examined(t *testing.T, d *magics.Deps, nb *notebook) map[string]checked {
	t.Helper()
	c := typed{notebook: nb}
	require.NoError(t, c.run(t.Context(), d, "doctor --json"))
	var object struct{ Checks []checked }
	require.NoError(t, json.Unmarshal(c.out.Bytes(), &object))
	lines := map[string]checked{}
	for _, f := range object.Checks {
		assert.NotEmpty(t, f.Detail, f.Name)
		assert.Equal(t, f.OK, f.Cure == "", "%+v", f)
		lines[f.Name] = f
	}
	return lines
}

func TestDoctorShowsALineForEachThing(t *testing.T) {
	d := healthy(t)
	c := typed{notebook: aPython()}
	require.NoError(t, c.run(t.Context(), d, "keepalive"))
	c.screen.shown = nil
	require.NoError(t, c.run(t.Context(), d, "doctor"))
	magics.Golden(t, "views/doctor.txt", strings.ReplaceAll(c.screen.text(), d.Dir, "/content/outlast-runs"))
	require.NoError(t, c.run(t.Context(), d, "keepalive off"))
	for name, line := range examined(t, d, aPython()) {
		assert.Equal(t, name != "keep-alive", line.OK, "%+v", line)
	}
}

func TestDoctorSaysWhatIsWrongAndWhatToDo(t *testing.T) {
	for name, test := range map[string]struct {
		change func(d *magics.Deps, nb *notebook)
		line   string
		detail string
		cure   string
	}{
		"signed out": {
			func(d *magics.Deps, _ *notebook) { d.DefaultStore = func(context.Context) string { return "" } },
			"store", "none: what is trained stays on this machine", "%drive auth signs in to Google Drive",
		},
		"a sign-in that is over": {func(d *magics.Deps, _ *notebook) {
			d.Space = func(context.Context, checkpoint.Store) (magics.Space, error) {
				return magics.Space{}, &magics.Problem{What: "ask Google Drive", Err: errors.New("the sign-in has expired"), Hint: "sign in again"}
			}
		}, "store", "the sign-in has expired", "sign in again"},
		"a store that cannot be opened": {func(d *magics.Deps, _ *notebook) {
			d.OpenStore = func(context.Context, string) (checkpoint.Store, error) { return nil, errors.New("no such store") }
		}, "store", "no such store", "check its address"},
		"Drive is full": {func(d *magics.Deps, _ *notebook) {
			d.Space = func(context.Context, checkpoint.Store) (magics.Space, error) {
				return magics.Space{Limit: 15 << 30, Usage: 15<<30 - 1<<20, Trash: 5 << 30}, nil
			}
		}, "quota", "1 MiB free of 15.0 GiB; 5.0 GiB of it lie in the trash", "empty the trash"},
		"the disk is full": {func(d *magics.Deps, _ *notebook) {
			d.FreeDisk = func(string) (uint64, error) { return 1 << 20, nil }
		}, "disk", "0.0 GiB free for /", "free some space"},
		"runs on the mounted Drive": {func(d *magics.Deps, _ *notebook) {
			d.Mounted = filepath.Join(d.WorkDir, "drive")
			d.Dir = filepath.Join(d.Mounted, "MyDrive", "runs")
		}, "disk", "it is on the mounted Google Drive, which is a cache", "name a folder on the machine's own disk with --dir"},
		"a data directory that is a file": {func(d *magics.Deps, _ *notebook) { d.Dir = os.Args[0] }, "disk", " is a file", "choose another data directory"},
		"keep-alive is off":               {func(*magics.Deps, *notebook) {}, "keep-alive", "off", "run %keepalive before a long run"},
		"the driver fails": {func(d *magics.Deps, _ *notebook) {
			d.Devices = func(context.Context) (gpu.Inventory, error) {
				return gpu.Inventory{}, errors.New("NVML: driver mismatch")
			}
		}, "gpu", "driver mismatch", "nvidia-smi"},
		"the GPU is taken": {func(d *magics.Deps, _ *notebook) {
			d.Devices = func(context.Context) (gpu.Inventory, error) {
				return gpu.Inventory{Devices: []gpu.Device{{Name: "Tesla T4", MemoryTotalMiB: 15360, MemoryFreeMiB: 200}}}, nil
			}
		}, "gpu", "Tesla T4, 200 of 15360 MiB free", "who holds the memory"},
		"a mistake of ours": {func(d *magics.Deps, _ *notebook) {
			d.Devices = func(context.Context) (gpu.Inventory, error) { panic("no inventory") }
		}, "batch", "a mistake in Outlast ended this check: no inventory", "report it"},
		"the kernelspec starts nothing": {func(d *magics.Deps, _ *notebook) {
			d.Kernels = func(context.Context) []magics.Kernelspec {
				return []magics.Kernelspec{{Name: "outlast", Dir: "/specs/outlast", Program: "/gone/outlast"}}
			}
		}, "kernel", "kernelspec outlast in /specs/outlast starts /gone/outlast, which is no program", "install it again"},
		"Python does not answer": {func(_ *magics.Deps, nb *notebook) { nb.packages = "" }, "child", "NameError", "%outlast restart"},
	} {
		t.Run(name, func(t *testing.T) {
			d, nb := healthy(t), aPython()
			test.change(d, nb)
			line := examined(t, d, nb)[test.line]
			assert.False(t, line.OK)
			assert.Contains(t, line.Detail, test.detail)
			assert.Contains(t, line.Cure, test.cure)
		})
	}
}

func TestDoctorTakesAWishThatCannotBeForWrong(t *testing.T) {
	d := healthy(t)
	c := typed{notebook: aPython()}
	d.Devices = func(context.Context) (gpu.Inventory, error) {
		return gpu.Inventory{Devices: []gpu.Device{{Name: "A100", MemoryTotalMiB: 40960, MemoryFreeMiB: 40000, ComputeCapability: "8.0"}}}, nil
	}
	require.NoError(t, c.run(t.Context(), d, "gpu_config --precision bf16"))
	d.Devices = func(context.Context) (gpu.Inventory, error) {
		return gpu.Inventory{Devices: []gpu.Device{{Name: "P100", MemoryTotalMiB: 16384, MemoryFreeMiB: 16000, ComputeCapability: "6.0"}}}, nil
	}
	line := examined(t, d, aPython())["batch"]
	assert.False(t, line.OK, "%+v", line)
	assert.Contains(t, line.Detail, "bf16")
}

func TestDoctorDoesNotWaitForABusyPython(t *testing.T) {
	line := examined(t, healthy(t), &notebook{busy: true})["child"]
	assert.True(t, line.OK)
	assert.Equal(t, "busy with a cell", line.Detail)
}

func TestDoctorDoesNotWaitForAStoreThatHangs(t *testing.T) {
	for name, heeds := range map[string]bool{"until it is given up": true, "whatever it is told": false} {
		t.Run(name, func(t *testing.T) {
			d := healthy(t)
			synctest.Test(t, func(t *testing.T) {
				released := make(chan struct{})
				defer close(released)
				d.Space = func(ctx context.Context, _ checkpoint.Store) (magics.Space, error) {
					if heeds {
						<-ctx.Done()
					} else {
						<-released
					}
					return magics.Space{}, ctx.Err()
				}
				began := time.Now()
				lines := examined(t, d, aPython())
				assert.Equal(t, 5*time.Second, time.Since(began))
				for _, name := range []string{"store", "quota"} {
					assert.False(t, lines[name].OK)
					assert.Equal(t, "no answer within 5 s", lines[name].Detail)
					assert.Contains(t, lines[name].Cure, "check the network")
				}
				assert.True(t, lines["gpu"].OK, "the others have theirs")
			})
		})
	}
}

func TestAnInterruptedDoctorSaysSo(t *testing.T) {
	d := healthy(t)
	ctx, interrupt := context.WithCancel(t.Context())
	d.Space = func(ctx context.Context, _ checkpoint.Store) (magics.Space, error) {
		interrupt()
		<-ctx.Done()
		return magics.Space{}, ctx.Err()
	}
	c := typed{notebook: aPython()}
	require.ErrorContains(t, c.run(ctx, d, "doctor"), "interrupted")
	assert.Empty(t, c.screen.text())
}

func TestDoctorLooksAtTheStoreOfTheLatestRunIfThereIsNoOther(t *testing.T) {
	d := deps(t)
	plan := trainingtest.Plan("digits", trainingtest.Model("m"))
	plan.Store = filepath.Join(d.WorkDir, "usb")
	_, _, err := training.Create(d.Dir, plan, false)
	require.NoError(t, err)
	d.OpenExisting = func(_ context.Context, url string) (checkpoint.Store, error) {
		if _, err := os.Stat(url); err != nil {
			return nil, err
		}
		return nil, nil
	}
	line := examined(t, d, aPython())["store"]
	assert.False(t, line.OK)
	assert.Contains(t, line.Detail, plan.Store)
	assert.NoDirExists(t, plan.Store, "it looks, and makes nothing")

	require.NoError(t, os.Mkdir(plan.Store, 0o755))
	lines := examined(t, d, aPython())
	assert.True(t, lines["store"].OK)
	assert.Contains(t, lines["store"].Detail, plan.Store+", for run digits: a folder, and it can be written to; what is there is called handed")
	assert.Contains(t, lines["quota"].Detail, "100.0 GiB free, as the disk of the folder says")
}

func TestDoctorMeasuresRoomByTheLargestCheckpoint(t *testing.T) {
	d := healthy(t)
	d.Dir = t.TempDir()
	run := aSweep(t, d, map[string][]float64{"low": {1}, "high": {1}})
	dir := t.TempDir()
	manifest, err := json.Marshal(checkpoint.Manifest{
		Format: 1, Run: "sweep", Model: "high", Step: 1, Generation: 1, Writer: "w", Created: time.Now(),
		Files: []checkpoint.File{{Path: "model.pt", Size: 12e9, SHA256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}},
	})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, checkpoint.ManifestName), manifest, 0o644))
	state, err := json.Marshal(training.Status{Run: "sweep", State: training.RunDone, Models: []training.ModelStatus{
		{Name: "low", State: training.ModelDone}, {Name: "high", State: training.ModelDone, Checkpoint: &training.CheckpointStatus{Step: 1, Path: dir}},
	}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(run.Dir(), "state.json"), state, 0o644))

	lines := examined(t, d, aPython())
	assert.True(t, lines["disk"].OK)
	assert.Contains(t, lines["disk"].Detail, "the largest checkpoint takes 12.0 GB")
	assert.False(t, lines["quota"].OK, "11 GiB are free in Drive")
	d.FreeDisk = func(string) (uint64, error) { return 20e9, nil }
	assert.False(t, examined(t, d, aPython())["disk"].OK, "it must hold two at a time")
}

func TestDoctorInATerminal(t *testing.T) {
	d := healthy(t)
	d.Host = magics.HostJupyter
	python := filepath.Join(t.TempDir(), "python3")
	say := func(packages string) {
		require.NoError(t, os.WriteFile(python, []byte("#!/bin/sh\necho '"+packages+"'\n"), 0o755))
	}
	d.Python = python
	say(`{"python": "3.12.1", "path": "/env/bin/python", "ipykernel": "6.29.5", "torch": "2.6.0"}`)
	lines := examined(t, d, nil)
	assert.Equal(t, "Python 3.12.1 (/env/bin/python), ipykernel 6.29.5, torch 2.6.0", lines["child"].Detail)
	for _, line := range lines {
		assert.True(t, line.OK, "%+v", line)
	}

	say(`{"python": "3.12.1", "path": "/env/bin/python"}`)
	assert.Contains(t, examined(t, d, nil)["child"].Cure, "-m pip install ipykernel")
	say("no JSON")
	assert.Contains(t, examined(t, d, nil)["child"].Detail, "ask "+python+" for its packages")
	d.Python = "/nowhere/python"
	assert.Contains(t, examined(t, d, nil)["child"].Cure, "activate an environment")

	d.Kernels = func(context.Context) []magics.Kernelspec { return nil }
	assert.Contains(t, examined(t, d, nil)["kernel"].Cure, "outlast install")
	d.DefaultStore = func(context.Context) string { return "" }
	assert.Contains(t, examined(t, d, nil)["store"].Cure, "outlast drive auth")
	var c typed
	require.NoError(t, c.run(t.Context(), d, "doctor"))
	assert.Regexp(t, `!\s+store\s+none`, c.screen.text())
	assert.Regexp(t, `→ .*outlast drive auth`, c.screen.text())
}

func TestDoctorTakesTheChoiceOfNoStoreForOne(t *testing.T) {
	d := healthy(t)
	c := typed{notebook: aPython()}
	require.NoError(t, c.run(t.Context(), d, "drive use none"))
	line := examined(t, d, aPython())["store"]
	assert.True(t, line.OK)
	assert.Contains(t, line.Detail, "as %drive use said")
}
