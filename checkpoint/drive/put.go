package drive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"time"

	driveapi "google.golang.org/api/drive/v3"

	"outlast/checkpoint"
	"outlast/checkpoint/durable"
)

// Bounds of a Put.
const (
	maxConflicts = 8       // of ids, or with a folder that disappears, before it is given up
	maxResends   = 2       // of a file that Drive keeps wrongly
	copyFrom     = 1 << 20 // bytes from which on copying within Drive is worth a request
)

// Put implements checkpoint.Store. It answers Mirrored once Drive has confirmed
// size and SHA-256, and Handed if Drive does not tell the SHA-256. Content that
// Drive has already is not sent again. A large file that is an io.Seeker is
// read again after a fault, and its upload is gone on with by the next Put of
// the same name and content, also in another process.
func (s *Store) Put(ctx context.Context, name string, r io.Reader, want durable.Digest) (checkpoint.Durability, error) {
	p, err := s.path(name)
	if err != nil {
		return "", err
	}
	unlock, err := s.names.lock(ctx, p)
	if err != nil {
		return "", err
	}
	defer unlock()
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	defer s.index.use(parentOf(p))()
	put := &put{store: s, name: name, path: p}
	d, err := put.run(ctx, r, want)
	if local, ok := errors.AsType[*sourceError](err); ok {
		err = local.err
	}
	if err != nil {
		return "", fmt.Errorf("put %s: %w", name, err)
	}
	return d, nil
}

// A put is one Put at work.
type put struct {
	store *Store
	name  string
	path  string
	want  durable.Digest
	small []byte // the content of a small file
	src   source // of a large one
	made  object // what is being made
}

// run brings the content to Drive, unless it is there, and removes what it
// replaces.
func (u *put) run(ctx context.Context, r io.Reader, want durable.Digest) (checkpoint.Durability, error) {
	if err := u.read(ctx, r, want); err != nil {
		return "", err
	}
	s := u.store
	if err := s.checkPlaces(ctx, parentOf(u.path)); err != nil {
		return "", err
	}
	if err := s.knowVersions(ctx, u.path); err != nil {
		return "", err
	}
	if o, err := u.present(ctx); err != nil || o.ID != "" {
		return u.finish(ctx, o, err)
	}
	if err := s.room(ctx, u.want.Size); err != nil {
		return "", err
	}
	for n := range maxConflicts {
		o, err := u.attempt(ctx)
		var local *sourceError
		switch {
		case errors.As(err, &local):
			u.forget()
			return "", err
		case errors.Is(err, errTaken):
			if o, err = u.claim(ctx); err != nil || o.ID != "" {
				return u.finish(ctx, o, err)
			}
		case errors.Is(err, errParentGone):
			s.log.WarnContext(ctx, "drive folder is gone, making it again", "path", parentOf(u.path))
			s.loseFolder(parentOf(u.path)) // whatever is above it shows when it is made
		case errors.Is(err, errAgain):
		case judged(err, refused): // an id that lay about for too long, most likely
			s.ids.drop()
			u.forget()
			if u.made.ID == "" {
				return "", explain("upload "+u.name+" to Google Drive", err)
			}
			s.index.bury(u.made.ID) // it may be the one that the last version names
			u.made = object{}
		case errors.Is(err, durable.ErrContent) && u.again() && n < maxResends:
		default:
			return u.finish(ctx, o, err)
		}
	}
	return "", &AccessError{
		"upload " + u.name + " to Google Drive", errors.New("its place is taken again and again"),
		"see whether another machine saves to the same store",
	}
}

// read prepares the content; what is small is read and compared at once.
func (u *put) read(ctx context.Context, r io.Reader, want durable.Digest) (err error) {
	if want.Size <= smallFile {
		u.small, u.want, err = readSmall(ctx, r, want)
		return err
	}
	u.src, u.want, err = openSource(ctx, r, want)
	return err
}

// again reports whether the content can be sent a second time: a file that Drive
// kept wrongly is made anew.
func (u *put) again() bool {
	_, once := u.src.(*stream)
	return !once
}

// knowVersions makes sure that the versions of a file that Drive shows are
// known. The listing is done once: after that, nobody but us makes any, or they
// have the id that we would use.
func (s *Store) knowVersions(ctx context.Context, p string) error {
	dir := parentOf(p)
	for range maxConflicts { // a folder that is gone may have another of its name beside it
		if err := s.find(ctx, dir, false); err != nil {
			return err
		}
		if len(s.index.folderIDs(dir)) == 0 || !s.index.listedAt(dir).IsZero() {
			return nil
		}
		if err := s.listFolders(ctx, []string{dir}); err != nil {
			return err
		}
	}
	return nil
}

// present returns the file's newest version if it has the content already.
func (u *put) present(ctx context.Context) (object, error) {
	versions := u.store.index.versions(u.path)
	if len(versions) == 0 || !versions[0].holds(u.want) {
		return object{}, nil
	}
	o, err := u.store.confirm(ctx, u.path, versions[0])
	if errors.Is(err, checkpoint.ErrNotFound) {
		return object{}, nil
	}
	if err != nil || !o.holds(u.want) {
		return object{}, err
	}
	return o, nil
}

// attempt makes the new version once: by a copy within Drive, in one request,
// or in a session.
func (u *put) attempt(ctx context.Context) (object, error) {
	s := u.store
	parent, err := s.ensureFolder(ctx, parentOf(u.path))
	if err != nil {
		return object{}, err
	}
	if err := s.listOnce(ctx, parentOf(u.path)); err != nil { // it may have been found only now
		return object{}, err
	}
	session, err := u.plan(ctx)
	if err != nil {
		return object{}, err
	}
	meta := &driveapi.File{
		Id: u.made.ID, Name: path.Base(u.path), Parents: []string{parent}, MimeType: mimeType(u.path),
		AppProperties: u.made.properties(), Properties: u.made.properties(),
	}
	var f *driveapi.File
	switch {
	case session == "" && u.want.Size >= copyFrom:
		if f, err = u.copy(ctx, meta); f != nil || err != nil {
			break
		}
		fallthrough
	default:
		f, err = u.send(ctx, meta, session)
	}
	if err != nil {
		return object{}, err
	}
	return u.check(ctx, f)
}

// plan decides on the id and number of the new version, and on the session to
// go on with, if there is one. It is noted before Drive hears of the id.
func (u *put) plan(ctx context.Context) (session string, err error) {
	s := u.store
	last := latest(s.index.versions(u.path))
	if u.made.ID == "" {
		if r, ok := s.journal.pending(u.path); ok && u.want.SHA256 != "" && r.holds(u.want) && last.Seq < r.Seq {
			u.made = r.object
			return r.Session, nil
		}
		u.made = object{Seq: last.Seq + 1, ID: last.Next, Size: u.want.Size, SHA256: u.want.SHA256, Meant: u.want.SHA256}
		if u.made.ID == "" || s.index.isDead(u.made.ID) {
			if u.made.ID, err = s.ids.take(ctx); err != nil {
				return "", err
			}
		}
		if u.made.Next, err = s.ids.take(ctx); err != nil {
			return "", err
		}
	}
	s.journal.note(record{Kind: recordPending, Path: u.path, object: u.made}, false)
	return "", nil
}

// forget drops what the journal has of the upload.
func (u *put) forget() {
	u.store.journal.note(record{Kind: recordPending, Path: u.path, Gone: true, object: object{ID: u.made.ID}}, false)
}

// send uploads the content.
func (u *put) send(ctx context.Context, meta *driveapi.File, session string) (*driveapi.File, error) {
	s := u.store
	if u.src == nil {
		return s.create(ctx, meta, u.small)
	}
	up := &upload{
		store: s, src: u.src, meta: meta, size: u.want.Size, session: session, chunk: s.cfg.Chunk,
		tries: &tries{store: s, what: "upload " + u.name + " to Google Drive", upload: true, need: u.want.Size},
		opened: func(session string) {
			s.journal.note(record{Kind: recordPending, Path: u.path, Session: session, Opened: time.Now().UTC(), object: u.made}, true)
		},
	}
	f, err := up.run(ctx)
	if u.src.digest().SHA256 != "" {
		u.want.SHA256 = u.src.digest().SHA256
	}
	return f, err
}
