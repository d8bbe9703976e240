package kernel

import (
	"runtime/debug"
	"sync/atomic"
	"time"
)

// An ebb gives memory back after the start and after much output. Go would keep
// most of it for minutes, for the next flood, and on a small machine it is
// training's. The zero value is ready.
type ebb struct {
	bytes   atomic.Int64 // since memory was given back
	pending atomic.Bool
}

const (
	ebbBytes = 32 << 20
	ebbDelay = 2 * time.Second
	// startDelay leaves the processor to the child's start, and to a first cell.
	startDelay = time.Second
)

// started is called once all is running.
func (e *ebb) started() {
	if e.pending.CompareAndSwap(false, true) {
		time.AfterFunc(startDelay, e.giveBack)
	}
}

// passed counts output.
func (e *ebb) passed(frames [][]byte) {
	size := 0
	for _, f := range frames {
		size += len(f)
	}
	if e.bytes.Add(int64(size)) > ebbBytes && e.pending.CompareAndSwap(false, true) {
		e.bytes.Store(0)
		time.AfterFunc(ebbDelay, e.giveBack)
	}
}

func (e *ebb) giveBack() {
	if e.bytes.Swap(0) > ebbBytes { // it goes on, and would take it all again
		time.AfterFunc(ebbDelay, e.giveBack)
		return
	}
	e.pending.Store(false)
	debug.FreeOSMemory()
	unmapProgram()
}
