package magics

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"outlast/gpu"
	"outlast/training"
)

const (
	// gaugeInterval is how often the GPUs' memory is read while a run is watched.
	gaugeInterval = 5 * time.Second
	// glance is how long a single look may take; a driver can hang for longer.
	glance = 2 * time.Second
)

// gauge reads the GPUs' memory now and then, beside the live view: a driver that
// hangs must not stop it. It returns the latest reading in words, and what ends
// the reading. A run on the CPU has none.
func (d *Deps) gauge(ctx context.Context, run *training.Run) (latest func() []string, stop func()) {
	if !onGPU(run) {
		return nil, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var mu sync.Mutex
	var words []string
	var reading sync.WaitGroup
	reading.Go(func() {
		tick := time.NewTicker(gaugeInterval)
		defer tick.Stop()
		for {
			now := d.memory(ctx, run)
			mu.Lock()
			words = now
			mu.Unlock()
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	latest = func() []string {
		mu.Lock()
		defer mu.Unlock()
		return words
	}
	return latest, func() { cancel(); reading.Wait() }
}

// memory says how full each GPU is that the run's workers see, and how busy. What
// cannot be read is not worth an error here: %doctor is the place for it.
func (d *Deps) memory(ctx context.Context, run *training.Run) []string {
	there := place{}
	if list, ok := run.Plan().Settings.Env[visibleDevices]; ok {
		there.visible = &list
	}
	found, err := d.devices(ctx, there)
	if err != nil {
		return nil
	}
	var words []string
	for _, dev := range found.Devices {
		if text := memoryOf(dev); text != "" {
			words = append(words, text)
		}
	}
	return words
}

func memoryOf(dev gpu.Device) string {
	if dev.MemoryTotalMiB == 0 {
		return ""
	}
	used := dev.MemoryTotalMiB - dev.MemoryFreeMiB
	text := fmt.Sprintf("GPU %d, %s: %s of %s in use", dev.Index, dev.Name, mebibytes(used), mebibytes(dev.MemoryTotalMiB))
	if dev.Busy != nil {
		text += fmt.Sprintf(", %d %% busy", *dev.Busy)
	}
	return text
}

func onGPU(run *training.Run) bool {
	return strings.HasPrefix(run.Plan().Settings.Device, "cuda")
}

// glimpse is a single reading, for a view that is shown once.
func (d *Deps) glimpse(ctx context.Context, run *training.Run) func() []string {
	if !onGPU(run) {
		return nil
	}
	return func() []string {
		ctx, cancel := context.WithTimeout(ctx, glance)
		defer cancel()
		return d.memory(ctx, run)
	}
}
