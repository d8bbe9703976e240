//go:build !cgo || !linux

package gpu

import "context"

// nvmlLister stands in where NVML cannot be loaded: nvidia-smi is asked instead.
type nvmlLister struct{}

var _ Lister = nvmlLister{}

func newNVML() nvmlLister { return nvmlLister{} }

// List implements Lister.
func (nvmlLister) List(context.Context) ([]Device, error) { return nil, errNoDriver }
