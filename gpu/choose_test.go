package gpu

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite the golden files") //nolint:gochecknoglobals // a flag is registered once

// recordedDevices returns the devices of a recorded machine; "none" has none.
func recordedDevices(t *testing.T, name string) []Device {
	t.Helper()
	if name == "none" {
		return nil
	}
	devices, err := parseSMI(answer(name + ".csv"))
	require.NoError(t, err)
	if name == "a100_mig" {
		devices, err = divide(devices, answer(name+".list"), answer(name+".xml"))
		require.NoError(t, err)
	}
	return devices
}

// TestSettingsByDevice holds the table of settings: a row for every recorded
// machine, and the reasons that people are told.
func TestSettingsByDevice(t *testing.T) {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "machine\tdevice\tprecision\tbatch\taccumulation\teffective batch\tLoRA rank\tmemory")
	var reasons []string
	for _, name := range []string{
		"none", "p100", "t4", "t4_busy", "v100", "driver_470", "v100_32", "l4", "two_l4_one_busy",
		"a100_40", "a100_mig", "a100_80", "h100", "rtx_pro_6000", "gb10",
	} {
		c, err := Choose(recordedDevices(t, name), Wishes{})
		require.NoError(t, err)
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%v\n",
			name, c.Device, c.Precision, c.BatchSize, c.GradAccum, c.EffectiveBatch, c.LoRARank, c.MemoryFraction)
		reasons = append(reasons, "\n"+name+"\n  "+strings.Join(c.Reasons, "\n  ")+"\n")
	}
	require.NoError(t, w.Flush())
	text.WriteString(strings.Join(reasons, ""))

	golden := filepath.Join("testdata", "settings.txt")
	if *update {
		require.NoError(t, os.WriteFile(golden, []byte(text.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	assert.Equal(t, string(want), text.String())
}

// TestTheUnitsTrap: a rule "below 16 a T4, below 24 a V100, else an A100" gives
// other settings in GB than in GiB, and by total than by free memory. Ours
// cannot tell a T4 by its size, and what such cards report never lies near a
// threshold.
func TestTheUnitsTrap(t *testing.T) {
	choice := func(name string) Choice {
		c, err := Choose(recordedDevices(t, name), Wishes{})
		require.NoError(t, err)
		return c
	}
	t.Run("a T4 has 16.1 GB and a V100-16 15.8 GiB", func(t *testing.T) {
		t4, v100 := choice("t4"), choice("v100")
		assert.Equal(t, t4.BatchSize, v100.BatchSize)
		assert.Equal(t, FP16, t4.Precision)
		assert.Equal(t, FP16, v100.Precision)
	})
	t.Run("an L4 has 24.2 GB and 22.5 GiB, and is no A100", func(t *testing.T) {
		assert.Less(t, choice("l4").BatchSize, choice("a100_40").BatchSize)
	})
	t.Run("a V100-32 is larger than an L4 and has no bf16", func(t *testing.T) {
		assert.Equal(t, FP16, choice("v100_32").Precision)
		assert.Equal(t, BF16, choice("l4").Precision)
	})
	t.Run("an A100-80 is used in full", func(t *testing.T) {
		assert.Equal(t, 2*choice("a100_40").BatchSize, choice("a100_80").BatchSize)
	})
	t.Run("no card changes its settings by 2 percent", func(t *testing.T) {
		for _, name := range []string{"p100", "t4", "v100", "v100_32", "l4", "a100_40", "a100_80", "h100", "rtx_pro_6000"} {
			d := recordedDevices(t, name)[0]
			for _, percent := range []int64{98, 100} { // other drivers, an idle context
				n := batchFor(capabilityOf(&d), d.MemoryFreeMiB*percent/100)
				assert.Equal(t, batchFor(capabilityOf(&d), d.MemoryTotalMiB), n, "%s at %d percent", name, percent)
			}
		}
	})
}

func TestTheMathematicsNeverFollowsTheDevice(t *testing.T) {
	for _, effective := range []int{1, 7, 16, 48, 64} {
		for _, name := range []string{"none", "t4", "t4_busy", "l4", "a100_mig", "h100"} {
			c, err := Choose(recordedDevices(t, name), Wishes{EffectiveBatch: effective, LoRARank: 8})
			require.NoError(t, err)
			assert.Equal(t, effective, c.BatchSize*c.GradAccum, name)
			assert.Equal(t, effective, c.EffectiveBatch)
			assert.Equal(t, 8, c.LoRARank)
		}
	}
}

func TestBothAllocatorVariablesAreSet(t *testing.T) {
	c, err := Choose(recordedDevices(t, "t4"), Wishes{})
	require.NoError(t, err)
	assert.Equal(t, map[string]string{
		"PYTORCH_ALLOC_CONF":      "expandable_segments:True",
		"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
		"CUDA_DEVICE_ORDER":       "PCI_BUS_ID",
	}, c.Env)

	c, err = Choose(nil, Wishes{})
	require.NoError(t, err)
	assert.Empty(t, c.Env)
	assert.NotNil(t, c.Env, "an object in JSON, not null")
}

func TestADeviceIsNamedAsTorchWillFindIt(t *testing.T) {
	four := []Device{
		{Index: 0, UUID: "GPU-0", MemoryFreeMiB: 10},
		{Index: 1, UUID: "GPU-1", MemoryFreeMiB: 20},
		{Index: 2, UUID: "GPU-2", MemoryFreeMiB: 40},
		{Index: 3, UUID: "GPU-3", MemoryFreeMiB: 30},
	}
	sliced := []Device{{Index: 0, UUID: "GPU-0", MemoryFreeMiB: 10}, {Index: 1, UUID: "MIG-1", MemoryFreeMiB: 20, MIG: true}}
	for name, c := range map[string]struct {
		devices []Device
		device  string
		visible string // CUDA_VISIBLE_DEVICES that is set
	}{
		"the roomiest of four":          {four, "cuda:2", ""},
		"the user shows two of four":    {Visible(four, "3,1"), "cuda:0", ""},
		"in the order of the user":      {Visible(four, "1,3"), "cuda:1", ""},
		"a slice goes by its UUID":      {sliced, "cuda:0", "MIG-1"},
		"a whole one beside slices too": {[]Device{sliced[1], {Index: 2, UUID: "GPU-2", MemoryFreeMiB: 99}}, "cuda:0", "GPU-2"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Choose(c.devices, Wishes{})
			require.NoError(t, err)
			assert.Equal(t, c.device, got.Device)
			assert.Equal(t, c.visible, got.Env["CUDA_VISIBLE_DEVICES"])
		})
	}
}

func TestWishesAreKept(t *testing.T) {
	for name, c := range map[string]struct {
		machine string
		wishes  Wishes
		want    Choice
	}{
		"batch size": {"t4", Wishes{BatchSize: 8}, Choice{Precision: FP16, BatchSize: 8, GradAccum: 2, MemoryFraction: 0.85}},
		"fp32":       {"h100", Wishes{Precision: "FP32"}, Choice{Precision: FP32, BatchSize: 16, GradAccum: 1, MemoryFraction: 0.85}},
		"auto":       {"h100", Wishes{Precision: "auto"}, Choice{Precision: BF16, BatchSize: 16, GradAccum: 1, MemoryFraction: 0.85}},
		"bf16 on a CPU": {
			"none", Wishes{Precision: "bf16", BatchSize: 2}, Choice{Precision: BF16, BatchSize: 2, GradAccum: 8, MemoryFraction: 0.85},
		},
		"memory fraction": {"t4", Wishes{MemoryFraction: 0.5}, Choice{Precision: FP16, BatchSize: 2, GradAccum: 8, MemoryFraction: 0.5}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Choose(recordedDevices(t, c.machine), c.wishes)
			require.NoError(t, err)
			assert.Equal(t, c.want, Choice{
				Precision: got.Precision, BatchSize: got.BatchSize, GradAccum: got.GradAccum, MemoryFraction: got.MemoryFraction,
			})
		})
	}
}

func TestWishesThatCannotBeAreRefusedWithACure(t *testing.T) {
	for name, c := range map[string]struct {
		machine string
		wishes  Wishes
	}{
		"bf16 on a T4":                  {"t4", Wishes{Precision: "bf16"}},
		"bf16 on who knows":             {"driver_470", Wishes{Precision: "bf16"}},
		"fp16 on a CPU":                 {"none", Wishes{Precision: "fp16"}},
		"a precision that is none":      {"t4", Wishes{Precision: "fp8"}},
		"batches that do not add up":    {"t4", Wishes{BatchSize: 3}},
		"a batch above the effective":   {"t4", Wishes{BatchSize: 32}},
		"a negative batch":              {"t4", Wishes{BatchSize: -1}},
		"a negative effective batch":    {"t4", Wishes{EffectiveBatch: -16}},
		"a negative rank":               {"t4", Wishes{LoRARank: -1}},
		"more memory than there is":     {"t4", Wishes{MemoryFraction: 1.01}},
		"negative memory":               {"t4", Wishes{MemoryFraction: -0.5}},
		"a fraction that is no number":  {"t4", Wishes{MemoryFraction: math.NaN()}},
		"a fraction without any bounds": {"t4", Wishes{MemoryFraction: math.Inf(1)}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Choose(recordedDevices(t, c.machine), c.wishes)
			var refused *ChoiceError
			require.ErrorAs(t, err, &refused)
			assert.NotEmpty(t, refused.Cure())
			assert.Equal(t, Choice{}, got)
		})
	}
}

func TestTheJSONOfAChoiceHasTheFieldsOfTheManual(t *testing.T) {
	c, err := Choose(recordedDevices(t, "l4"), Wishes{})
	require.NoError(t, err)
	got, err := json.Marshal(c)
	require.NoError(t, err)
	assert.JSONEq(t, `{"device": "cuda:0", "precision": "bf16", "batch_size": 4, "grad_accum": 4, "effective_batch": 16,
		"lora_rank": 16, "memory_fraction": 0.85, "env": {"CUDA_DEVICE_ORDER": "PCI_BUS_ID",
		"PYTORCH_ALLOC_CONF": "expandable_segments:True", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}}`, string(got))

	got, err = json.Marshal(recordedDevices(t, "a100_mig")[0])
	require.NoError(t, err)
	assert.JSONEq(t, `{"index": 0, "name": "NVIDIA A100-SXM4-40GB MIG 3g.20gb", "uuid": "MIG-a1000000-42e4-5de3-91c7-45d71c87eb3f",
		"memory_total_mib": 20096, "memory_free_mib": 20077, "compute_capability": "8.0", "mig": true}`, string(got))
}
