package kernel

import (
	"context"
	"errors"
	"fmt"
	"runtime"
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
	shutting bool
	again    chan struct{} // closed to start a child although starting failed
	shared   bool          // the child's key is ours
}

const (
	// maxCrashes is how often a child may end by itself, one time after the
	// other, before we stop starting it.
	maxCrashes = 5
	// stableAfter is how long a child must live for its end not to count as the
	// failure of a start.
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
	switch {
	case l.failure != nil:
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

func (l *life) interrupt() error {
	l.mu.Lock()
	g := l.now
	l.mu.Unlock()
	if g == nil {
		return nil
	}
	return g.child.interrupt()
}

// asked notes that the child's end will be no accident.
func (l *life) asked() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shutting = true
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
	if l.failure == nil {
		return &jupyter.ExecutionError{Name: "KernelDied", Value: "the Python kernel has ended"}
	}
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
		began := time.Now()
		death, idle := p.generation(ctx, number)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // that is how it is meant to end
		}
		if !idle || time.Since(began) > stableAfter {
			crashes = 0 // a cell ended it, or it was well for a while
		} else {
			crashes++
		}
		if crashes < maxCrashes {
			continue
		}
		if !p.giveUp(ctx, death) {
			return nil
		}
		crashes = 0
	}
}

// generation lives through one child, and returns how it ended and whether it
// was idle then.
func (p *Proxy) generation(ctx context.Context, number int) (death *jupyter.ExecutionError, idle bool) {
	g := &generation{proxy: p, number: number, onIdle: map[string]func(){}}
	for i := range g.out {
		g.out[i] = newOutbox()
	}
	var err error
	if g.child, err = startChild(p.config); err != nil {
		return p.died(g, err.Error(), nil), true
	}
	p.life.begin(g, p.config)
	err = g.connect(ctx)
	if err == nil {
		g.up.Store(true)
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
	shutting := p.life.end()
	if ctx.Err() != nil || shutting {
		g.child.stop(shutting || errors.Is(context.Cause(ctx), errShutdown))
		g.close()
		<-ctx.Done()
		return nil, false
	}
	g.child.stop(false) // and all that is left in its group
	g.close()
	why := g.child.died()
	if err != nil && !errors.Is(err, errChildGone) {
		why = err.Error()
	}
	sent := p.routes.takeSent(number)
	return p.died(g, why, sent), !asking(sent)
}

// asking reports whether a cell is among what a child was given.
func asking(sent []*route) bool {
	for _, r := range sent {
		if r.cell != nil {
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
func (l *life) end() (shutting bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ready, l.now = false, nil
	return l.shutting
}

// died tells everybody that the child has ended: the cell that ran gets an
// error that says why, what waited is aborted, and no request stays unanswered.
func (p *Proxy) died(g *generation, why string, sent []*route) *jupyter.ExecutionError {
	e := &jupyter.ExecutionError{Name: "KernelDied", Value: "the Python kernel has ended: " + why + "."}
	e.Traceback = []string{e.Name + ": " + e.Value, "Its variables are gone. A new one starts now; cells can be run again."}
	if g.child != nil {
		if tail := g.child.lastStderr(); tail != "" && !g.up.Load() {
			e.Traceback = append(e.Traceback, "It said:", tail)
		}
	}
	if p.config.Aftermath != nil {
		if text := p.config.Aftermath(); text != "" {
			e.Traceback = append(e.Traceback, text)
		}
	}
	p.config.Log.Warn("child ended", "why", why, "generation", g.number)
	p.publishStatus(jupyter.Restarting, nil)
	first := true
	for _, r := range sent {
		if r.answer != nil {
			continue // ours: it is told by the child's end
		}
		switch {
		case r.cell != nil && first:
			p.fail(r, e)
			first = false
		case r.cell != nil:
			p.abortCell(r.cell)
		default:
			if !r.silent() {
				p.reply(r, errorReply{jupyter.Failed, e}, nil)
			}
			p.publishStatus(jupyter.Idle, r.request)
		}
	}
	p.lane.lost()
	return e
}

// fail ends a cell with an error.
func (p *Proxy) fail(r *route, e *jupyter.ExecutionError) {
	p.publish(jupyter.TypeError, r.request, e)
	p.reply(r, jupyter.ExecuteReplyContent{Status: jupyter.Failed, ExecutionCount: p.count.now(), ExecutionError: e}, nil)
	p.publishStatus(jupyter.Idle, r.request)
}

// giveUp stops starting children, because none stays, until one is asked for.
// It reports false when ctx has ended.
func (p *Proxy) giveUp(ctx context.Context, death *jupyter.ExecutionError) bool {
	again := make(chan struct{})
	e := &jupyter.ExecutionError{Name: "KernelDied", Value: fmt.Sprintf("the Python kernel ended %d times in a row; it is not started again. %s", maxCrashes, death.Value)}
	e.Traceback = append([]string{e.Name + ": " + e.Value}, death.Traceback[1:]...)
	e.Traceback = append(e.Traceback, "To do: mend what it says, then restart the kernel, or run %outlast restart.")
	p.life.mu.Lock()
	p.life.failure, p.life.again = e, again
	waiting := p.life.waiting
	p.life.waiting = nil
	p.life.mu.Unlock()
	for _, r := range waiting {
		p.routes.remove(r.request.Header.ID)
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

// Restart ends the child, whatever it does, so that a new one starts, and
// returns once that answers.
func (p *Proxy) restart(ctx context.Context) error {
	l := &p.life
	l.mu.Lock()
	g, again := l.now, l.again
	if again != nil {
		l.again = nil
		close(again)
	}
	l.mu.Unlock()
	after := 0
	if g != nil {
		after = g.number
		if err := killGroup(g.child.pid); err != nil {
			return fmt.Errorf("end the Python kernel: %w", err)
		}
	}
	tick := time.NewTicker(nudgeInterval)
	defer tick.Stop()
	for {
		if now := l.current(); now != nil && now.number > after {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// childKey returns the key of a child: the front end's where nobody else can reach
// the child, so that signatures pass through too.
func childKey(front jupyter.Connection, fresh func() string) (scheme, key string) {
	if runtime.GOOS == "windows" && strings.TrimSpace(front.Key) == "" {
		return "hmac-sha256", fresh()
	}
	return front.Scheme, front.Key
}
