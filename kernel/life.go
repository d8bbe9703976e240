package kernel

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"outlast/kernel/jupyter"
)

// life is what is known of the child over all its generations. Its fields are
// guarded by mu.
type life struct {
	mu       sync.Mutex
	now      *generation // the child that lives; nil between two
	ready    bool        // it answers
	waiting  []*route    // requests for the next child
	failure  *jupyter.ExecutionError
	shutting bool          // its end was asked for
	obeys    bool          // and it has said that it will end
	again    chan struct{} // closed to start a child although starting failed
	shared   bool          // the child's key is ours
	notice   string        // of a death that no cell was told of
}

const (
	// maxCrashes is how often a child may end by itself, one time after the
	// other, before we stop starting it.
	maxCrashes = 5
	// stableAfter is how long a child must have answered for its end not to count
	// as the failure of a start.
	stableAfter = 10 * time.Second
)

// sharesKey reports whether the child signs with the front end's key. Its
// sockets are in a folder that nobody else can look into, so that nothing is
// gained by another one.
func (l *life) sharesKey() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.shared
}

// give hands a request to the child, or keeps it for the next one. It reports
// false if there will be none.
func (l *life) give(r *route) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	foreign := r.cell != nil && r.cell.announced != 0 && (!l.ready || l.now.number != r.cell.announced)
	switch {
	case l.failure != nil || foreign:
		return false
	case l.ready:
		l.now.put(r)
	default:
		l.waiting = append(l.waiting, r)
	}
	return true
}

// send gives the child what it is not asked for; without a child it is lost.
func (l *life) send(ch channel, r *route) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ready {
		l.now.putOn(ch, r)
	}
}

// interrupt interrupts the child. One that boots is spared: a signal would end
// it, and nothing of the user's runs in it.
func (l *life) interrupt() error {
	if g := l.current(); g != nil {
		return g.child.interrupt()
	}
	return nil
}

// withdraw removes and returns the cells that wait for the next child.
func (l *life) withdraw() []*route {
	l.mu.Lock()
	defer l.mu.Unlock()
	var cells []*route
	l.waiting = slices.DeleteFunc(l.waiting, func(r *route) bool {
		if r.cell != nil {
			cells = append(cells, r)
		}
		return r.cell != nil
	})
	return cells
}

// shutdown notes that the child's end will be no accident, and reports whether
// there is one that listens.
func (l *life) shutdown() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shutting = true
	return l.ready
}

// obeyed notes that the child has said that it will end.
func (l *life) obeyed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.obeys = true
}

// patience returns how the present child is to be stopped.
func (l *life) patience() patience {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.obeys:
		return untilItEnds
	case l.shutting && l.ready:
		return untilTerminated
	}
	return none
}

// gone returns a channel that is closed when the present child has ended.
func (l *life) gone() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now == nil {
		closed := make(chan struct{})
		close(closed)
		return closed
	}
	return l.now.child.exited
}

// broken returns why no child starts any more; nil if one may.
func (l *life) broken() *jupyter.ExecutionError {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failure
}

// dead reports whether no child will be started.
func (l *life) dead() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failure != nil
}

// current returns the child that answers, or nil.
func (l *life) current() *generation {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ready {
		return nil
	}
	return l.now
}

// live starts the child, and a new one whenever it has ended, until ctx is done.
func (p *Proxy) live(ctx context.Context) error {
	crashes := 0
	for number := 1; ; number++ {
		e, says := p.generation(ctx, number)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // that is how it is meant to end
		}
		switch says {
		case childFails:
			crashes++
		case childWorks:
			crashes = 0
		case childEnded:
		}
		if crashes < maxCrashes {
			continue
		}
		if !p.giveUp(ctx, e) {
			return nil
		}
		crashes = 0
	}
}

// A verdict is what the end of a child says of the next one.
type verdict int

const (
	childFails verdict = iota // it fails by itself, and so may the next one
	childWorks                // a cell ended it, or it was well for a while
	childEnded                // nothing: its end was asked for
)

// verdict judges the end of a child that was idle then, or not.
func (g *generation) verdict(idle bool) verdict {
	switch {
	case g.child.ended.Load():
		return childEnded
	case !idle, g.up.Load() && time.Since(g.answered) > stableAfter:
		return childWorks
	}
	return childFails
}

// generation lives through one child, and returns how it ended and what that
// says of the next one.
func (p *Proxy) generation(ctx context.Context, number int) (e *jupyter.ExecutionError, says verdict) {
	g := &generation{proxy: p, number: number}
	for i := range g.out {
		g.out[i] = newOutbox()
	}
	var err error
	if g.child, err = startChild(p.config, p.info.wantsTCP(number)); err != nil {
		return p.died(g, death{instead: err.Error(), cure: "check that the kernel's Python is still there, or install the kernel anew: outlast install"}, nil), childFails
	}
	p.life.begin(g, p.config)
	err = g.connect(ctx)
	if err == nil {
		g.answered = time.Now()
		g.up.Store(true)
		p.info.setTCP(p.config, g.child.connection.Transport == jupyter.TCP)
		g.prepare(ctx)
		p.life.open(g)
		if number > 1 {
			p.publishStatus(jupyter.Idle, nil)
		}
		select {
		case <-ctx.Done():
		case <-g.child.exited:
		}
	}
	if p.life.isShutting() {
		<-ctx.Done() // the answer is on its way
	}
	if ctx.Err() != nil {
		patience := p.life.patience()
		p.life.end()
		g.child.stop(patience)
		g.close()
		return nil, childEnded //nolint:nilerr // the end was asked for
	}
	p.life.end()
	g.child.stop(none) // and all that is left in its group
	g.close()
	d := g.child.death()
	if err != nil && !errors.Is(err, errChildGone) {
		d.instead = err.Error()
	}
	sent := p.routes.takeSent(number)
	return p.died(g, d, sent), g.verdict(!asking(sent))
}

// asking reports whether a cell is among what a child was given.
func asking(sent []*route) bool {
	for _, r := range sent {
		if r.cell != nil && !r.replied {
			return true
		}
	}
	return false
}

// begin enters a child that was started.
func (l *life) begin(g *generation, c Config) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now, l.ready = g, false
	g.shared = g.child.connection.Key == c.Connection.Key && g.child.connection.Scheme == c.Connection.Scheme
	l.shared = g.shared
}

// open gives a child that answers what has waited for it.
func (l *life) open(g *generation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ready = true
	for _, r := range l.waiting {
		g.put(r)
	}
	l.waiting = nil
}

// end notes that the present child is no more to be used.
func (l *life) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ready, l.now = false, nil
}

func (l *life) isShutting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.shutting
}

// died tells everybody that the child has ended: the cell that ran gets an
// error that says why, what waited is aborted, and no request stays unanswered.
func (p *Proxy) died(g *generation, d death, sent []*route) *jupyter.ExecutionError {
	e := &jupyter.ExecutionError{Name: "KernelDied", Value: endedText + d.String() + "."}
	e.Traceback = append([]string{e.Name + ": " + e.Value}, d.more(g)...)
	if p.config.Aftermath != nil {
		if text := p.config.Aftermath(); text != "" {
			e.Traceback = append(e.Traceback, text)
		}
	}
	p.config.Log.Warn("child ended", "why", d.String(), "generation", g.number)
	p.publishStatus(jupyter.Restarting, nil)
	var cells []*execution
	for _, r := range sent {
		if r.cell != nil && !r.replied {
			cells = append(cells, r.cell)
		}
	}
	up := g.up.Load()
	if up && len(cells) == 0 {
		p.life.note(e)
	}
	doomed := p.lane.lost(cells, up)
	for _, r := range sent {
		switch {
		case r.answer != nil: // ours: it is told by the child's end
		case r.replied:
			p.publishStatus(jupyter.Idle, r.request)
		case r.cell != nil && r.cell == cells[0]:
			p.fail(r, e)
		case r.cell != nil:
			p.abortCell(r.cell)
		default:
			if !r.silent() {
				p.reply(r, errorReply{jupyter.Failed, e}, nil)
			}
			p.publishStatus(jupyter.Idle, r.request)
		}
	}
	p.abort(doomed)
	return e
}

// endedText is what the reason of a child's end is told behind.
const endedText = "the Python kernel has ended: "

// note keeps what is to be told with the next cell: no cell ran.
func (l *life) note(e *jupyter.ExecutionError) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.notice = strings.Join(e.Traceback, "\n") + "\n"
}

// takeNotice returns what is to be told with the next cell.
func (l *life) takeNotice() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := l.notice
	l.notice = ""
	return text
}

// fail ends a cell with an error.
func (p *Proxy) fail(r *route, e *jupyter.ExecutionError) {
	p.publish(jupyter.TypeError, r.request, e)
	p.reply(r, jupyter.ExecuteReplyContent{Status: jupyter.Failed, ExecutionCount: p.count.now(), ExecutionError: e}, nil)
	p.publishStatus(jupyter.Idle, r.request)
}

// giveUp stops starting children, because none stays, until one is asked for.
// It reports false when ctx has ended.
func (p *Proxy) giveUp(ctx context.Context, last *jupyter.ExecutionError) bool {
	again := make(chan struct{})
	e := &jupyter.ExecutionError{Name: "KernelDied", Value: fmt.Sprintf("the Python kernel is not started again, for it has ended %d times in a row: %s", maxCrashes, strings.TrimPrefix(last.Value, endedText))}
	e.Traceback = []string{e.Name + ": " + e.Value}
	for _, line := range last.Traceback[1:] {
		if line != variablesGone {
			e.Traceback = append(e.Traceback, line)
		}
	}
	e.Traceback = append(e.Traceback, "Then restart the kernel, or run %outlast restart.")
	p.life.mu.Lock()
	p.life.failure, p.life.again = e, again
	waiting := p.life.waiting
	p.life.waiting = nil
	p.life.mu.Unlock()
	for _, r := range waiting {
		p.routes.remove(r)
		p.refuse(r)
	}
	p.info.giveUp(p)
	p.publishStatus(jupyter.Idle, nil)
	select {
	case <-ctx.Done():
		return false
	case <-again:
	}
	p.life.mu.Lock()
	p.life.failure, p.life.again = nil, nil
	p.life.mu.Unlock()
	return true
}

// restart ends the child, whatever it does, so that a new one starts, and
// returns once that answers.
func (p *Proxy) restart(ctx context.Context) error {
	l := &p.life
	l.mu.Lock()
	g, again, old := l.now, l.again, l.failure
	if again != nil {
		l.again = nil
		close(again)
	}
	l.mu.Unlock()
	after := 0
	if g != nil {
		after = g.number
		if err := g.child.kill(); err != nil {
			return fmt.Errorf("end the Python kernel: %w", err)
		}
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if now := l.current(); now != nil && now.number > after {
			return nil
		}
		if e := l.broken(); e != nil && e != old {
			return e
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
