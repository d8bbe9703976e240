// Package gpu finds NVIDIA GPUs and chooses training settings that fit them.
//
// It knows nothing of plans, runs or notebooks: devices go in, plain values come
// out. Memory is counted in MiB throughout, as NVML's bytes and nvidia-smi's
// columns both can be; rules in gigabytes take a T4 for a V100.
package gpu

import (
	"context"
	"errors"
	"time"
)

// A Device is one GPU, or one slice (MIG instance) of a GPU.
type Device struct {
	Index             int    `json:"index"` // in PCI bus order
	Name              string `json:"name"`
	UUID              string `json:"uuid"`
	MemoryTotalMiB    int64  `json:"memory_total_mib"`
	MemoryFreeMiB     int64  `json:"memory_free_mib"`
	ComputeCapability string `json:"compute_capability"` // "7.5"; empty if unknown
	MIG               bool   `json:"mig"`
}

// Source says who listed the devices.
type Source string

// The sources, in the order in which they are asked.
const (
	SourceNVML Source = "nvml"
	SourceSMI  Source = "nvidia-smi"
	SourceNone Source = "none"
)

// Inventory is what was found on this machine.
type Inventory struct {
	Devices []Device
	Source  Source
}

// A Lister lists the devices of this machine. A machine without a driver has
// none: that is errNoDriver, and the next lister is asked.
type Lister interface {
	List(ctx context.Context) ([]Device, error)
}

// errNoDriver says that a lister has nobody to ask.
var errNoDriver = errors.New("there is no NVIDIA driver")

// queryTimeout bounds one question: a GPU that fell off the bus makes the
// driver hang.
const queryTimeout = 15 * time.Second

// Detect lists the GPUs of this machine: NVML, else the nvidia-smi at smiPath
// (found in PATH if empty), else none.
func Detect(ctx context.Context, smiPath string) (Inventory, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	for _, by := range []struct {
		source Source
		lister Lister
	}{{SourceNVML, nvmlLister{}}, {SourceSMI, smiLister{path: smiPath}}} {
		devices, err := by.lister.List(ctx)
		if errors.Is(err, errNoDriver) {
			continue
		}
		if err != nil {
			return Inventory{Source: by.source}, err
		}
		return Inventory{Devices: devices, Source: by.source}, nil
	}
	return Inventory{Source: SourceNone}, nil
}
