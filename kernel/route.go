package kernel

import (
	"slices"
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
	// replied and idled are its two ends. They come on different sockets, in any
	// order. Guarded by the table.
	replied, idled bool
	// listed says that it is in the table. Guarded by the table.
	listed bool
}

// silent reports whether no reply is owed: comm messages have none.
func (r *route) silent() bool { return !r.request.Header.Type.IsRequest() }

// routes is the table of what was asked and not yet answered, by message id.
// Kernels hand identities back, most of them: the table also serves the others,
// and says whom to tell when the child dies. Nothing keeps clients from using an
// id twice: such requests are answered in turn. It is safe for concurrent use.
type routes struct {
	mu    sync.Mutex
	byID  map[string][]*route
	order []*route // of arrival; may hold some that are gone
	size  int      // how many are not gone
}

// maxRoutes bounds the table: kernels need not answer. The oldest goes first,
// but no cell that waits.
const maxRoutes = 1 << 14

func (t *routes) add(r *route) {
	t.mu.Lock()
	defer t.mu.Unlock()
	id := r.request.Header.ID
	t.byID[id] = append(t.byID[id], r)
	t.order = append(t.order, r)
	r.listed = true
	t.size++
	if len(t.order) > maxRoutes+maxRoutes/2 {
		t.compact()
	}
}

// compact drops from order what is gone, and from the table what is too much.
func (t *routes) compact() {
	kept := t.order[:0]
	for _, r := range t.order {
		if r.listed && t.size > maxRoutes && (r.cell == nil || r.replied) {
			t.drop(r)
		}
		if r.listed {
			kept = append(kept, r)
		}
	}
	clear(t.order[len(kept):])
	t.order = kept
}

// drop takes r out of the table, but not out of order.
func (t *routes) drop(r *route) {
	if !r.listed {
		return
	}
	r.listed = false
	t.size--
	id := r.request.Header.ID
	same := t.byID[id]
	if at := slices.Index(same, r); at >= 0 {
		same = slices.Delete(same, at, at+1)
	}
	if t.byID[id] = same; len(same) == 0 {
		delete(t.byID, id)
	}
}

// get returns the route of a request, or nil.
func (t *routes) get(id string) *route {
	t.mu.Lock()
	defer t.mu.Unlock()
	if same := t.byID[id]; len(same) > 0 {
		return same[0]
	}
	return nil
}

// reply takes note that a request was replied to, and returns its route; nil if
// there is none that waits for a reply.
func (t *routes) reply(id string) *route {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.byID[id] {
		if !r.replied {
			r.replied = true
			t.ended(r)
			return r
		}
	}
	return nil
}

// hasReply reports whether a request was replied to.
func (t *routes) hasReply(r *route) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return r.replied
}

// idle takes note that a request causes nothing more.
func (t *routes) idle(r *route) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.idled = true
	t.ended(r)
}

// ended forgets a request with its second end.
func (t *routes) ended(r *route) {
	if r.idled && (r.replied || r.silent()) {
		t.drop(r)
	}
}

// remove forgets a request that needs nothing more.
func (t *routes) remove(r *route) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(r)
}

// takeSent removes and returns, in the order of their arrival, the routes of
// everything that child number n was given.
func (t *routes) takeSent(n int) []*route {
	t.mu.Lock()
	defer t.mu.Unlock()
	var taken []*route
	for _, r := range t.order {
		if r.listed && r.sent == n {
			taken = append(taken, r)
			t.drop(r)
		}
	}
	t.compact()
	return taken
}
