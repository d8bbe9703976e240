package training

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// errEvicted ends the attempt of a model that is to wait until there is a place
// for it again.
var errEvicted = errors.New("it makes room for the others")

// A place is how a model would be trained beside those that are at work.
type place struct {
	ok       bool    // it may begin
	alone    bool    // only by itself
	fraction float64 // of the device's memory that is its to use; 0: all that the settings allow
}

// A policy decides how many models are trained at once. It is asked again
// whenever something has changed, by one goroutine at a time, and must not block.
type policy interface {
	place(m Model, taken []*seat) place
}

// seats are what models take to be trained at once. They are given in the order
// of the plan; who is to be alone comes first, so that it is not left for ever.
// seats are safe for concurrent use.
type seats struct {
	policy policy

	mu      sync.Mutex
	news    chan struct{} // closed, and made anew, when somebody should look again
	taken   []*seat       // in the order of taking
	waiting []*wish       // in the order of giving
	ceiling int           // at most so many, whatever the policy says; 0: no ceiling
	closed  bool          // none is given any more
	epoch   int           // grows whenever those at work change
}

// A wish for a seat.
type wish struct {
	index int // of the model
	alone bool
}

// A seat is a model's right to have a worker. It is used by the goroutine that
// trains the model.
type seat struct {
	seats    *seats
	index    int
	model    Model
	ctx      context.Context //nolint:containedctx // it ends with the right, and nothing else says so
	cancel   context.CancelCauseFunc
	alone    bool
	fraction float64
	meter    meter

	most int     // seats taken at once since begin; under seats.mu, as what follows
	base float64 // steps a second if it were alone; 0 if unknown
	load load
}

func newSeats(p policy) *seats { return &seats{policy: p, news: make(chan struct{})} }

// take waits for a seat for the index-th model, alone if it is to have the
// machine to itself. Its error is ctx's.
func (s *seats) take(ctx context.Context, index int, m Model, alone bool) (*seat, error) {
	w := &wish{index, alone}
	s.mu.Lock()
	s.queue(w)
	s.mu.Unlock()
	return s.wait(ctx, w, m)
}

// queue has w wait for its turn. The caller has mu.
func (s *seats) queue(w *wish) {
	s.waiting = append(s.waiting, w)
	slices.SortStableFunc(s.waiting, byTurn)
}

// wait waits until w is fulfilled, or ctx ends.
func (s *seats) wait(ctx context.Context, w *wish, m Model) (*seat, error) {
	defer s.forget(w)
	for {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		taken, news := s.offer(ctx, w, m)
		if taken != nil {
			return taken, nil
		}
		select {
		case <-ctx.Done():
		case <-news:
		}
	}
}

// byTurn orders wishes.
func byTurn(a, b *wish) int {
	switch {
	case a.alone && !b.alone:
		return -1
	case b.alone && !a.alone:
		return 1
	}
	return a.index - b.index
}

// offer gives the seat if it is w's turn and there is room, or returns what is
// closed when to ask again.
func (s *seats) offer(ctx context.Context, w *wish, m Model) (*seat, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.waiting[0] != w || len(s.taken) > 0 && s.full(w.alone) {
		return nil, s.news
	}
	p := s.policy.place(m, s.taken)
	if len(s.taken) > 0 && (!p.ok || p.alone) {
		return nil, s.news
	}
	one := &seat{seats: s, index: w.index, model: m, alone: w.alone || p.alone, fraction: p.fraction}
	if one.alone {
		one.fraction = 0
	}
	one.ctx, one.cancel = context.WithCancelCause(ctx)
	s.taken = append(s.taken, one)
	s.epoch++
	for _, each := range s.taken {
		each.most = max(each.most, len(s.taken))
	}
	s.tell()
	return one, nil
}

// full reports whether those who have seats leave no room for another. The
// caller has mu, and there are some.
func (s *seats) full(alone bool) bool {
	return alone || s.taken[0].alone || s.ceiling > 0 && len(s.taken) >= s.ceiling
}

func (s *seats) forget(w *wish) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = slices.DeleteFunc(s.waiting, func(other *wish) bool { return other == w })
	s.tell()
}

// close lets those who wait wait until their contexts end.
func (s *seats) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

// tell has everybody who waits ask again. The caller has mu.
func (s *seats) tell() {
	close(s.news)
	s.news = make(chan struct{})
}

// begin is called before each attempt.
func (s *seat) begin(now time.Time) {
	s.seats.mu.Lock()
	defer s.seats.mu.Unlock()
	s.most = len(s.seats.taken)
	s.seats.epoch++
	s.meter.begin(now)
}

// crowded reports whether others had seats during the attempt.
func (s *seat) crowded() bool {
	s.seats.mu.Lock()
	defer s.seats.mu.Unlock()
	return s.most > 1
}

// evicted reports whether the seat was taken away.
func (s *seat) evicted() bool { return errors.Is(context.Cause(s.ctx), errEvicted) }

// after returns the seat to go on with: another one, if the answer asks for that,
// or this one was taken away.
func (s *seat) after(ctx context.Context, next answer) (*seat, error) {
	alone := next.alone || s.alone
	if !next.fewer && alone == s.alone && !s.evicted() {
		return s, nil
	}
	w := &wish{s.index, alone}
	s.seats.mu.Lock()
	s.seats.queue(w) // before somebody else comes
	s.give()
	s.seats.mu.Unlock()
	other, err := s.seats.wait(ctx, w, s.model)
	if err != nil {
		return s, err
	}
	return other, nil
}

// leave gives the seat back. It may be called twice.
func (s *seat) leave() {
	s.seats.mu.Lock()
	defer s.seats.mu.Unlock()
	s.give()
}

// give is leave; the caller has mu.
func (s *seat) give() {
	s.cancel(nil)
	s.seats.epoch++
	s.seats.taken = slices.DeleteFunc(s.seats.taken, func(other *seat) bool { return other == s })
	s.seats.tell()
}

// lower allows fewer at once than there were during the attempt of s, and returns
// how many.
func (s *seat) lower() int {
	s.seats.mu.Lock()
	defer s.seats.mu.Unlock()
	most := s.most
	if s.seats.ceiling > 0 {
		most = min(most, s.seats.ceiling)
	}
	s.seats.ceiling = max(1, most-1)
	return s.seats.ceiling
}
