package drive

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/api/googleapi"
)

// Bounds of the pauses between tries.
const (
	longestPause      = 6 // doublings of the first: half a minute
	longestRetryAfter = 5 * time.Minute
	capSuspicion      = 15 * time.Minute // of refused uploads, until the daily cap is named as a likely cause
)

// tries counts what goes wrong with one piece of work, and says how it goes on.
type tries struct {
	store  *Store
	what   string // the work, for the user
	upload bool   // it needs room
	need   int64  // so much, in bytes
	most   int    // of them; 0: as the settings say
	fails  int    // since there was progress
	renew  bool   // a new token was tried already
}

// again returns nil when the work is to be tried again, after waiting, and
// otherwise the error to give up with.
func (t *tries) again(ctx context.Context, err error) error {
	if interrupted(ctx, err) {
		return ctx.Err()
	}
	s := t.store
	switch judge(err) {
	case full:
		return s.noRoom(ctx, t.need, err)
	case signedOut: // the transport has forgotten the token
		if t.renew || s.tokens == nil {
			return explain(t.what, err)
		}
		t.renew = true
		return nil
	case limited:
		s.pace.slow(retryAfter(err, time.Now()), s.cfg.Pause) // the next try waits for its turn
		if t.upload {
			s.pace.refused()
		}
		t.fails++
		if t.over() {
			return s.rateProblem(t, err)
		}
		return sleep(ctx, t.pause())
	case passing:
		t.fails++
		if t.over() {
			return explain(t.what, err)
		}
		wait := max(retryAfter(err, time.Now()), t.pause())
		s.log.DebugContext(ctx, "drive request is tried again", "what", t.what, "tries", t.fails, "error", clean(err))
		return sleep(ctx, wait)
	case forbidden, gone, taken, refused:
	}
	return explain(t.what, err)
}

// over reports whether there were enough tries.
func (t *tries) over() bool {
	most := t.store.cfg.Tries
	if t.most > 0 {
		most = min(most, t.most)
	}
	return t.fails >= most
}

// pause is how long to wait now: doubled each time, and spread out, because
// others fail at the same time.
func (t *tries) pause() time.Duration {
	pause := t.store.cfg.Pause << min(t.fails-1, longestPause)
	return pause + rand.N(pause)
}

// progress says that the work is getting on.
func (t *tries) progress() { t.fails, t.renew = 0, false }

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// do tries a request until it succeeds or it makes no sense to go on. The error
// of what is gone, in use or wrong is returned as it is.
func (s *Store) do(ctx context.Context, what string, request func() error) error {
	return (&tries{store: s, what: what}).do(ctx, request)
}

func (t *tries) do(ctx context.Context, request func() error) error {
	s := t.store
	for {
		if err := s.pace.wait(ctx); err != nil {
			return err
		}
		err := request()
		if err == nil {
			s.pace.fine()
			return nil
		}
		switch judge(err) {
		case gone, taken, refused:
			if !interrupted(ctx, err) {
				return err
			}
		case passing, limited, full, signedOut, forbidden:
		}
		if err := t.again(ctx, err); err != nil {
			return err
		}
	}
}

// rateProblem explains that Drive takes no more for now.
func (s *Store) rateProblem(t *tries, err error) error {
	problem := &AccessError{t.what, explainWhy(err), "it is tried again; nothing is lost meanwhile"}
	if t.upload && s.pace.limitedFor() > capSuspicion {
		problem.Hint = "this has lasted long: Drive takes 750 GB a day of each account; it goes on by itself within 24 hours"
	}
	return problem
}

// explainWhy returns the reason alone.
func explainWhy(err error) error {
	if problem, ok := explain("", err).(*AccessError); ok { //nolint:errorlint // it is what explain makes
		return problem.Err
	}
	return err
}

// A pacer spreads requests out while Drive says that there are too many. All of
// a store's requests share it, so that they do not come back all at once.
type pacer struct {
	mu    sync.Mutex
	gap   time.Duration // between requests; 0 while all is well
	next  time.Time     // not before
	since time.Time     // uploads have been refused; zero if they are not
}

// widestGap is how far apart requests are at most, however much Drive complains,
// in first pauses: that is two seconds.
const widestGap = 4

// wait waits for this request's turn.
func (p *pacer) wait(ctx context.Context) error {
	p.mu.Lock()
	now := time.Now()
	at := p.next
	if at.Before(now) {
		at = now
	}
	if p.gap > 0 {
		p.next = at.Add(p.gap)
	}
	p.mu.Unlock()
	if at.Equal(now) {
		return ctx.Err()
	}
	return sleep(ctx, at.Sub(now))
}

// slow doubles the distance between requests, and keeps all of them away for
// as long as the server wants.
func (p *pacer) slow(wait, first time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gap = min(max(2*p.gap, first/8), widestGap*first)
	if at := time.Now().Add(wait); at.After(p.next) {
		p.next = at
	}
}

// fine says that a request was accepted.
func (p *pacer) fine() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gap -= p.gap / 8; p.gap < time.Millisecond {
		p.gap = 0
	}
}

// refused says that there are too many uploads.
func (p *pacer) refused() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since.IsZero() {
		p.since = time.Now()
	}
}

// uploaded says that an upload got on. Only that shows that there may be more:
// other requests are accepted all the time.
func (p *pacer) uploaded() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since = time.Time{}
}

// limitedFor is how long uploads have been refused without a break.
func (p *pacer) limitedFor() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since.IsZero() {
		return 0
	}
	return time.Since(p.since)
}

// isAnswer reports whether err is Drive's answer with this status.
func isAnswer(err error, code int) bool {
	answer, ok := err.(*googleapi.Error) //nolint:errorlint // Google's client returns it unwrapped
	return ok && answer.Code == code
}
