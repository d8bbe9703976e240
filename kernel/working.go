package kernel

import (
	"sync"
	"sync/atomic"

	"outlast/kernel/jupyter"
)

// working is what keeps the kernel busy beside the child. Front ends and idle
// cullers take the last status that they saw for the kernel's, whatever it was
// about: each idle of somebody else is followed by a busy of what goes on.
type working struct {
	mu   sync.Mutex                      // held while a busy is published, and while what it tells of ends
	cell atomic.Pointer[jupyter.Message] // the request of the cell of ours that runs
	held atomic.Pointer[jupyter.Message] // the request whose work goes on behind its cell
}

// now returns the request that the kernel works for, or nil.
func (w *working) now() *jupyter.Message {
	if m := w.cell.Load(); m != nil {
		return m
	}
	return w.held.Load()
}

// end takes note that the work for a request has ended, if it was of this kind.
// No busy is published for it any more.
func (w *working) end(kind *atomic.Pointer[jupyter.Message], request *jupyter.Message) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return kind.CompareAndSwap(request, nil)
}

// hold says whether the work of a request goes on although its cell has ended.
func (p *Proxy) hold(request *jupyter.Message, on bool) {
	if on {
		p.working.held.Store(request)
		p.publishStatus(jupyter.Busy, request)
		return
	}
	if p.working.end(&p.working.held, request) {
		p.publishStatus(jupyter.Idle, request)
	}
}

// Working says whether something that the cell began goes on behind it, a run
// in training for example. While it does the kernel is busy, with the cell's
// request as the reason, also when the cell has ended.
func (c *Cell) Working(on bool) { c.sink.hold(on) }

func (s laneCell) hold(on bool) { s.p.hold(s.x.route.request, on) }

func (c *rpcCell) hold(on bool) { c.server.proxy.hold(c.request, on) }
