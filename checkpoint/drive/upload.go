package drive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	driveapi "google.golang.org/api/drive/v3"
	"google.golang.org/api/googleapi"
)

const (
	chunkUnit     = 256 << 10 // chunks are multiples of this, but for the last
	smallestChunk = 8 << 20   // what is tried when larger ones do not get through
	uploadPath    = "/upload/drive/v3/files"
	maxAnswer     = 1 << 20 // bytes of an answer that are read
)

// An upload brings one large file to Drive. Each step is one request; what a
// step does depends on what is known of the session, so that it goes on from any
// state, also from one that an earlier process has left.
type upload struct {
	store   *Store
	src     source
	meta    *driveapi.File
	size    int64
	session string               // address to send to; empty: to be opened
	opened  func(session string) // notes a session, durably, before the first byte
	offset  int64                // bytes that Drive has
	asked   bool                 // offset is what Drive said, and nothing was sent since
	best    int64                // largest offset so far, in whatever session
	moved   bool                 // it grew by what was sent
	chunk   int64                // bytes of the next request
	sent    bool                 // since offset was known last
	tries   *tries
}

// run takes steps until Drive has the file. errTaken says that the id is in
// use: by an earlier try that we know nothing of, perhaps. errParentGone says
// that there is no such folder.
func (u *upload) run(ctx context.Context) (*driveapi.File, error) {
	for {
		f, err := u.step(ctx)
		if f != nil {
			u.store.pace.uploaded()
			return f, nil
		}
		if err == nil {
			continue
		}
		err = u.recover(ctx, err)
		if judged(err, passing) && !u.moved { // Drive is there, and this session leads nowhere
			u.opened("")
		}
		if err != nil {
			return nil, err
		}
	}
}

// step makes one request. A file says that Drive has it.
func (u *upload) step(ctx context.Context) (*driveapi.File, error) {
	if err := u.store.pace.wait(ctx); err != nil {
		return nil, err
	}
	switch {
	case u.session == "":
		return nil, u.open(ctx)
	case !u.asked:
		return u.put(ctx, http.NoBody, 0, fmt.Sprintf("bytes */%d", u.size))
	}
	body, n, err := u.src.part(ctx, u.offset, u.chunk)
	if err != nil {
		return nil, err
	}
	u.asked, u.sent = false, true
	return u.put(ctx, body, n, fmt.Sprintf("bytes %d-%d/%d", u.offset, u.offset+n-1, u.size))
}

// recover decides how to go on after an error.
func (u *upload) recover(ctx context.Context, err error) error {
	var local *sourceError
	switch {
	case errors.As(err, &local):
		return local
	case interrupted(ctx, err):
		return ctx.Err()
	}
	if u.session == "" {
		switch judge(err) {
		case gone:
			return errParentGone
		case taken:
			return errTaken
		case refused:
			return err // the caller tries another id
		case passing, limited, full, signedOut, forbidden:
			return u.tries.again(ctx, err)
		}
	}
	switch judge(err) {
	case taken:
		return errTaken
	case gone, refused, forbidden: // expired, or broken: begin again; if this was the last answer, the id is in use
		u.session = ""
		return u.tries.again(ctx, fmt.Errorf("the upload was refused: %w", errors.New(explainWhy(err).Error())))
	case passing, limited, full, signedOut:
	}
	u.asked = false
	return u.tries.again(ctx, err)
}

// open begins a session.
func (u *upload) open(ctx context.Context) error {
	body, err := json.Marshal(u.meta)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.store.uploadURL("resumable"), bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json; charset=UTF-8")
	req.Header.Set("X-Upload-Content-Type", u.meta.MimeType)
	req.Header.Set("X-Upload-Content-Length", strconv.FormatInt(u.size, 10))
	resp, err := u.store.client.Do(req)
	if err != nil {
		return err
	}
	defer drain(resp)
	if err := googleapi.CheckResponse(resp); err != nil {
		return err
	}
	session, err := resp.Location()
	if err != nil {
		return fmt.Errorf("open an upload: %w", err)
	}
	if !u.store.trusted(session) {
		return &sourceError{errors.New("drive wants the file sent to another host, " + session.Host)}
	}
	u.session = session.String()
	u.opened(u.session)
	u.offset, u.asked = 0, true
	return nil
}

// put sends a part of the content, or asks with an empty body how much of it
// Drive has.
func (u *upload) put(ctx context.Context, body io.ReadCloser, n int64, contentRange string) (*driveapi.File, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, u.session, body)
	if err != nil {
		return nil, errors.New("the address of the upload makes no sense")
	}
	req.ContentLength = n
	req.Header.Set("Content-Range", contentRange)
	resp, err := u.store.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer drain(resp)
	if resp.StatusCode == http.StatusPermanentRedirect { // that is how Drive says: go on
		return nil, u.believe(resp.Header.Get("Range"), n > 0)
	}
	if err := googleapi.CheckResponse(resp); err != nil {
		return nil, err
	}
	return decodeFile(resp.Body)
}

// believe takes Drive's word for how much it has; answer says that this is its
// answer to bytes, and not to a question.
func (u *upload) believe(has string, answer bool) error {
	offset := int64(0)
	if has != "" {
		last, err := strconv.ParseInt(strings.TrimPrefix(has, "bytes=0-"), 10, 64)
		if err != nil || last < 0 || last >= u.size {
			u.session = ""
			return fmt.Errorf("drive claims to have the bytes %q of %d", has, u.size)
		}
		offset = last + 1
	}
	if offset == u.size { // and yet it is not done; if it is, the id is in use
		u.session = ""
		return errors.New("drive has all bytes and does not finish the file")
	}
	sent, grew := u.sent, offset > u.offset
	u.offset, u.asked, u.sent = offset, true, false
	if offset > u.best { // a session that expires again and again gets no farther than this, and is given up
		u.best, u.moved = offset, u.moved || sent
		u.tries.progress()
		u.store.pace.fine()
		if sent {
			u.store.pace.uploaded()
		}
	}
	if grew || !sent {
		return nil
	}
	// Nothing came through: less at a time may.
	u.chunk = max(u.chunk/2/chunkUnit*chunkUnit, min(smallestChunk, u.store.cfg.Chunk))
	if answer {
		return errors.New("drive keeps nothing of what it is sent")
	}
	return nil
}

// create sends a small file in one request with its metadata.
func (s *Store) create(ctx context.Context, meta *driveapi.File, content []byte) (f *driveapi.File, err error) {
	body, contentType, err := multipartBody(meta, content)
	if err != nil {
		return nil, err
	}
	t := &tries{store: s, what: "upload " + meta.Name + " to Google Drive", upload: true, need: int64(len(content))}
	for {
		if err := s.pace.wait(ctx); err != nil {
			return nil, err
		}
		f, err := s.createOnce(ctx, body, contentType)
		if err == nil {
			s.pace.fine()
			s.pace.uploaded()
			return f, nil
		}
		switch judge(err) {
		case taken:
			return nil, errTaken
		case gone:
			return nil, errParentGone
		case refused:
			return nil, err
		case passing, limited, full, signedOut, forbidden:
		}
		if err := t.again(ctx, err); err != nil {
			return nil, err
		}
	}
}

func (s *Store) createOnce(ctx context.Context, body []byte, contentType string) (*driveapi.File, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.uploadURL("multipart"), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer drain(resp)
	if err := googleapi.CheckResponse(resp); err != nil {
		return nil, err
	}
	return decodeFile(resp.Body)
}

func (s *Store) uploadURL(kind string) string {
	query := url.Values{"uploadType": {kind}, "supportsAllDrives": {"true"}, "fields": {fileFields}}
	return s.base.String() + uploadPath + "?" + query.Encode()
}

// decodeFile reads the answer to a finished upload. One that does not arrive
// whole is as good as none: the next question is by id.
func decodeFile(r io.Reader) (*driveapi.File, error) {
	var f driveapi.File
	if err := json.NewDecoder(io.LimitReader(r, maxAnswer)).Decode(&f); err != nil {
		return nil, fmt.Errorf("read Drive's answer: %w", err)
	}
	if f.Id == "" {
		return nil, errors.New("drive's answer names no file")
	}
	return &f, nil
}

// drain reads the rest of an answer, so that its connection can be used again.
func drain(resp *http.Response) {
	io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)) //nolint:errcheck // whatever it is, it is not needed
	resp.Body.Close()                                         //nolint:errcheck // it was only read
}
