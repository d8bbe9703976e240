package kernel

import (
	"slices"
	"sync"

	"outlast/kernel/jupyter"
)

// working is what keeps the kernel busy beside the child. Front ends and idle
// cullers take the last status that they saw for the kernel's, whatever it was
// about: each idle of somebody else is followed by a busy of what goes on.
type working struct {
	mu    sync.Mutex         // held while a busy is published, too: what it tells of ends after it
	cells []*jupyter.Message // the requests of the cells of ours that run; several, if one only looks beside another
	held  *jupyter.Message   // the request whose work goes on behind its cell
	child *jupyter.Message   // the request of the cell that the child is busy with
}

// now returns a request that the kernel works for, or nil. The caller holds mu.
func (w *working) now() *jupyter.Message {
	if len(w.cells) > 0 {
		return w.cells[0]
	}
	return w.held
}

// childBegins and childEnds follow what the child says of its cells. An end is
// noted before it is told. The reply is one too, and may overtake the busy: over
// reports whether it has come.
func (w *working) childBegins(request *jupyter.Message, over func() bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !over() {
		w.child = request
	}
}

func (w *working) childEnds(request *jupyter.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.child == request {
		w.child = nil
	}
}

// begin takes note that the cell of a request runs.
func (w *working) begin(request *jupyter.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cells = append(w.cells, request)
}

// end takes note that it runs no more: no busy is published for it.
func (w *working) end(request *jupyter.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i := slices.Index(w.cells, request); i >= 0 {
		w.cells = slices.Delete(w.cells, i, i+1)
	}
}

// keep takes note of the request whose work goes on behind its cell.
func (w *working) keep(request *jupyter.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held = request
}

// let forgets it, and reports whether it was this one.
func (w *working) let(request *jupyter.Message) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held != request {
		return false
	}
	w.held = nil
	return true
}

// hold says whether the work of a request goes on although its cell has ended.
func (p *Proxy) hold(request *jupyter.Message, on bool) {
	if on {
		p.working.keep(request)
		p.publishStatus(jupyter.Busy, request)
		return
	}
	if p.working.let(request) {
		p.publishStatus(jupyter.Idle, request)
		p.stillWorking(true)
	}
}

// Working says whether something that the cell began goes on behind it, a run
// in training for example. While it does the kernel is busy, with the cell's
// request as the reason, also when the cell has ended.
func (c *Cell) Working(on bool) { c.sink.hold(on) }

func (s laneCell) hold(on bool) { s.p.hold(s.x.route.request, on) }

func (c *rpcCell) hold(on bool) { c.server.proxy.hold(c.request, on) }
