package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"outlast/gpu"
	"outlast/training"
)

// deviceWait is how long the memory of a device may take to be told.
const deviceWait = 10 * time.Second

// deviceMemory returns how to ask for the memory of the device that workers with
// these settings use.
func (p *program) deviceMemory(set training.Settings) func(context.Context) (training.DeviceMemory, error) {
	return func(ctx context.Context) (training.DeviceMemory, error) {
		ctx, cancel := context.WithTimeout(ctx, deviceWait)
		defer cancel()
		look := p.env.devices
		if list, ok := set.Env["CUDA_VISIBLE_DEVICES"]; ok { // the workers' own
			look = func(ctx context.Context) (gpu.Inventory, error) { return p.env.devicesAmong(ctx, list) }
		}
		found, err := look(ctx)
		if err != nil {
			return training.DeviceMemory{}, err
		}
		devices := found.Devices
		_, number, _ := strings.Cut(set.Device, ":")
		i := 0
		if number != "" {
			if i, err = strconv.Atoi(number); err != nil {
				return training.DeviceMemory{}, fmt.Errorf("find device %s: %w", set.Device, err)
			}
		}
		if i < 0 || i >= len(devices) {
			return training.DeviceMemory{}, fmt.Errorf("find device %s: there are %d", set.Device, len(devices))
		}
		d := devices[i]
		return training.DeviceMemory{Free: float64(d.MemoryFreeMiB), Total: float64(d.MemoryTotalMiB)}, nil
	}
}
