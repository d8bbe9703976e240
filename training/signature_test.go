package training

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestSignatures judges what programs really print.
func TestSignatures(t *testing.T) {
	tests := map[string]struct {
		text     string
		cause    Cause // empty: it says nothing
		shortage Shortage
	}{
		"torch, our own memory": {
			"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 540.00 MiB. GPU 0 has a total capacity of 14.76 GiB of which 298.75 MiB is free. Process 63729 has 14.46 GiB memory in use. Of the allocated memory 13.90 GiB is allocated by PyTorch, and 310.50 MiB is reserved by PyTorch but unallocated.",
			CauseDeviceOOM, ShortageOwn,
		},
		"torch 1.13": {
			"torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 14.76 GiB total capacity; 13.50 GiB already allocated; 9.75 MiB free; 13.60 GiB reserved in total by PyTorch) If reserved memory is >> allocated memory try setting max_split_size_mb",
			CauseDeviceOOM, ShortageOwn,
		},
		"torch, a cap of ours": {
			"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB of which 42.10 GiB is free. 8.00 GiB allowed; Of the allocated memory 7.10 GiB is allocated by PyTorch, and 120.00 MiB is reserved by PyTorch but unallocated.",
			CauseDeviceOOM, ShortageCap,
		},
		"torch, a neighbour's memory": {
			"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 256.00 MiB. GPU 0 has a total capacity of 191.98 GiB of which 14.00 MiB is free. Of the allocated memory 9.58 GiB is allocated by PyTorch, and 54.23 MiB is reserved by PyTorch but unallocated.",
			CauseDeviceOOM, ShortageNeighbour,
		},
		"torch, in pieces": {
			"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB. GPU 0 has a total capacity of 14.76 GiB of which 100.00 MiB is free. Of the allocated memory 9.00 GiB is allocated by PyTorch, and 5.01 GiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting PYTORCH_ALLOC_CONF=expandable_segments:True to avoid fragmentation.",
			CauseDeviceOOM, ShortageScattered,
		},
		"torch on AMD":               {"torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 GiB.", CauseDeviceOOM, ShortageOwn},
		"torch on Intel":             {"torch.OutOfMemoryError: XPU out of memory. Tried to allocate 2.00 GiB.", CauseDeviceOOM, ShortageOwn},
		"torch on Apple":             {"RuntimeError: MPS backend out of memory (MPS allocated: 17.75 GB, other allocations: 361.61 MB, max allowed: 18.13 GB).", CauseDeviceOOM, ShortageOwn},
		"without a full stop":        {"RuntimeError: CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported", CauseDeviceOOM, ShortageUnclear},
		"cublas":                     {"RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", CauseDeviceOOM, ShortageUnclear},
		"cublas, not initialised":    {"RuntimeError: CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`", CauseDeviceOOM, ShortageUnclear},
		"cudnn":                      {"RuntimeError: cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a non-contiguous input.", CauseDeviceOOM, ShortageUnclear},
		"jax, bytes":                 {"jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes.", CauseDeviceOOM, ShortageOwn},
		"jax, gigabytes":             {"XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate 12.50GiB", CauseDeviceOOM, ShortageOwn},
		"tensorflow":                 {"tensorflow.python.framework.errors_impl.ResourceExhaustedError: OOM when allocating tensor with shape[64,512,512,3]", CauseDeviceOOM, ShortageOwn},
		"Gaudi":                      {"RuntimeError: FATAL ERROR :: MODULE:PT_DEVMEM Allocation failed for size::16777216", CauseDeviceOOM, ShortageOwn},
		"torch, host memory":         {`RuntimeError: [enforce fail at alloc_cpu.cpp:66] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 400000000000 bytes. Error code 12 (Cannot allocate memory)`, CauseHostOOM, ""},
		"torch on Windows":           {"RuntimeError: [enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: not enough memory: you tried to allocate 16777216 bytes.", CauseHostOOM, ""},
		"numpy":                      {"numpy.core._exceptions._ArrayMemoryError: Unable to allocate 745. GiB for an array with shape (100000, 1000000) and data type float64", CauseHostOOM, ""},
		"Python":                     {"Traceback (most recent call last):\n  File \"x.py\", line 1, in <module>\nMemoryError", CauseHostOOM, ""},
		"C++":                        {"terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc", CauseHostOOM, ""},
		"fork":                       {"OSError: [Errno 12] Cannot allocate memory", CauseHostOOM, ""},
		"a loader was killed":        {"RuntimeError: DataLoader worker (pid 4711) is killed by signal: Killed. ", CauseHostOOM, ""},
		"loaders were killed":        {"RuntimeError: DataLoader worker (pid(s) 4711, 4712) is killed by signal: Killed. ", CauseHostOOM, ""},
		"too little shared memory":   {"RuntimeError: DataLoader worker (pid 8) is killed by signal: Bus error. It is possible that dataloader's workers are out of shared memory.", CauseHostOOM, ""},
		"disk full":                  {"OSError: [Errno 28] No space left on device: '/content/x'", CauseDiskFull, ""},
		"a program in Go":            {"panic: write /run/x: no space left on device", CauseDiskFull, ""},
		"quota":                      {"OSError: [Errno 122] Disk quota exceeded", CauseDiskFull, ""},
		"torch.save on a full disk":  {"RuntimeError: [enforce fail at inline_container.cc:603] . PytorchStreamWriter failed writing file data/3: file write failed", CauseDiskFull, ""},
		"fallen off the bus":         {"NVRM: Xid (PCI:0000:03:00): 79, pid=1234, GPU has fallen off the bus.", CauseDeviceLost, ""},
		"double-bit error":           {"NVRM: Xid (PCI:0000:03:00): 48, pid=1234, DBE", CauseDeviceLost, ""},
		"uncorrectable":              {"RuntimeError: CUDA error: uncorrectable ECC error encountered", CauseDeviceLost, ""},
		"busy":                       {"RuntimeError: CUDA error: all CUDA-capable devices are busy or unavailable", CauseDeviceLost, ""},
		"an illegal access":          {"RuntimeError: CUDA error: an illegal memory access was encountered", CauseCrash, ""},
		"built for another device":   {"RuntimeError: CUDA error: no kernel image is available for execution on the device", CauseError, ""},
		"another model's checkpoint": {"RuntimeError: Error(s) in loading state_dict for Net:\n\tsize mismatch for lora_A: copying a param with shape torch.Size([32, 1024])", CauseError, ""},

		"a shape":             {"RuntimeError: mat1 and mat2 shapes cannot be multiplied (32x64 and 128x10)", "", ""},
		"an import":           {"ModuleNotFoundError: No module named 'torchvision'", "", ""},
		"another Xid":         {"NVRM: Xid (PCI:0000:03:00): 13, pid=1234, Graphics Exception", "", ""},
		"talk of memory":      {"ValueError: the memory bank must not be empty", "", ""},
		"a class's name":      {"class MyMemoryErrorHandler is deprecated", "", ""},
		"an assert of labels": {"RuntimeError: CUDA error: device-side assert triggered", "", ""},
		"nothing":             {"", "", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			end, known := recognise(test.text)
			assert.Equal(t, test.cause != "", known)
			assert.Equal(t, test.cause, end.cause)
			assert.Equal(t, test.shortage, end.shortage)
		})
	}
}

func TestFiguresOfAnOutOfMemoryMessage(t *testing.T) {
	tests := map[string]struct {
		text string
		want memory
	}{
		"torch 2": {
			"CUDA out of memory. Tried to allocate 540.00 MiB. GPU 0 has a total capacity of 14.75 GiB of which 298.75 MiB is free. 8.00 GiB allowed; Of the allocated memory 7.50 GiB is allocated by PyTorch, and 310.50 MiB is reserved by PyTorch but unallocated.",
			memory{Tried: 540, Free: 298.75, Total: 15104, Allowed: 8192, Allocated: 7680, Reserved: 310.5},
		},
		"torch 1": {
			"CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 14.75 GiB total capacity; 13.50 GiB already allocated; 9.75 MiB free; 13.75 GiB reserved in total by PyTorch)",
			memory{Tried: 20, Free: 9.75, Total: 15104, Allocated: 13824, Reserved: 256},
		},
		"jax":     {"RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes.", memory{Tried: 16384}},
		"KiB":     {"CUDA out of memory. Tried to allocate 512.00 KiB.", memory{Tried: 0.5}},
		"nothing": {"CUDA error: out of memory", memory{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, readMemory(test.text)) })
	}
	require.Equal(t, "it had 7.5 GiB and wanted 540 MiB more; the device has 14.8 GiB, of which 299 MiB were free; the limit set for it is 8.0 GiB", readMemory(tests["torch 2"].text).words())
}

func TestTracebacks(t *testing.T) {
	trace := "Traceback (most recent call last):\n  File \"t.py\", line 1, in <module>\n    import nothing\nModuleNotFoundError: No module named 'nothing'"
	for name, test := range map[string]struct {
		text string
		ok   bool
	}{
		"at the end":            {"epoch 1\n" + trace + "\n", true},
		"with one before":       {"Traceback (most recent call last):\nKeyError: 1\n\nDuring handling of the above exception, another exception occurred:\n\n" + trace, true},
		"the program went on":   {trace + "\nnever mind, trying again\n", false},
		"none":                  {"epoch 1\n", false},
		"a class of the user's": {"Traceback (most recent call last):\n  File \"t.py\", line 1\nmy.lib.BadError", true},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := traceback(test.text)
			require.Equal(t, test.ok, ok)
			if ok && name != "a class of the user's" {
				require.Equal(t, trace, got)
			}
		})
	}
}
