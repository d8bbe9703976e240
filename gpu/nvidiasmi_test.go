package gpu

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNvidiaSMIListsWhatWasRecorded(t *testing.T) {
	busy := 87
	for name, want := range map[string][]Device{
		"t4":      {{Name: "Tesla T4", UUID: "GPU-2b2e2b2e-1111-2222-3333-444455556666", MemoryTotalMiB: 15360, MemoryFreeMiB: 15095, ComputeCapability: "7.5"}},
		"t4_busy": {{Name: "Tesla T4", UUID: "GPU-2b2e2b2e-1111-2222-3333-444455556666", MemoryTotalMiB: 15360, MemoryFreeMiB: 1843, ComputeCapability: "7.5", Busy: &busy}},
		"two_l4_one_busy": {
			{Index: 0, Name: "NVIDIA L4", UUID: "GPU-bbbb0000-1111-2222-3333-444455556666", MemoryTotalMiB: 23034, MemoryFreeMiB: 1201, ComputeCapability: "8.9"},
			{Index: 1, Name: "NVIDIA L4", UUID: "GPU-bbbb0001-1111-2222-3333-444455556666", MemoryTotalMiB: 23034, MemoryFreeMiB: 22563, ComputeCapability: "8.9"},
		},
		// Drivers that do not know compute_cap, or not even MIG.
		"driver_470": {{Name: "Tesla V100-SXM2-16GB", UUID: "GPU-cccc0000-1111-2222-3333-444455556666", MemoryTotalMiB: 16160, MemoryFreeMiB: 16130}},
		"driver_418": {{Name: "Tesla V100-SXM2-16GB", UUID: "GPU-cccc0000-1111-2222-3333-444455556666", MemoryTotalMiB: 16160, MemoryFreeMiB: 16130}},
		// Memory that is shared with the CPU is not told.
		"gb10":  {{Name: "NVIDIA GB10", UUID: "GPU-9a9a0000-1111-2222-3333-444455556666", ComputeCapability: "12.1"}},
		"units": {{Name: "GeForce GTX 1080 Ti", UUID: "GPU-1080aaaa-1111-2222-3333-444455556666", MemoryTotalMiB: 11178, MemoryFreeMiB: 10925, ComputeCapability: "6.1"}},
		// A divided GPU is its slices; who is not root may not ask for its memory.
		"a100_mig": {
			{Name: "NVIDIA A100-SXM4-40GB MIG 3g.20gb", UUID: "MIG-a1000000-42e4-5de3-91c7-45d71c87eb3f", MemoryTotalMiB: 20096, MemoryFreeMiB: 20077, ComputeCapability: "8.0", MIG: true},
			{Name: "NVIDIA A100-SXM4-40GB MIG 1g.5gb", UUID: "MIG-a2000000-9bed-5b25-b243-5985ef7c9beb", MemoryTotalMiB: 4864, ComputeCapability: "8.0", MIG: true},
			{Index: 1, Name: "NVIDIA A100-SXM4-40GB", UUID: "GPU-aaaa0001-1111-2222-3333-444455556666", MemoryTotalMiB: 40960, MemoryFreeMiB: 40339, ComputeCapability: "8.0"},
		},
		"no devices, status 0": nil,
		"silent":               nil,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := fakeSMI(t, name).List(t.Context())
			require.NoError(t, err)
			assert.Equal(t, want, got)
		})
	}
}

func TestAGPUWithoutSlicesIsNotNoGPU(t *testing.T) {
	_, err := fakeSMI(t, "a100_mig_empty").List(t.Context())
	require.ErrorIs(t, err, errNoSlice)

	devices, err := divide([]Device{{Index: 0, MIG: true}, {Index: 1}}, "", "<nvidia_smi_log/>")
	require.NoError(t, err)
	assert.Equal(t, []Device{{Index: 1}}, devices)
}

func TestNvidiaSMIWithoutADriverIsNobodyToAsk(t *testing.T) {
	for _, play := range []string{"no driver", "no library", "no devices"} {
		t.Run(play, func(t *testing.T) {
			_, err := fakeSMI(t, play).List(t.Context())
			require.ErrorIs(t, err, errNoDriver)
		})
	}
}

func TestNvidiaSMIThatFailsSaysWhatItPrinted(t *testing.T) {
	_, err := fakeSMI(t, "mismatch").List(t.Context())
	require.ErrorContains(t, err, "Driver/library version mismatch")
	require.NotErrorIs(t, err, errNoDriver)
}

func TestNvidiaSMIIsFoundInPath(t *testing.T) {
	path := fakeSMI(t, "t4").path
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	_, err := smiLister{}.List(t.Context())
	require.ErrorIs(t, err, errNoDriver, "nobody has an nvidia-smi")

	require.NoError(t, os.Symlink(path, filepath.Join(dir, "nvidia-smi")))
	devices, err := smiLister{}.List(t.Context())
	require.NoError(t, err)
	assert.Len(t, devices, 1)
}

func TestNvidiaSMIThatWasNamedMustBeThere(t *testing.T) {
	_, err := smiLister{path: filepath.Join(t.TempDir(), "nvidia-smi")}.List(t.Context())
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NotErrorIs(t, err, errNoDriver)
}

func TestAnswersThatAreNoneAreRefused(t *testing.T) {
	const good = "GPU-2b2e2b2e-1111-2222-3333-444455556666"
	for name, text := range map[string]string{
		"a page of a proxy":   "<html>502 Bad Gateway</html>\n",
		"too few columns":     "0, Tesla T4, " + good + "\n",
		"no index":            "zero, Tesla T4, " + good + ", 15360, 15095, [N/A], 7.5\n",
		"a negative index":    "-1, Tesla T4, " + good + ", 15360, 15095, [N/A], 7.5\n",
		"memory in words":     "0, Tesla T4, " + good + ", plenty, 15095, [N/A], 7.5\n",
		"negative memory":     "0, Tesla T4, " + good + ", 15360, -1, [N/A], 7.5\n",
		"memory in gigabytes": "0, Tesla T4, " + good + ", 15 GiB, 15095, [N/A], 7.5\n",
		"a torn answer":       "0, Tesla T4, " + good + ", 15360, 15095, [N/A], 7.5\n1, Tesla T",
	} {
		t.Run(name, func(t *testing.T) {
			devices, err := parseSMI(text)
			require.Error(t, err)
			assert.Nil(t, devices)
		})
	}
}

func TestAGPUThatIsLostIsLeftOut(t *testing.T) {
	devices, err := parseSMI("0, [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost]\n" +
		"1, Tesla T4, GPU-2b2e2b2e-1111-2222-3333-444455556666, 15360, 15095, [N/A], 7.5\n")
	require.NoError(t, err)
	require.Len(t, devices, 1)
	assert.Equal(t, 1, devices[0].Index)
}

func TestHowBusyAGPUIsIsReadIfItIsTold(t *testing.T) {
	const t4 = "0, Tesla T4, GPU-2b2e2b2e-1111-2222-3333-444455556666, 15360, 15095, [N/A], 7.5"
	for column, want := range map[string]any{", 87": 87, ", 0 %": 0, ", [N/A]": nil, ", 130": nil, "": nil} {
		devices, err := parseSMI(t4 + column + "\n")
		require.NoError(t, err)
		require.Len(t, devices, 1)
		if want == nil {
			assert.Nil(t, devices[0].Busy, column)
		} else if assert.NotNil(t, devices[0].Busy, column) {
			assert.Equal(t, want, *devices[0].Busy)
		}
	}
}

func TestASliceOfAnOldDriverKeepsItsName(t *testing.T) {
	whole := []Device{{Index: 0, Name: "A100", UUID: "GPU-5d5b", MIG: true}}
	devices, err := divide(whole,
		"GPU 0: A100 (UUID: GPU-5d5b)\n  MIG 1c.3g.20gb  Device  0: (UUID: MIG-GPU-5d5b/7/0)\n", "<nvidia_smi_log/>")
	require.NoError(t, err)
	assert.Equal(t, []Device{{Name: "A100 MIG 1c.3g.20gb", UUID: "MIG-GPU-5d5b/7/0", MIG: true}}, devices)
}

func TestDetailsThatAreNoXMLAreRefused(t *testing.T) {
	_, err := divide([]Device{{MIG: true}}, "", "Segmentation fault")
	require.Error(t, err)
}

func FuzzParseSMINeverPanics(f *testing.F) {
	for _, name := range []string{"t4.csv", "a100_mig.csv", "driver_418.csv", "gb10.csv"} {
		f.Add(answer(name))
	}
	f.Fuzz(func(t *testing.T, text string) {
		devices, err := parseSMI(text)
		if err != nil {
			assert.Nil(t, devices)
		}
		for _, d := range devices {
			assert.GreaterOrEqual(t, d.Index, 0)
			assert.GreaterOrEqual(t, d.MemoryFreeMiB, int64(0))
		}
	})
}
