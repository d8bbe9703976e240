package gpu

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Wishes are the settings that the user fixed. The zero value leaves all to
// Choose.
type Wishes struct {
	BatchSize      int // samples per forward pass
	EffectiveBatch int // samples per optimizer step
	LoRARank       int
	Precision      string // a precision, "auto" or empty
	MemoryFraction float64
}

// Choice is the settings for one worker. Effective batch and LoRA rank are part
// of the mathematics and never follow the device; the rest may.
type Choice struct {
	Device         string            `json:"device"` // as torch spells it, under Env
	Precision      string            `json:"precision"`
	BatchSize      int               `json:"batch_size"` // samples per forward pass
	GradAccum      int               `json:"grad_accum"` // forward passes per optimizer step
	EffectiveBatch int               `json:"effective_batch"`
	LoRARank       int               `json:"lora_rank"`
	MemoryFraction float64           `json:"memory_fraction"`
	Env            map[string]string `json:"env"` // to be set before CUDA starts

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
// The new name of its variable is ignored by some versions, the old one by others.
const allocatorConf = "expandable_segments:True"

// tooFull is the free memory, in MiB, below which not even a CUDA context and a
// small model fit.
const tooFull = 1024

// A ChoiceError is a wish that this machine, or arithmetic, cannot fulfil.
type ChoiceError struct {
	Why  string
	Hint string // what to do
}

func (e *ChoiceError) Error() string { return e.Why }

// Cure returns what to do.
func (e *ChoiceError) Cure() string { return e.Hint }

// Choose returns the settings for the device with the most free memory, or for
// the CPU if there is none. The devices are all that a worker will see, in the
// order in which CUDA numbers them. Its error is a *ChoiceError.
func Choose(devices []Device, w Wishes) (Choice, error) {
	c := Choice{
		Device:         cpu,
		EffectiveBatch: or(w.EffectiveBatch, DefaultEffectiveBatch),
		LoRARank:       or(w.LoRARank, DefaultLoRARank),
		MemoryFraction: or(w.MemoryFraction, DefaultMemoryFraction),
		Env:            map[string]string{},
	}
	if w.BatchSize < 0 || c.EffectiveBatch < 0 || c.LoRARank < 0 {
		return Choice{}, &ChoiceError{"batch sizes and ranks are positive", "leave them out to have them chosen"}
	}
	if !(c.MemoryFraction > 0 && c.MemoryFraction <= 1) { // not a number is neither
		return Choice{}, &ChoiceError{
			fmt.Sprintf("a memory fraction of %v: it is above 0 and at most 1", c.MemoryFraction),
			fmt.Sprintf("leave it out to have %v", DefaultMemoryFraction),
		}
	}
	d := roomiest(devices)
	fits := c.EffectiveBatch // on a CPU memory is plenty, and accumulation only costs time
	if d != nil {
		c.place(d, devices)
		fits = c.fit(d)
	} else {
		c.Precision = FP32
		c.say("CPU: fp32, and the whole effective batch in one pass")
	}
	if err := c.precision(w.Precision, d); err != nil {
		return Choice{}, err
	}
	if err := c.split(w.BatchSize, fits); err != nil {
		return Choice{}, err
	}
	return c, nil
}

// roomiest returns the device with the most free memory; the first of equals.
func roomiest(devices []Device) *Device {
	var best *Device
	for i := range devices {
		if best == nil || devices[i].MemoryFreeMiB > best.MemoryFreeMiB {
			best = &devices[i]
		}
	}
	return best
}

// place settles by which name torch finds d among devices.
func (c *Choice) place(d *Device, devices []Device) {
	c.Env["PYTORCH_ALLOC_CONF"] = allocatorConf
	c.Env["PYTORCH_CUDA_ALLOC_CONF"] = allocatorConf
	c.Env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID" // that of Index; CUDA's own is fastest first
	if slices.ContainsFunc(devices, func(d Device) bool { return d.MIG }) {
		// CUDA shows one slice at most, and numbers what it shows.
		c.Device, c.Env["CUDA_VISIBLE_DEVICES"] = "cuda:0", d.UUID
	} else {
		c.Device = fmt.Sprintf("cuda:%d", slices.Index(devices, *d))
	}
	if len(devices) > 1 {
		c.say("%s, index %d: the most free memory of %d devices", d.Name, d.Index, len(devices))
	}
}

// fit settles the precision, and returns the largest batch to start with.
func (c *Choice) fit(d *Device) int {
	capability := capabilityOf(d)
	switch {
	case capability >= 8:
		c.Precision = BF16
		c.say("compute capability %s: bf16 in hardware", d.ComputeCapability)
	case capability >= 7:
		c.Precision = FP16
		c.say("compute capability %s: fp16 with loss scaling; bf16 would only be emulated", d.ComputeCapability)
	case capability > 0:
		c.Precision = FP32
		c.say("compute capability %s: no tensor cores, so fp32", d.ComputeCapability)
	default:
		c.Precision = FP32
		c.say("compute capability unknown: fp32, which every GPU has")
	}
	n := batchFor(capability, d.MemoryFreeMiB)
	switch used := d.MemoryTotalMiB - d.MemoryFreeMiB; {
	case d.MemoryTotalMiB == 0:
		c.say("the driver does not tell the memory: begin with a batch of %d", n)
	case d.MemoryFreeMiB < tooFull:
		c.say("only %d MiB free, %d in use: workers will run out of memory; nvidia-smi shows who holds it", d.MemoryFreeMiB, used)
	case used > d.MemoryTotalMiB/10:
		c.say("%d MiB free, %d in use by other programs: room for a batch of %d to begin with", d.MemoryFreeMiB, used, n)
	default:
		c.say("%d MiB free: room for a batch of %d to begin with", d.MemoryFreeMiB, n)
	}
	return n
}

// batchFor returns the batch to start with; who runs out of memory halves it.
// The thresholds lie between what such cards report when idle and what the next
// smaller ones do.
func batchFor(capability float64, freeMiB int64) int {
	for _, row := range []struct {
		capability float64
		freeMiB    int64
		batch      int
	}{
		{8, 60_000, 16}, // A100-80, H100, RTX PRO 6000
		{8, 32_000, 8},  // A100-40, L40S
		{8, 19_000, 4},  // L4, A10, RTX 3090 and 4090
		{8, 10_000, 2},
		{7, 28_000, 8}, // V100-32, Quadro RTX 8000
		{7, 19_000, 4}, // Titan RTX
		{0, 10_000, 2}, // T4, V100-16; P100
	} {
		if capability >= row.capability && freeMiB >= row.freeMiB {
			return row.batch
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
	if wish != c.Precision {
		c.say("%s, because it was asked for", wish)
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
