package gpu

import (
	"fmt"
	"strconv"
	"strings"
)

// Wishes are the settings that the user fixed. The zero value leaves all to
// Choose.
type Wishes struct {
	BatchSize      int // samples per forward pass
	EffectiveBatch int // samples per optimizer step
	LoRARank       int
	Precision      string // a Precision, "auto" or empty
	MemoryFraction float64
}

// Choice is the settings for one worker. Effective batch and LoRA rank are part
// of the mathematics and never follow the device; the rest may.
type Choice struct {
	Device         string            `json:"device"` // as torch spells it
	Precision      string            `json:"precision"`
	BatchSize      int               `json:"batch_size"` // samples per forward pass
	GradAccum      int               `json:"grad_accum"` // forward passes per optimizer step
	EffectiveBatch int               `json:"effective_batch"`
	LoRARank       int               `json:"lora_rank"`
	MemoryFraction float64           `json:"memory_fraction"`
	Env            map[string]string `json:"env"`

	// Reasons says in words why, for people.
	Reasons []string `json:"-"`
}

// The precisions.
const (
	FP32 = "fp32"
	FP16 = "fp16" // needs loss scaling
	BF16 = "bf16"
)

// Defaults, with their reasons.
const (
	// Customary for fine-tuning with LoRA, and what fits a 16 GB card by
	// accumulation.
	DefaultEffectiveBatch = 16
	DefaultLoRARank       = 16
	// The rest is for the CUDA context, cuBLAS workspaces and fragmentation,
	// none of which PyTorch's limit counts.
	DefaultMemoryFraction = 0.85

	cpu = "cpu"
)

// allocatorConf lets PyTorch's allocator grow segments instead of fragmenting.
// The new name is ignored by some versions, the old one by others.
const allocatorConf = "expandable_segments:True"

// A ChoiceError is a wish that this machine, or arithmetic, cannot fulfil.
type ChoiceError struct {
	Why  string
	Hint string // what to do
}

func (e *ChoiceError) Error() string { return e.Why }

// Cure returns what to do.
func (e *ChoiceError) Cure() string { return e.Hint }

// Choose returns the settings for the device with the most free memory, or for
// the CPU if there is none. Its error is a *ChoiceError.
func Choose(devices []Device, w Wishes) (Choice, error) {
	c := Choice{
		Device:         cpu,
		EffectiveBatch: or(w.EffectiveBatch, DefaultEffectiveBatch),
		LoRARank:       or(w.LoRARank, DefaultLoRARank),
		MemoryFraction: w.MemoryFraction,
		Env:            map[string]string{},
	}
	if c.MemoryFraction == 0 {
		c.MemoryFraction = DefaultMemoryFraction
	}
	if w.BatchSize < 0 || w.EffectiveBatch < 0 || w.LoRARank < 0 || c.MemoryFraction <= 0 || c.MemoryFraction > 1 {
		return Choice{}, &ChoiceError{
			"batch sizes and ranks are positive, and the memory fraction is above 0 and at most 1",
			"leave them out to have them chosen",
		}
	}
	fits := c.EffectiveBatch // on a CPU memory is plenty, and accumulation only costs time
	if d := most(devices); d != nil {
		fits = c.use(d, len(devices))
	} else {
		c.Precision = FP32
		c.say("CPU: fp32, and the whole effective batch in one pass")
	}
	if err := c.precision(w.Precision, most(devices)); err != nil {
		return Choice{}, err
	}
	return c, c.split(w.BatchSize, fits)
}

// most returns the device with the most free memory; the first of equals.
func most(devices []Device) *Device {
	var best *Device
	for i := range devices {
		if best == nil || devices[i].MemoryFreeMiB > best.MemoryFreeMiB {
			best = &devices[i]
		}
	}
	return best
}

// use settles what follows from the device, and returns the batch that fits it.
func (c *Choice) use(d *Device, of int) int {
	c.Device = fmt.Sprintf("cuda:%d", d.Index)
	if d.MIG { // CUDA numbers slices only among those it is shown
		c.Device = "cuda:0"
		c.Env["CUDA_VISIBLE_DEVICES"] = d.UUID
	} else if of > 1 {
		c.Env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID" // the order of Index
		c.say("%s: the most free memory of %d devices", d.Name, of)
	}
	c.Env["PYTORCH_ALLOC_CONF"] = allocatorConf
	c.Env["PYTORCH_CUDA_ALLOC_CONF"] = allocatorConf
	capability := capabilityOf(d)
	switch {
	case capability >= 8:
		c.Precision = BF16
		c.say("compute capability %s: bf16 in hardware", d.ComputeCapability)
	case capability >= 7:
		c.Precision = FP16
		c.say("compute capability %s: fp16 with loss scaling; bf16 would only be emulated", d.ComputeCapability)
	default:
		c.Precision = FP32
		c.say("compute capability %s: no tensor cores, fp32", or(d.ComputeCapability, "unknown"))
	}
	n := batchFor(capability, d.MemoryFreeMiB)
	c.say("%d MiB free: start with a batch of up to %d", d.MemoryFreeMiB, n)
	return n
}

// batchFor returns the batch to start with. The thresholds are MiB free, a
// little below what such cards report when nothing else runs on them.
func batchFor(capability float64, free int64) int {
	steps := []struct {
		free  int64
		batch int
	}{{60_000, 16}, {32_000, 8}, {19_000, 4}, {10_000, 2}} // A100-80; A100-40; L4, 4090; 12 GB
	if capability < 8 {
		steps[0].batch, steps[1].batch, steps[2].batch = 8, 8, 4 // V100-32, and 16 GB: 2
		steps[1].free = 28_000
	}
	if capability < 7 {
		return 2
	}
	for _, s := range steps {
		if free >= s.free {
			return s.batch
		}
	}
	return 1
}

// capabilityOf returns the compute capability as a number; 0 if unknown.
func capabilityOf(d *Device) float64 {
	n, err := strconv.ParseFloat(d.ComputeCapability, 64)
	if err != nil {
		return 0
	}
	return n
}

// precision takes over a wish, unless the device cannot do it.
func (c *Choice) precision(wish string, d *Device) error {
	switch wish = strings.ToLower(wish); wish {
	case "", "auto":
		return nil
	case FP32, FP16, BF16:
	default:
		return &ChoiceError{fmt.Sprintf("there is no precision %q", wish), "give fp32, fp16, bf16 or auto"}
	}
	if wish == FP16 && d == nil {
		return &ChoiceError{"fp16 needs a GPU, and there is none", "give fp32, bf16 or auto"}
	}
	if wish == BF16 && d != nil && capabilityOf(d) < 8 {
		return &ChoiceError{
			fmt.Sprintf("bf16 needs compute capability 8.0, and %s has %s", d.Name, or(d.ComputeCapability, "an unknown one")),
			"give fp16, fp32 or auto",
		}
	}
	c.Precision = wish
	return nil
}

// split divides the effective batch into passes: of the size asked for, or of
// the largest size that fits and divides it.
func (c *Choice) split(wish, fits int) error {
	n := wish
	if n == 0 {
		for n = min(fits, c.EffectiveBatch); c.EffectiveBatch%n != 0; n-- {
		}
	}
	if c.EffectiveBatch%n != 0 {
		return &ChoiceError{
			fmt.Sprintf("an effective batch of %d cannot be made of batches of %d", c.EffectiveBatch, n),
			fmt.Sprintf("give a batch size that divides %d, or another effective batch", c.EffectiveBatch),
		}
	}
	c.BatchSize, c.GradAccum = n, c.EffectiveBatch/n
	return nil
}

func (c *Choice) say(format string, args ...any) {
	c.Reasons = append(c.Reasons, fmt.Sprintf(format, args...))
}

// or returns value, or fallback if value is zero.
func or[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}
