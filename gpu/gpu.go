// Package gpu finds NVIDIA GPUs and chooses training settings that fit them.
//
// It knows nothing of plans, runs or notebooks: devices go in, plain values come
// out. Memory is counted in MiB throughout, as NVML's bytes and nvidia-smi's
// columns both can be; rules in gigabytes take a T4 for a V100.
package gpu

import "context"

// A Device is one GPU, or one slice (MIG instance) of a GPU.
type Device struct {
	Index             int    `json:"index"` // in PCI bus order; a slice has that of its GPU
	Name              string `json:"name"`
	UUID              string `json:"uuid"`
	MemoryTotalMiB    int64  `json:"memory_total_mib"`   // 0 if the driver does not tell
	MemoryFreeMiB     int64  `json:"memory_free_mib"`    // likewise
	ComputeCapability string `json:"compute_capability"` // "7.5"; empty if unknown
	MIG               bool   `json:"mig"`

	// Busy is for how many percent of the last moment something was computed, as
	// the driver sees it; nil if it does not tell, as of a slice.
	Busy *int `json:"-"`
}

// Source says who listed the devices.
type Source string

// The sources, in the order in which they are asked.
const (
	SourceNVML Source = "nvml"
	SourceSMI  Source = "nvidia-smi"
	SourceNone Source = "none"
)

// Inventory is what was found on this machine. No devices are no error: then
// the CPU trains.
type Inventory struct {
	Devices []Device
	Source  Source
}

// A Lister lists the devices of this machine, in PCI bus order. A machine
// without a driver is errNoDriver: the next lister is asked. A call into a
// driver that hangs may outlast ctx.
type Lister interface {
	List(ctx context.Context) ([]Device, error)
}
