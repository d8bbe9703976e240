package drive

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/api/googleapi"
)

// Pauses between two looks at a full Drive.
const (
	firstLook = time.Minute
	lastLook  = 5 * time.Minute
)

// About says whose Drive it is and how full.
type About struct {
	Account string // e-mail address
	Limit   int64  // bytes; 0 means none
	Usage   int64  // bytes, trash and other Google services included
	Trash   int64  // bytes
}

// About asks Drive who is signed in, and how much room there is.
func (s *Store) About(ctx context.Context) (About, error) {
	var about About
	err := s.do(ctx, "ask Google Drive for its quota", func() error {
		answer, err := s.api.About.Get().Context(ctx).Fields("user(emailAddress)", "storageQuota(limit,usage,usageInDriveTrash)").Do()
		if err != nil {
			return err
		}
		if answer.User != nil {
			about.Account = answer.User.EmailAddress
		}
		if q := answer.StorageQuota; q != nil {
			about.Limit, about.Usage, about.Trash = q.Limit, q.Usage, q.UsageInDriveTrash
		}
		return nil
	})
	if err != nil {
		return About{}, finish("ask Google Drive for its quota", err)
	}
	return about, nil
}

// finish makes the error of an API call one for the user.
func finish(what string, err error) error {
	var answer *googleapi.Error
	var problem *AccessError
	if errors.As(err, &answer) && !errors.As(err, &problem) {
		return explain(what, err)
	}
	return err
}

// space remembers that a Drive is full, so that it is not asked in vain.
type space struct {
	mu    sync.Mutex
	full  *QuotaError // nil: there is room, as far as we know
	look  time.Time   // when to look again
	pause time.Duration
}

// noRoom records that need bytes did not fit, and returns the error that says so.
func (s *Store) noRoom(ctx context.Context, need int64, cause error) error {
	about, err := s.About(ctx)
	if err != nil {
		s.log.WarnContext(ctx, "drive is full, and does not say how full", "error", err)
	}
	sp := &s.space
	sp.mu.Lock()
	defer sp.mu.Unlock()
	since := time.Now()
	if sp.full != nil {
		since = sp.full.Since
	}
	sp.full = &QuotaError{About: about, Need: need, Since: since, ServiceAccount: s.tokens != nil && s.tokens.serviceAccount}
	sp.pause = min(max(2*sp.pause, firstLook), lastLook)
	sp.look = time.Now().Add(sp.pause)
	s.log.WarnContext(ctx, "drive is full", "account", about.Account, "missing_bytes", sp.full.Missing(), "error", clean(cause))
	return sp.full
}

// room returns nil if need bytes may fit, and the QuotaError if it is known that
// they do not. One caller at a time looks again, now and then.
func (s *Store) room(ctx context.Context, need int64) error {
	sp := &s.space
	sp.mu.Lock()
	if sp.full == nil {
		sp.mu.Unlock()
		return nil
	}
	known := sp.full
	now := time.Now()
	if now.Before(sp.look) {
		sp.mu.Unlock()
		return known
	}
	sp.pause = min(max(2*sp.pause, firstLook), lastLook)
	sp.look = now.Add(sp.pause)
	sp.mu.Unlock()
	about, err := s.About(ctx)
	if err != nil {
		return err
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if about.Limit == 0 || about.Limit-about.Usage >= need {
		sp.full, sp.pause = nil, 0
		return nil
	}
	sp.full = &QuotaError{About: about, Need: need, Since: known.Since, ServiceAccount: known.ServiceAccount}
	return sp.full
}

// freed says that something was deleted: the next Put looks whether it fits.
func (sp *space) freed() {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.look = time.Time{}
}
