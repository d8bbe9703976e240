//go:build cgo && linux

package gpu

import (
	"context"
	"errors"
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// nvmlLister asks the driver's own library, which is loaded when it is needed:
// the program also runs where there is none.
type nvmlLister struct{ lib nvml.Interface }

var _ Lister = nvmlLister{}

func newNVML() nvmlLister { return nvmlLister{nvml.New()} }

// List implements Lister. A GPU that is divided (MIG) is listed as its slices,
// because a program can use nothing else of it. One that does not answer, since
// it is lost or somebody else's, is left out, as long as another does.
func (l nvmlLister) List(context.Context) ([]Device, error) {
	if ret := l.lib.Init(); ret != nvml.SUCCESS {
		return nil, noDriver(ret)
	}
	defer l.lib.Shutdown() //nolint:errcheck // the answer is there already
	n, ret := l.lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return nil, fmt.Errorf("count GPUs: %w", ret)
	}
	var devices []Device
	var silent []error
	for i := range n {
		found, err := l.describe(i)
		if err != nil {
			silent = append(silent, err)
			continue
		}
		devices = append(devices, found...)
	}
	if n > 0 && len(silent) == n {
		return nil, errors.Join(silent...)
	}
	return devices, nil
}

// noDriver tells a machine without a driver from one whose driver is broken.
func noDriver(ret nvml.Return) error {
	switch ret {
	case nvml.ERROR_LIBRARY_NOT_FOUND, nvml.ERROR_DRIVER_NOT_LOADED:
		return errNoDriver
	default:
		return fmt.Errorf("start NVML: %w", ret)
	}
}

// describe returns one GPU, or its slices.
func (l nvmlLister) describe(index int) ([]Device, error) {
	handle, ret := l.lib.DeviceGetHandleByIndex(index)
	if ret != nvml.SUCCESS {
		return nil, fmt.Errorf("open GPU %d: %w", index, ret)
	}
	capability := ""
	if major, minor, ret := handle.GetCudaComputeCapability(); ret == nvml.SUCCESS {
		capability = fmt.Sprintf("%d.%d", major, minor)
	}
	if mode, _, ret := handle.GetMigMode(); ret == nvml.SUCCESS && mode == nvml.DEVICE_MIG_ENABLE {
		return divided(handle, index, capability)
	} // older cards do not know the question
	d, err := one(handle, index, capability)
	if err != nil {
		return nil, err
	}
	return []Device{d}, nil
}

// divided returns the slices of a GPU. The GPU itself is not asked for its
// memory: only root may.
func divided(handle nvml.Device, index int, capability string) ([]Device, error) {
	slots, ret := handle.GetMaxMigDeviceCount()
	if ret != nvml.SUCCESS {
		return nil, fmt.Errorf("count slices of GPU %d: %w", index, ret)
	}
	var slices []Device
	for i := range slots {
		slice, ret := handle.GetMigDeviceHandleByIndex(i)
		if ret != nvml.SUCCESS {
			continue // a slot without a slice, or with somebody else's
		}
		d, err := one(slice, index, capability)
		if err != nil {
			return nil, err
		}
		d.MIG = true
		slices = append(slices, d)
	}
	if len(slices) == 0 {
		return nil, fmt.Errorf("open GPU %d: %w", index, errNoSlice)
	}
	return slices, nil
}

func one(handle nvml.Device, index int, capability string) (Device, error) {
	name, ret := handle.GetName()
	if ret != nvml.SUCCESS {
		return Device{}, fmt.Errorf("name GPU %d: %w", index, ret)
	}
	uuid, ret := handle.GetUUID()
	if ret != nvml.SUCCESS {
		return Device{}, fmt.Errorf("identify GPU %d: %w", index, ret)
	}
	d := Device{Index: index, Name: name, UUID: uuid, ComputeCapability: capability}
	memory, ret := handle.GetMemoryInfo()
	switch ret {
	case nvml.SUCCESS:
		d.MemoryTotalMiB, d.MemoryFreeMiB = mib(memory.Total), mib(memory.Free)
	case nvml.ERROR_NOT_SUPPORTED: // memory shared with the CPU
	default:
		return Device{}, fmt.Errorf("measure memory of GPU %d: %w", index, ret)
	}
	if rates, ret := handle.GetUtilizationRates(); ret == nvml.SUCCESS {
		busy := int(rates.Gpu)
		d.Busy = &busy
	} // a slice is not told of
	return d, nil
}

func mib(bytes uint64) int64 { return int64(bytes >> 20) }
