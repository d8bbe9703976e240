//go:build cgo && linux

package gpu

import (
	"context"
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// nvmlLister asks the driver's own library, which is loaded when it is needed:
// the program also runs where there is none.
type nvmlLister struct{}

var _ Lister = nvmlLister{}

// List implements Lister. A GPU that is divided (MIG) is listed as its slices,
// because a program can use nothing else of it.
func (nvmlLister) List(context.Context) ([]Device, error) {
	lib := nvml.New()
	if ret := lib.Init(); ret != nvml.SUCCESS {
		return nil, noDriver(ret)
	}
	defer lib.Shutdown()
	n, ret := lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return nil, fmt.Errorf("count GPUs: %w", ret)
	}
	var devices []Device
	for i := range n {
		handle, ret := lib.DeviceGetHandleByIndex(i)
		if ret != nvml.SUCCESS {
			return nil, fmt.Errorf("open GPU %d: %w", i, ret)
		}
		found, err := describe(handle, i)
		if err != nil {
			return nil, err
		}
		devices = append(devices, found...)
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

func describe(handle nvml.Device, index int) ([]Device, error) {
	whole, err := one(handle, index)
	if err != nil {
		return nil, err
	}
	if mode, _, ret := handle.GetMigMode(); ret != nvml.SUCCESS || mode != nvml.DEVICE_MIG_ENABLE {
		return []Device{whole}, nil // older cards do not know the question
	}
	slots, ret := handle.GetMaxMigDeviceCount()
	if ret != nvml.SUCCESS {
		return nil, fmt.Errorf("count slices of GPU %d: %w", index, ret)
	}
	var slices []Device
	for i := range slots {
		slice, ret := handle.GetMigDeviceHandleByIndex(i)
		if ret != nvml.SUCCESS {
			continue // a slot without a slice
		}
		d, err := one(slice, index)
		if err != nil {
			return nil, err
		}
		d.MIG, d.ComputeCapability = true, whole.ComputeCapability
		slices = append(slices, d)
	}
	return slices, nil
}

func one(handle nvml.Device, index int) (Device, error) {
	name, ret := handle.GetName()
	if ret != nvml.SUCCESS {
		return Device{}, fmt.Errorf("name GPU %d: %w", index, ret)
	}
	uuid, ret := handle.GetUUID()
	if ret != nvml.SUCCESS {
		return Device{}, fmt.Errorf("identify GPU %d: %w", index, ret)
	}
	memory, ret := handle.GetMemoryInfo()
	if ret != nvml.SUCCESS {
		return Device{}, fmt.Errorf("measure memory of GPU %d: %w", index, ret)
	}
	d := Device{Index: index, Name: name, UUID: uuid, MemoryTotalMiB: mib(memory.Total), MemoryFreeMiB: mib(memory.Free)}
	if major, minor, ret := handle.GetCudaComputeCapability(); ret == nvml.SUCCESS {
		d.ComputeCapability = fmt.Sprintf("%d.%d", major, minor)
	}
	return d, nil
}

func mib(bytes uint64) int64 { return int64(bytes >> 20) }
