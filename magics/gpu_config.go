package magics

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"outlast/gpu"
)

// gpuReport is what 'outlast gpu --json' prints.
type gpuReport struct {
	Devices []gpu.Device `json:"devices"`
	Choice  gpu.Choice   `json:"choice"`
	Source  gpu.Source   `json:"source"`
}

// GPUConfig returns %gpu_config: what there is to train on, and the settings
// that fit it.
func GPUConfig(d *Deps) *Magic {
	m := &Magic{
		Name:  "gpu_config",
		Verb:  "gpu",
		Short: "Find the GPUs and choose precision, batch size and accumulation for them",
		Line:  true,
	}
	m.Bind = func(fs *pflag.FlagSet) func(context.Context, *Call) error {
		asJSON := fs.Bool("json", false, "print one JSON object")
		var w gpu.Wishes
		fs.IntVar(&w.BatchSize, "batch-size", 0, "samples per forward pass (default: what fits)")
		fs.IntVar(&w.EffectiveBatch, "effective-batch", 0, "samples per optimizer step; kept whatever the GPU (default 16)")
		fs.IntVar(&w.LoRARank, "lora-rank", 0, "rank of LoRA adapters; kept whatever the GPU (default 16)")
		fs.StringVar(&w.Precision, "precision", auto, "fp32, fp16, bf16 or auto")
		fs.Float64Var(&w.MemoryFraction, "memory-fraction", 0, "share of the GPU's memory a worker may use (default 0.85)")
		return func(ctx context.Context, c *Call) error {
			if len(c.Args) > 0 {
				return &UsageError{m, "it takes flags only"}
			}
			if err := positive(m, fs); err != nil {
				return err
			}
			found, err := d.devices(ctx, d.nearby(ctx, c.Notebook))
			if err != nil {
				return err
			}
			choice, err := gpu.Choose(found.Devices, w)
			if err != nil {
				return err
			}
			d.Session.setWishes(w)
			if c.Notebook != nil && len(choice.Env) > 0 {
				if err := c.Notebook.Exec(ctx, setEnv(choice.Env)); err != nil {
					return fmt.Errorf("set the notebook's environment: %w", err)
				}
			}
			if found.Devices == nil {
				found.Devices = []gpu.Device{}
			}
			object := gpuReport{found.Devices, choice, found.Source}
			if err := c.result(object); err != nil {
				return err
			}
			if *asJSON {
				return writeJSON(c, object)
			}
			c.Screen.Show(gpuView(found, choice))
			return nil
		}
	}
	return m
}

// positive refuses a 0 that was given: in gpu.Wishes it would mean no wish.
func positive(m *Magic, fs *pflag.FlagSet) error {
	for _, name := range []string{"batch-size", "effective-batch", "lora-rank", "memory-fraction"} {
		if f := fs.Lookup(name); f.Changed && f.Value.String() == "0" {
			return &UsageError{m, "--" + name + " is a positive number; leave it out to have it chosen"}
		}
	}
	return nil
}

// setEnv returns Python that sets the environment variables of env.
func setEnv(env map[string]string) string {
	text, err := json.Marshal(env)
	if err != nil { // a map of strings always has a JSON form
		panic(err)
	}
	return "__import__('os').environ.update(__import__('json').loads(" + pyString(string(text)) + "))"
}

// pyString writes s as a Python string literal: JSON's escapes are Python's.
func pyString(s string) string {
	text, err := json.Marshal(s)
	if err != nil { // a string always has a JSON form
		panic(err)
	}
	return string(text)
}

func gpuView(found gpu.Inventory, choice gpu.Choice) View {
	g := grid{
		Header: []string{"GPU", "memory", "free", "compute capability"},
		Right:  []bool{false, true, true, true},
	}
	for _, dev := range found.Devices {
		g.Rows = append(g.Rows, []string{
			fmt.Sprintf("%d  %s", dev.Index, dev.Name),
			memoryText(dev.MemoryTotalMiB, dev),
			memoryText(dev.MemoryFreeMiB, dev),
			cmp.Or(dev.ComputeCapability, "unknown"),
		})
	}
	g.Title = "No GPU found: training runs on the CPU"
	switch n := len(found.Devices); n {
	case 0:
	case 1:
		g.Title = fmt.Sprintf("1 GPU, by %s", found.Source)
	default:
		g.Title = fmt.Sprintf("%d GPUs, by %s", n, found.Source)
	}
	g.Notes = append(g.Notes, fmt.Sprintf(
		"Chosen: %s, %s, batch %d × accumulation %d = effective batch %d, LoRA rank %d",
		choice.Device, choice.Precision, choice.BatchSize, choice.GradAccum, choice.EffectiveBatch, choice.LoRARank))
	if len(found.Devices) > 0 {
		g.Notes = append(g.Notes, fmt.Sprintf("Memory: a worker may use %.0f %% of the GPU", 100*choice.MemoryFraction))
	}
	for _, name := range slices.Sorted(maps.Keys(choice.Env)) {
		g.Notes = append(g.Notes, "Set: "+name+"="+choice.Env[name])
	}
	for _, reason := range choice.Reasons {
		g.Notes = append(g.Notes, "· "+strings.TrimSpace(reason))
	}
	return g.view()
}

// memoryText writes MiB of a device; a driver that shares the CPU's memory tells
// none.
func memoryText(mib int64, dev gpu.Device) string {
	if dev.MemoryTotalMiB == 0 {
		return "unknown"
	}
	return fmt.Sprintf("%d MiB", mib)
}
