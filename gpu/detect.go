package gpu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"time"
)

// errNoDriver says that a lister has nobody to ask.
var errNoDriver = errors.New("there is no NVIDIA driver")

// errNoSlice says that a GPU is divided (MIG), but into nothing that may be used.
var errNoSlice = errors.New("the GPU is divided (MIG), and none of its slices may be used here")

// queryTimeout bounds one lister: a GPU that fell off the bus makes the driver
// hang. A machine with eight sleeping GPUs takes some seconds to answer.
const queryTimeout = 15 * time.Second

// A DriverError says that there is a driver, and that it does not answer.
// Training on the CPU instead would be an expensive surprise.
type DriverError struct{ Err error }

func (e *DriverError) Error() string { return fmt.Sprintf("find the GPUs: %v", e.Err) }

// Unwrap returns what the driver said.
func (e *DriverError) Unwrap() error { return e.Err }

// Cure returns what to do.
func (e *DriverError) Cure() string {
	if program, ok := errors.AsType[*ProgramError](e.Err); ok {
		return program.Cure()
	}
	return "run nvidia-smi in a terminal; if it fails too, restart the machine or its driver. " +
		"To train on the CPU meanwhile, set CUDA_VISIBLE_DEVICES to nothing"
}

// A ProgramError says that the nvidia-smi which somebody has named is no program.
// It is a mistake in the settings, whatever there is of a driver.
type ProgramError struct {
	Path string
	Err  error
}

func (e *ProgramError) Error() string {
	why := e.Err
	if inner, ok := errors.AsType[*exec.Error](why); ok { // it names the path too
		why = inner.Err
	}
	if inner, ok := errors.AsType[*fs.PathError](why); ok {
		why = inner.Err
	}
	return fmt.Sprintf("OUTLAST_NVIDIA_SMI names %s, which cannot be run: %v", e.Path, why)
}

// Unwrap returns the reason.
func (e *ProgramError) Unwrap() error { return e.Err }

// Cure returns what to do.
func (e *ProgramError) Cure() string {
	return "unset OUTLAST_NVIDIA_SMI, or set it to the path of nvidia-smi"
}

// asked is a lister under the name by which users know it.
type asked struct {
	source Source
	lister Lister
}

// Detect lists the GPUs of this machine: NVML, else the nvidia-smi at smiPath
// (found in PATH if empty), else none. Its error is a *DriverError.
func Detect(ctx context.Context, smiPath string) (Inventory, error) {
	return detect(ctx, queryTimeout, asked{SourceNVML, newNVML()}, asked{SourceSMI, smiLister{path: smiPath}})
}

// detect returns the first answer. A lister that failed is remembered: if
// nobody after it answers either, its reason is the one to tell.
func detect(ctx context.Context, limit time.Duration, listers ...asked) (Inventory, error) {
	var failed error
	for _, by := range listers {
		devices, err := within(ctx, limit, by.lister)
		switch {
		case err == nil:
			return Inventory{Devices: devices, Source: by.source}, nil
		case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled):
			return Inventory{Source: SourceNone}, &DriverError{fmt.Errorf("%s: %w", by.source, err)}
		case !errors.Is(err, errNoDriver) && failed == nil:
			failed = fmt.Errorf("%s: %w", by.source, err)
		}
	}
	if failed != nil {
		return Inventory{Source: SourceNone}, &DriverError{failed}
	}
	return Inventory{Source: SourceNone}, nil
}

// within asks a lister, and stops waiting after limit. A process that hangs in
// the driver cannot be killed, nor a call left: the goroutine that waits for it
// is given up with it.
func within(ctx context.Context, limit time.Duration, lister Lister) ([]Device, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	type answer struct {
		devices []Device
		err     error
	}
	answered := make(chan answer, 1)
	go func() {
		defer func() {
			if v := recover(); v != nil { // the kernel, or the supervisor, would end with it
				answered <- answer{err: fmt.Errorf("a mistake in Outlast, please report it: %v", v)}
			}
		}()
		devices, err := lister.List(ctx)
		answered <- answer{devices, err}
	}()
	select {
	case a := <-answered:
		if a.err != nil && ctx.Err() != nil {
			return nil, fmt.Errorf("no answer: %w", ctx.Err())
		}
		return a.devices, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("no answer: %w", ctx.Err())
	}
}
