package drive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"

	"outlast/checkpoint"
	"outlast/checkpoint/durable"
)

// getRounds is how often a file may be replaced while it is being opened.
const getRounds = 8

// Get implements checkpoint.Store. A small file is compared with Drive's own
// SHA-256 before any of it is returned, a large one while it is read:
// durable.ErrContent says that it is damaged. A connection that breaks is gone
// on with where it broke.
func (s *Store) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	p, err := s.path(name)
	if err = errors.Join(err, ctx.Err()); err != nil {
		return nil, err
	}
	if err := s.checkPlaces(ctx, parentOf(p)); err != nil {
		return nil, err
	}
	for range getRounds {
		o, err := s.newest(ctx, p)
		if err != nil {
			return nil, err
		}
		r, err := s.openObject(ctx, name, o)
		if !judged(err, gone) {
			return r, finish("get "+name+" from Google Drive", err)
		}
		if err := s.follow(ctx, p, o); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("get %s: it is replaced again and again", name)
}

// openObject begins to read an object; a small one it reads whole.
func (s *Store) openObject(ctx context.Context, name string, o object) (io.ReadCloser, error) {
	d := &download{store: s, ctx: ctx, name: name, object: o, sum: sha256.New()}
	if err := d.open(); err != nil {
		return nil, err
	}
	if o.Size > smallFile {
		return d, nil
	}
	content, err := io.ReadAll(d)
	if err = errors.Join(err, d.Close()); err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(content)), nil
}

// newest returns the newest version of a file that is known, after a listing if
// none is.
func (s *Store) newest(ctx context.Context, p string) (object, error) {
	if versions := s.index.versions(p); len(versions) > 0 && versions[0].sound() {
		return versions[0], nil
	}
	dir := parentOf(p)
	if err := s.find(ctx, dir, true); err != nil {
		return object{}, err
	}
	if len(s.index.folderIDs(dir)) > 0 {
		if err := s.listFolders(ctx, []string{dir}); err != nil {
			return object{}, err
		}
	}
	if versions := s.index.versions(p); len(versions) > 0 && versions[0].sound() {
		return versions[0], nil
	}
	return object{}, notFound(s.name(p))
}

// follow goes on from a version that is gone: somebody else has deleted the
// file, or replaced it. The next version's id was settled when this one was
// made, and asking for it needs no listing.
func (s *Store) follow(ctx context.Context, p string, o object) error {
	s.loseFile(p, o.ID)
	s.index.setUnlisted(parentOf(p))
	if o.Next == "" || s.index.isDead(o.Next) {
		return nil
	}
	return s.lookAhead(ctx, p, o.Next)
}

// lookAhead takes in the object that an id was settled for, if it has been made.
func (s *Store) lookAhead(ctx context.Context, p, id string) error {
	f, err := s.file(ctx, id)
	if judged(err, gone) {
		return nil
	}
	if err != nil {
		return finish("look at "+s.name(p)+" in Google Drive", err)
	}
	if !f.Trashed && ours(f) {
		s.knowFile(p, objectOf(f))
	}
	return nil
}

// A download is the content of one object.
type download struct {
	store  *Store
	ctx    context.Context //nolint:containedctx // it lives for one download
	name   string
	object object
	sum    hash.Hash
	offset int64
	body   io.ReadCloser // nil: to be opened at offset
	fails  tries
	err    error // why there is no more
}

// open asks for what is not there yet.
func (d *download) open() error {
	s := d.store
	return s.do(d.ctx, "get "+d.name+" from Google Drive", func() error {
		call := s.api.Files.Get(d.object.ID).Context(d.ctx).SupportsAllDrives(true)
		if d.offset > 0 {
			call.Header().Set("Range", fmt.Sprintf("bytes=%d-", d.offset))
		}
		resp, err := call.Download()
		if err != nil {
			return err
		}
		if d.offset > 0 && resp.StatusCode != http.StatusPartialContent {
			if _, err := io.CopyN(io.Discard, resp.Body, d.offset); err != nil { // it begins at the beginning
				return errors.Join(err, resp.Body.Close())
			}
		}
		d.body = resp.Body
		return nil
	})
}

// Read implements io.Reader.
func (d *download) Read(p []byte) (int, error) {
	for d.err == nil {
		if d.body == nil {
			if d.err = d.reopen(); d.err != nil {
				break
			}
		}
		n, err := d.body.Read(p)
		d.offset += int64(n)
		d.sum.Write(p[:n])
		if n > 0 {
			d.fails.progress()
		}
		switch {
		case d.offset > d.object.Size:
			d.err = d.damaged()
		case d.offset == d.object.Size && (err == nil || errors.Is(err, io.EOF)):
			d.err = d.end()
		case err != nil:
			d.broken(err)
		}
		if n > 0 || len(p) == 0 {
			return n, nil
		}
	}
	return 0, d.err
}

// reopen goes on with a download that broke. That Drive has no more to give is
// damage.
func (d *download) reopen() error {
	err := d.open()
	if isAnswer(err, http.StatusRequestedRangeNotSatisfiable) {
		return d.damaged()
	}
	if judged(err, gone) && d.offset > 0 {
		return fmt.Errorf("get %s from Google Drive: it was replaced or deleted meanwhile: %w", d.name, explainWhy(err))
	}
	return finish("get "+d.name+" from Google Drive", err)
}

// broken closes a connection that is of no more use, and waits a little. An end
// before the end is treated like a connection that broke.
func (d *download) broken(err error) {
	d.body.Close() //nolint:errcheck // it is broken
	d.body = nil
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
		if d.fails.fails > 1 { // twice nothing, without a fault: that is all there is
			d.err = d.damaged()
			return
		}
	}
	d.fails.store, d.fails.what = d.store, "get "+d.name+" from Google Drive"
	d.err = d.fails.again(d.ctx, err)
}

// end compares what has come with what Drive says that it has.
func (d *download) end() error {
	if d.object.SHA256 != "" && hex.EncodeToString(d.sum.Sum(nil)) != d.object.SHA256 {
		return d.damaged()
	}
	return io.EOF
}

func (d *download) damaged() error {
	return fmt.Errorf("get %s from Google Drive: %w", d.name, durable.ErrContent)
}

// Close implements io.Closer.
func (d *download) Close() error {
	if d.err == nil {
		d.err = errClosed
	}
	if d.body == nil {
		return nil
	}
	err := d.body.Close()
	d.body = nil
	return err
}

// Delete implements checkpoint.Store. It deletes for good, past the trash, all
// versions of the file that Outlast has made, and tidies up the folders that
// become empty.
func (s *Store) Delete(ctx context.Context, name string) error {
	p, err := s.path(name)
	if err != nil {
		return err
	}
	unlock, err := s.names.lock(ctx, p)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.deleteVersions(ctx, p); err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}

// deleteVersions deletes every version of a file. One that somebody else has
// deleted already, he may have replaced.
func (s *Store) deleteVersions(ctx context.Context, p string) error {
	if err := s.knowVersions(ctx, p); err != nil {
		return err
	}
	if _, err := s.newest(ctx, p); err != nil && !isNotFound(err) { // known to none of us, it may be new
		return err
	}
	deleted := false
	for range getRounds {
		versions := s.index.versions(p)
		if len(versions) == 0 {
			break
		}
		for _, o := range versions {
			existed, err := s.deleteObject(ctx, o.ID)
			if err != nil {
				return err
			}
			s.loseFile(p, o.ID)
			deleted = true
			if !existed && o.Next != "" && !s.index.isDead(o.Next) {
				if err := s.lookAhead(ctx, p, o.Next); err != nil {
					return err
				}
			}
		}
	}
	if deleted {
		s.space.freed()
		s.tidy(ctx, parentOf(p))
	}
	return nil
}

// deleteObject deletes an object that is ours. That it is gone is no error.
func (s *Store) deleteObject(ctx context.Context, id string) (existed bool, err error) {
	err = s.do(ctx, "delete from Google Drive", func() error {
		return s.api.Files.Delete(id).Context(ctx).SupportsAllDrives(true).Do()
	})
	if judged(err, gone) {
		return false, nil
	}
	return true, finish("delete from Google Drive", err)
}

func isNotFound(err error) bool { return errors.Is(err, checkpoint.ErrNotFound) }
