package kernel

import (
	"sync"
	"time"
)

// An execution is one execute request of the main shell.
type execution struct {
	route *route
	claim Claim
	stops bool              // an error in it aborts those behind it
	end   func(cause error) // of a cell of ours that runs: ends its context
	cell  *Cell
	aside bool // it did not wait for those before it

	// handed is what the child runs in the place of its magics. They set it while
	// they run.
	handed string

	// announced is the number of the child that knows which lines of a mixed
	// cell are not its own. To another child the cell means something else.
	announced int
}

// A lane keeps the order of cells. Cells of the child go to it as they come,
// and it works them off one after the other. A cell of ours waits until the
// child has answered what came before it, and what comes behind it waits for
// its end.
type lane struct {
	// The lane's hands. They are called with the lane locked, must not block,
	// and must not call back.
	forward func(*execution) // give it to the child
	begin   func(*execution) // run it here

	mu      sync.Mutex
	waiting []*execution
	child   map[*execution]struct{} // cells that the child has not answered
	since   time.Time               // when the cell that is worked on began
	running *execution
	aside   map[*execution]struct{} // cells of ours that did not wait
}

func newLane(forward, begin func(*execution)) lane {
	return lane{forward: forward, begin: begin, child: map[*execution]struct{}{}, aside: map[*execution]struct{}{}}
}

// asideAfter is how long a single cell must have run, the child's or ours,
// before one that only looks is answered beside it. Cells of one "run all" come
// closer together, and keep their order.
const asideAfter = time.Second

// add takes a cell as it comes from a front end.
func (l *lane) add(x *execution) {
	l.mu.Lock()
	defer l.mu.Unlock()
	alone := len(l.waiting) == 0 && (len(l.child) == 1 || l.running != nil) && time.Since(l.since) > asideAfter
	if x.claim.Lines > 0 && x.claim.Whole && (x.claim.Now || x.claim.Looks && alone) {
		x.aside = true
		l.aside[x] = struct{}{}
		l.begin(x)
		return
	}
	l.waiting = append(l.waiting, x)
	l.advance()
}

// doom takes out what an error in x aborts, before anybody can have heard of
// the error: what comes later runs. The caller answers for them, after x.
func (l *lane) doom(x *execution) []*execution {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !x.stops || x.aside {
		return nil
	}
	return l.takeWaiting()
}

func (l *lane) takeWaiting() []*execution {
	doomed := l.waiting
	l.waiting = nil
	return doomed
}

// answered takes note that the child has answered one of its cells.
func (l *lane) answered(x *execution) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if x == l.running { // the Python below its magics
		l.running = nil
	}
	delete(l.child, x)
	l.since = time.Now()
	l.advance()
}

// finished takes note of the end of a cell of ours.
func (l *lane) finished(x *execution) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.aside, x)
	if x == l.running {
		l.running = nil
	}
	l.advance()
}

// give takes note that the Python below the magics of x goes to the child.
func (l *lane) give(x *execution) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x.end = nil
}

// lost forgets the cells that a child had when it ended. It also takes out what
// waits, if that child's variables are gone for it; the caller answers for that.
func (l *lane) lost(had []*execution, dooming bool) (doomed []*execution) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range had {
		delete(l.child, x)
		if x == l.running {
			l.running = nil
		}
	}
	if dooming {
		doomed = l.takeWaiting()
	}
	l.advance()
	return doomed
}

func (l *lane) advance() {
	for len(l.waiting) > 0 && l.running == nil {
		x := l.waiting[0]
		if x.claim.Lines > 0 {
			if len(l.child) > 0 {
				return
			}
			l.waiting = l.waiting[1:]
			l.running, l.since = x, time.Now()
			l.begin(x)
			return
		}
		l.waiting = l.waiting[1:]
		if len(l.child) == 0 {
			l.since = time.Now()
		}
		l.child[x] = struct{}{}
		l.forward(x)
	}
}

// interrupt ends the contexts of the cells of ours that run, and reports whether
// that was all there was to interrupt.
func (l *lane) interrupt(cause error) (all bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ours := l.running != nil && l.running.end != nil
	if ours {
		l.running.end(cause)
	}
	for x := range l.aside {
		if x.end != nil {
			x.end(cause)
			ours = true
		}
	}
	return ours && len(l.child) == 0
}
