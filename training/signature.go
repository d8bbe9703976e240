package training

import (
	"regexp"
	"strings"
)

// A signature is how a cause shows in what a program says.
type signature struct {
	cause    Cause
	shortage Shortage
	text     *regexp.Regexp
}

// signatures returns what is known, the surest first: a text that several match
// is judged by the first. CauseError stands for what a retry cannot help.
//
// The texts are those of torch 1.13 to 2.9, jax, tensorflow, numpy and libc; an
// allocator that reports to nobody but the log is among them.
func signatures() []signature {
	device, host, disk, lost := CauseDeviceOOM, CauseHostOOM, CauseDiskFull, CauseDeviceLost
	list := []struct {
		cause    Cause
		shortage Shortage
		text     string
	}{
		{CauseError, "", `no kernel image is available`}, // built for other devices
		{CauseError, "", `size mismatch for `},

		{device, "", `(CUDA|HIP|XPU|MPS backend) out of memory`},
		{device, "", `RESOURCE_EXHAUSTED: (XLA:\S+ )?(Out of memory|Failed to allocate request)`},
		{device, "", `OOM when allocating tensor`},
		{device, "", `MODULE:PT_DEVMEM Allocation failed`},
		{device, ShortageUnclear, `CUDA error: out of memory|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation`},
		{device, ShortageUnclear, `(CUBLAS|CUSPARSE|CUSOLVER|CUDNN)_STATUS_(ALLOC_FAILED|NOT_INITIALIZED)`},
		{device, ShortageUnclear, `cuDNN error: CUDNN_STATUS_NOT_SUPPORTED`},

		{host, "", `DefaultCPUAllocator: (can't allocate memory|not enough memory)`},
		{host, "", `ArrayMemoryError|Unable to allocate .* for an array with shape`},
		{host, "", `(?m)^\s*(\w+\.)*MemoryError\b`},
		{host, "", `std::bad_alloc`},
		{host, "", `(?i)cannot allocate memory`},
		{host, "", `DataLoader worker \(pid\(?s?\)? .*\) is killed by signal: (Killed|Bus error)`},
		{host, "", `out of shared memory|insufficient shared memory`},

		{disk, "", `(?i)no space left on device|disk quota exceeded`},
		{disk, "", `\[Errno (28|122)\]`},
		{disk, "", `PytorchStreamWriter failed writing file`},

		{lost, "", `(?i)GPU (has fallen|is lost|has been lost)|fallen off the bus`},
		{lost, "", `Unable to determine the device handle for GPU`},
		{lost, "", `uncorrectable (NVLink|ECC) error`},
		{lost, "", `NVRM: Xid [^\n]*: (48|79),`},
		{lost, "", `CUDA-capable device\(s\) is/are busy or unavailable|all CUDA-capable devices are busy or unavailable`},

		{CauseCrash, "", `an illegal memory access was encountered|unspecified launch failure`}, // a new process is a new context
	}
	all := make([]signature, len(list))
	for i, s := range list {
		all[i] = signature{s.cause, s.shortage, regexp.MustCompile(s.text)}
	}
	return all
}

// recognise returns what text says of a cause; ok is false if it says nothing.
func recognise(text string) (end outcome, ok bool) {
	for _, s := range signatures() {
		if !s.text.MatchString(text) {
			continue
		}
		end = outcome{cause: s.cause, shortage: s.shortage}
		if s.cause == CauseDeviceOOM {
			end.memory = readMemory(text)
			if s.shortage == ShortageOwn {
				end.shortage = end.memory.shortage()
			}
		}
		return end, true
	}
	return outcome{}, false
}

// tracebackHead begins a traceback.
const tracebackHead = "Traceback (most recent call last):"

// lastRaised returns what tells why a program has ended: its last traceback, if
// text ends with one, with those of the exceptions that led to it. What it has
// said before, it has coped with. A traceback that only tells of a child's end, as
// launchers print it, leaves the word to the child: then it is the whole text.
func lastRaised(text string) string {
	trace, ok := traceback(text)
	if !ok || regexp.MustCompile(relayed).MatchString(trace) {
		return text
	}
	i := strings.LastIndex(text, tracebackHead)
	for i >= 0 && regexp.MustCompile(ledTo).MatchString(text[:i]) {
		i = strings.LastIndex(text[:i], tracebackHead)
	}
	return text[max(0, i):]
}

// relayed is a line of a traceback about another process, and ledTo what stands
// between an exception and the one that it has led to.
const (
	relayed = `(?m)^(\w+\.)*(CalledProcessError|ChildFailedError|ProcessExitedException)\b`
	ledTo   = `(During handling of the above exception, another exception occurred|The above exception was the direct cause of the following exception):\s*$`
)

// traceback returns the last Python traceback in text, if text ends with one.
func traceback(text string) (trace string, ok bool) {
	i := strings.LastIndex(text, tracebackHead)
	if i < 0 {
		return "", false
	}
	trace = strings.TrimSpace(text[i:])
	last := trace[strings.LastIndexByte(trace, '\n')+1:]
	return trace, regexp.MustCompile(raised).MatchString(last)
}

// raised is the last line of a traceback.
const raised = `^[A-Za-z_][\w.]*(Error|Exception|Interrupt|Warning|Exit)\b`
