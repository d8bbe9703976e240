//go:build cgo && linux

package gpu

import (
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/gpus"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// machine returns NVIDIA's own fake of their library, with idle GPUs.
func machine(t *testing.T, cards ...gpus.Config) *server.Server {
	t.Helper()
	lib, err := server.New(server.WithGPUs(cards...))
	require.NoError(t, err)
	for i := range cards {
		d := card(lib, i)
		d.MemoryInfo.Free = d.MemoryInfo.Total - 600<<20
		d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) {
			return nvml.Utilization{Gpu: uint32(10 * i), Memory: 99}, nvml.SUCCESS
		}
	}
	return lib
}

func card(lib *server.Server, i int) *server.Device {
	return lib.Devices[i].(*server.Device)
}

// slice is a slice of a GPU, which the fake does not know.
func slice(name, uuid string, total, free uint64) *mock.Device {
	return &mock.Device{
		GetNameFunc:       func() (string, nvml.Return) { return name, nvml.SUCCESS },
		GetUUIDFunc:       func() (string, nvml.Return) { return uuid, nvml.SUCCESS },
		GetMemoryInfoFunc: func() (nvml.Memory, nvml.Return) { return nvml.Memory{Total: total, Free: free}, nvml.SUCCESS },
		GetUtilizationRatesFunc: func() (nvml.Utilization, nvml.Return) {
			return nvml.Utilization{}, nvml.ERROR_NOT_SUPPORTED
		},
	}
}

// divideCard puts slices into the slots of a GPU; nil is an empty slot.
func divideCard(d *server.Device, slots ...*mock.Device) {
	d.MigMode = nvml.DEVICE_MIG_ENABLE
	d.GetMemoryInfoFunc = func() (nvml.Memory, nvml.Return) { return nvml.Memory{}, nvml.ERROR_NO_PERMISSION }
	d.GetMaxMigDeviceCountFunc = func() (int, nvml.Return) { return len(slots), nvml.SUCCESS }
	d.GetMigDeviceHandleByIndexFunc = func(i int) (nvml.Device, nvml.Return) {
		if slots[i] == nil {
			return nil, nvml.ERROR_NOT_FOUND
		}
		return slots[i], nvml.SUCCESS
	}
}

func TestNVMLCountsInMebibytes(t *testing.T) {
	lib := machine(t, gpus.A100_SXM4_40GB, gpus.H100_SXM5_80GB)
	devices, err := nvmlLister{lib}.List(t.Context())
	require.NoError(t, err)
	idle, busy := 0, 10
	assert.Equal(t, []Device{
		{
			Index: 0, Name: "Mock NVIDIA A100-SXM4-40GB", UUID: card(lib, 0).UUID,
			MemoryTotalMiB: 40960, MemoryFreeMiB: 40360, ComputeCapability: "8.0", Busy: &idle,
		},
		{
			Index: 1, Name: "NVIDIA H100 80GB HBM3", UUID: card(lib, 1).UUID,
			MemoryTotalMiB: 81920, MemoryFreeMiB: 81320, ComputeCapability: "9.0", Busy: &busy,
		},
	}, devices)
}

func TestNVMLListsADividedGPUAsItsSlices(t *testing.T) {
	lib := machine(t, gpus.A100_SXM4_40GB, gpus.A100_SXM4_40GB)
	divideCard(card(lib, 0),
		slice("NVIDIA A100-SXM4-40GB MIG 3g.20gb", "MIG-a1", 20096<<20, 20077<<20), nil,
		slice("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "MIG-a2", 4864<<20, 4850<<20))
	devices, err := nvmlLister{lib}.List(t.Context())
	require.NoError(t, err, "only root may ask for the memory of a divided GPU")
	require.Len(t, devices, 3)
	assert.Equal(t, Device{
		Name: "NVIDIA A100-SXM4-40GB MIG 3g.20gb", UUID: "MIG-a1",
		MemoryTotalMiB: 20096, MemoryFreeMiB: 20077, ComputeCapability: "8.0", MIG: true,
	}, devices[0])
	assert.Equal(t, "MIG-a2", devices[1].UUID)
	assert.Equal(t, 1, devices[2].Index)
	assert.False(t, devices[2].MIG)
}

func TestNVMLSaysThatADividedGPUHasNoSlices(t *testing.T) {
	lib := machine(t, gpus.A100_SXM4_40GB)
	divideCard(card(lib, 0), nil, nil)
	_, err := nvmlLister{lib}.List(t.Context())
	require.ErrorIs(t, err, errNoSlice)
}

func TestNVMLKnowsCardsThatDoNotKnowMIG(t *testing.T) {
	lib := machine(t, gpus.A100_SXM4_40GB)
	card(lib, 0).GetMigModeFunc = func() (int, int, nvml.Return) { return 0, 0, nvml.ERROR_NOT_SUPPORTED }
	card(lib, 0).GetCudaComputeCapabilityFunc = func() (int, int, nvml.Return) { return 0, 0, nvml.ERROR_NOT_SUPPORTED }
	devices, err := nvmlLister{lib}.List(t.Context())
	require.NoError(t, err)
	require.Len(t, devices, 1)
	assert.Empty(t, devices[0].ComputeCapability)
}

func TestNVMLThatCannotTellTheMemoryStillHasAGPU(t *testing.T) {
	lib := machine(t, gpus.H100_SXM5_80GB)
	card(lib, 0).GetMemoryInfoFunc = func() (nvml.Memory, nvml.Return) { return nvml.Memory{}, nvml.ERROR_NOT_SUPPORTED }
	devices, err := nvmlLister{lib}.List(t.Context())
	require.NoError(t, err)
	require.Len(t, devices, 1)
	assert.Zero(t, devices[0].MemoryTotalMiB)
}

func TestNVMLLeavesOutAGPUThatDoesNotAnswer(t *testing.T) {
	lost := func() (nvml.Memory, nvml.Return) { return nvml.Memory{}, nvml.ERROR_GPU_IS_LOST }
	lib := machine(t, gpus.A100_SXM4_40GB, gpus.A100_SXM4_40GB)
	card(lib, 0).GetMemoryInfoFunc = lost
	devices, err := nvmlLister{lib}.List(t.Context())
	require.NoError(t, err)
	require.Len(t, devices, 1)
	assert.Equal(t, 1, devices[0].Index)

	card(lib, 1).GetMemoryInfoFunc = lost
	_, err = nvmlLister{lib}.List(t.Context())
	require.ErrorIs(t, err, nvml.ERROR_GPU_IS_LOST, "none that answers is a driver that is broken")
}

func TestNVMLWithoutADriverIsNobodyToAsk(t *testing.T) {
	for ret, none := range map[nvml.Return]bool{
		nvml.ERROR_LIBRARY_NOT_FOUND:       true,
		nvml.ERROR_DRIVER_NOT_LOADED:       true,
		nvml.ERROR_LIB_RM_VERSION_MISMATCH: false,
	} {
		lib := machine(t)
		lib.InitFunc = func() nvml.Return { return ret }
		_, err := nvmlLister{lib}.List(t.Context())
		require.Error(t, err)
		assert.Equal(t, none, err == errNoDriver, ret.String()) //nolint:errorlint // that very one
	}
}

func TestNVMLIsShutDownAgain(t *testing.T) {
	lib := machine(t, gpus.A100_SXM4_40GB)
	closed := 0
	lib.ShutdownFunc = func() nvml.Return { closed++; return nvml.SUCCESS }
	_, err := nvmlLister{lib}.List(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 1, closed)
}
