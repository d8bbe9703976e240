package drive

import (
	"context"
	"fmt"
	"sync"
	"time"

	driveapi "google.golang.org/api/drive/v3"

	"outlast/checkpoint"
	"outlast/checkpoint/durable"
)

// Bounds of copies within Drive: the content can be sent instead.
const (
	copyTries = 2
	copyRest  = 15 * time.Minute // of all copies, once there were too many
)

// A rest is a time in which something is not tried. It may be used concurrently.
type rest struct {
	mu    sync.Mutex
	until time.Time
}

func (r *rest) begin(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.until = time.Now().Add(d)
}

func (r *rest) over() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !time.Now().Before(r.until)
}

// copy has Drive copy the content from another file of the store, if it has it
// there: a frozen base model is in each checkpoint, and a final model in the
// last. It returns nothing if that is not to be had, whatever the reason: then
// the content is sent.
func (u *put) copy(ctx context.Context, meta *driveapi.File) (*driveapi.File, error) {
	s := u.store
	from, ok := s.index.having(u.want, u.path)
	if !ok || !s.copies.over() {
		return nil, nil
	}
	var f *driveapi.File
	t := &tries{store: s, what: "copy within Google Drive", most: copyTries}
	err := t.do(ctx, func() (err error) {
		f, err = s.api.Files.Copy(from, meta).Context(ctx).SupportsAllDrives(true).Fields(fileFields).Do()
		return err
	})
	switch {
	case err == nil:
		return f, nil
	case judged(err, taken):
		return nil, errTaken
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case judged(err, limited): // copies have a limit of their own, of a day
		s.copies.begin(copyRest)
	}
	s.log.DebugContext(ctx, "no copy within drive, sending the content", "name", u.name, "error", clean(err))
	return nil, nil
}

// check compares what Drive has made with what it was sent. It alone decides
// that a file is there.
func (u *put) check(ctx context.Context, f *driveapi.File) (object, error) {
	s := u.store
	if f.Sha256Checksum == "" { // it may be computed a little later
		again, err := s.file(ctx, f.Id)
		if err != nil && !judged(err, gone) {
			return object{}, finish("confirm "+u.name+" in Google Drive", err)
		}
		if err == nil {
			f = again
		}
	}
	o := objectOf(f)
	switch {
	case f.Trashed:
		u.undo(ctx, o)
		if err := s.lookAtFolder(ctx, parentOf(u.path)); err != nil {
			return object{}, err
		}
		return object{}, errAgain
	case f.Id != u.made.ID:
		return object{}, fmt.Errorf("drive made the file %s instead of %s", f.Id, u.made.ID)
	case !o.digest().Matches(durable.Digest{Size: u.want.Size}), o.SHA256 != "" && o.SHA256 != u.want.SHA256:
		u.undo(ctx, o)
		return object{}, fmt.Errorf("drive kept something else: %w: %d bytes with SHA-256 %s", durable.ErrContent, o.Size, o.SHA256)
	}
	return o, nil
}

// undo deletes what was just made and is of no use. If that fails, it stays as a
// version that is removed by the next Put.
func (u *put) undo(ctx context.Context, o object) {
	s := u.store
	u.forget()
	if _, err := s.deleteObject(ctx, o.ID); err != nil {
		s.log.WarnContext(ctx, "unusable file is left in drive", "name", u.name, "error", err)
		s.knowFile(u.path, o)
	} else {
		s.loseFile(u.path, o.ID)
	}
	u.made = object{}
}

// claim looks at who has the id of the new version. If it is an earlier try of
// ours, whose answer was lost, the file is there. Otherwise somebody else has
// made a version, and ours comes after it.
func (u *put) claim(ctx context.Context) (object, error) {
	s := u.store
	o, err := s.confirm(ctx, u.path, u.made)
	if err == nil && o.holds(u.want) {
		u.made = o
		return o, nil
	}
	if err != nil && !isNotFound(err) {
		return object{}, err
	}
	u.forget() // an id whose object was deleted again is used up: confirm has noted that
	u.made = object{}
	return object{}, nil
}

// finish records the new version, and deletes those before it. Only when they
// are gone has it replaced them: another machine that knows one of them learns
// from its absence.
func (u *put) finish(ctx context.Context, o object, err error) (checkpoint.Durability, error) {
	if err != nil {
		return "", err
	}
	s := u.store
	s.knowFile(u.path, o)
	u.forget()
	for _, old := range s.index.versions(u.path) {
		if old.ID == o.ID {
			continue
		}
		if _, err := s.deleteObject(ctx, old.ID); err != nil {
			return "", fmt.Errorf("remove what it replaces: %w", err)
		}
		s.loseFile(u.path, old.ID)
	}
	if !o.holds(u.want) {
		s.log.WarnContext(ctx, "drive has not confirmed the content", "name", u.name)
		return checkpoint.Handed, nil
	}
	return checkpoint.Mirrored, nil
}
