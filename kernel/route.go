package kernel

import (
	"sync"

	"outlast/kernel/jupyter"
)

// A channel is one of the three on which front ends ask.
type channel int

const (
	onShell channel = iota
	onControl
	onStdin
	channels
)

// A route is the way back of one request: who asked, and what waits for the
// answer.
type route struct {
	request *jupyter.Message
	channel channel
	peer    string
	sent    int // number of the child it was given to; 0 while it waits for one

	// cell is set if the request is an execute request of the main shell.
	cell *execution
	// answer is set if we asked ourselves. Nothing of such a request is shown.
	answer chan *jupyter.Message
	// heard is closed by the first message on iopub that the request caused.
	heard func()
	// half says that one of its two ends, reply and idle, was seen. They come on
	// different sockets, in any order. Guarded by the table.
	half bool
}

// silent reports whether no reply is owed: comm messages have none.
func (r *route) silent() bool { return !r.request.Header.Type.IsRequest() }

// routes is the table of what was asked and not yet answered, by message id.
// Kernels hand identities back, most of them: the table also serves the others,
// and says whom to tell when the child dies. It is safe for concurrent use.
type routes struct {
	mu    sync.Mutex
	byID  map[string]*route
	order []string // of arrival; may hold ids that are gone
}

// maxRoutes bounds the table: kernels need not answer. The oldest goes first.
const maxRoutes = 1 << 14

func (t *routes) add(r *route) {
	t.mu.Lock()
	defer t.mu.Unlock()
	id := r.request.Header.ID
	t.byID[id] = r
	t.order = append(t.order, id)
	for len(t.order) > maxRoutes {
		if len(t.byID) < maxRoutes/2 {
			t.compact()
			break
		}
		delete(t.byID, t.order[0])
		t.order = t.order[1:]
	}
}

// compact drops from order what is gone.
func (t *routes) compact() {
	var kept []string
	for _, id := range t.order {
		if _, ok := t.byID[id]; ok {
			kept = append(kept, id)
		}
	}
	t.order = kept
}

// get returns the route of a request, or nil.
func (t *routes) get(id string) *route {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byID[id]
}

// remove forgets a request that needs nothing more.
func (t *routes) remove(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byID, id)
}

// end takes note of one of the two ends of a request of ours, and forgets it
// with the second.
func (t *routes) end(r *route) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.half {
		delete(t.byID, r.request.Header.ID)
	}
	r.half = true
}

// takeSent removes and returns, in the order of their arrival, the routes of
// everything that child number n was given.
func (t *routes) takeSent(n int) []*route {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.compact()
	var taken []*route
	for _, id := range t.order {
		if r := t.byID[id]; r.sent == n {
			taken = append(taken, r)
			delete(t.byID, id)
		}
	}
	return taken
}
