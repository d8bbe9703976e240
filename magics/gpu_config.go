package magics

import (
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
			found, err := d.Devices(ctx)
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
			fmt.Sprintf("%d MiB", dev.MemoryTotalMiB),
			fmt.Sprintf("%d MiB", dev.MemoryFreeMiB),
			dev.ComputeCapability,
		})
	}
	g.Title = "No GPU found: training runs on the CPU"
	if len(found.Devices) > 0 {
		g.Title = fmt.Sprintf("%d GPU(s), by %s", len(found.Devices), found.Source)
	}
	g.Notes = append(g.Notes, fmt.Sprintf(
		"Chosen: %s, %s, batch %d × accumulation %d = effective batch %d, LoRA rank %d",
		choice.Device, choice.Precision, choice.BatchSize, choice.GradAccum, choice.EffectiveBatch, choice.LoRARank))
	for _, name := range slices.Sorted(maps.Keys(choice.Env)) {
		g.Notes = append(g.Notes, "Set: "+name+"="+choice.Env[name])
	}
	for _, reason := range choice.Reasons {
		g.Notes = append(g.Notes, "· "+strings.TrimSpace(reason))
	}
	return g.view()
}
