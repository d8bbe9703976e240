package drivetest

import (
	"errors"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// unit is what Drive counts chunks in.
const unit = 256 << 10

// maxMultipart is how large an upload in one request may be. Drive's limit is
// 5 MB.
const maxMultipart = 5 << 20

// A session is an unfinished upload.
type session struct {
	meta   *metadata
	size   int64 // announced; -1: not
	opened time.Time
	data   *content
	file   *file // once it is finished
	busy   bool  // a request is sending
	fields string
}

// open begins a session. The caller holds the lock.
func (c *call) open(meta *metadata) (*answer, *apiError) {
	s := c.server
	if err := c.reserve(meta); err != nil {
		return nil, err
	}
	up := &session{meta: meta, size: -1, opened: s.now(), data: newContent(), fields: c.r.URL.Query().Get("fields")}
	if text := c.r.Header.Get("X-Upload-Content-Length"); text != "" {
		size, err := strconv.ParseInt(text, 10, 64)
		if err != nil || size < 0 {
			return nil, s.violate(c.r, errBad("X-Upload-Content-Length "+text))
		}
		up.size = size
		if err := c.quota(size); err != nil {
			return nil, err
		}
	}
	if meta.MimeType == "" {
		meta.MimeType = c.r.Header.Get("X-Upload-Content-Type")
	}
	token := s.newID()
	s.sessions[token] = up
	host := c.r.Host
	if c.fault.Kind == OtherHost {
		host = "drive.example.com"
	}
	query := c.r.URL.Query()
	query.Set("upload_id", token)
	query.Del("alt")
	query.Del("prettyPrint")
	return &answer{code: http.StatusOK, header: http.Header{
		"Location":             {"http://" + host + "/upload/drive/v3/files?" + query.Encode()},
		"X-Guploader-Uploadid": {token},
		"Content-Type":         {"text/plain"},
	}}, nil
}

// A sending is one request to a session: bytes from an offset, or a question.
type sending struct {
	ask       bool
	from, end int64 // of the bytes; end is behind the last
	total     int64 // -1: unknown
}

// contentRange reads a Content-Range as the protocol has it.
func contentRange(header string) (sending, bool) {
	match := regexp.MustCompile(`^bytes (?:(\*)|(\d+)-(\d+))/(\*|\d+)$`).FindStringSubmatch(header)
	if match == nil {
		return sending{}, false
	}
	v := sending{ask: match[1] != "", total: -1}
	var err, err2, err3 error
	if match[4] != "*" {
		v.total, err = strconv.ParseInt(match[4], 10, 64)
	}
	if !v.ask {
		v.from, err2 = strconv.ParseInt(match[2], 10, 64)
		v.end, err3 = strconv.ParseInt(match[3], 10, 64)
		v.end++
	}
	return v, errors.Join(err, err2, err3) == nil
}

// upload takes a request to a session. The lock is not held: bytes may come
// slowly.
func (c *call) upload() (*answer, *apiError) {
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	token := c.r.URL.Query().Get("upload_id")
	up := s.sessions[token]
	gone := &apiError{code: http.StatusNotFound, raw: "Not Found", rawType: "text/plain; charset=utf-8"}
	if c.fault.Kind == Expire410 {
		gone.code, gone.raw = http.StatusGone, "Gone"
	}
	if up == nil || s.now().Sub(up.opened) > s.opts.SessionLife || c.fault.Kind == Expire404 || c.fault.Kind == Expire410 {
		delete(s.sessions, token)
		return nil, gone
	}
	if c.r.Method != http.MethodPut {
		return nil, s.violate(c.r, errBad("method "+c.r.Method))
	}
	header := c.r.Header.Get("Content-Range")
	if header == "" && c.r.ContentLength >= 0 { // all of it at once
		header = "bytes 0-" + strconv.FormatInt(c.r.ContentLength-1, 10) + "/" + strconv.FormatInt(c.r.ContentLength, 10)
	}
	v, ok := contentRange(header)
	if !ok {
		return nil, s.violate(c.r, errBad("Failed to parse Content-Range header."))
	}
	if up.file != nil { // finished: that the session still says so is unverified
		return c.replyUpload(up)
	}
	if up.busy { // the request before is not over; unverified
		return nil, &apiError{code: http.StatusServiceUnavailable, raw: "Backend busy", rawType: "text/plain"}
	}
	if v.ask {
		return c.status(up, v)
	}
	return c.take(up, v)
}

// status answers how much is there.
func (c *call) status(up *session, v sending) (*answer, *apiError) {
	s := c.server
	if v.total >= 0 && up.size >= 0 && v.total != up.size {
		return nil, s.violate(c.r, errBad("the size has changed"))
	}
	if c.fault.Kind == LoseBytes && up.data.size > 0 {
		kept := s.random.Int64N(up.data.size/unit+1) * unit
		if err := up.data.cut(s, min(kept, up.data.size)); err != nil {
			panic(err) // the test's disk is full
		}
	}
	return resumeIncomplete(up), nil
}

func resumeIncomplete(up *session) *answer {
	h := http.Header{}
	if up.data.size > 0 {
		h.Set("Range", "bytes=0-"+strconv.FormatInt(up.data.size-1, 10))
	}
	return &answer{code: http.StatusPermanentRedirect, header: h}
}

// take receives bytes. The lock is held when it is called and when it returns,
// and not in between.
func (c *call) take(up *session, v sending) (*answer, *apiError) {
	s := c.server
	n := v.end - v.from
	switch {
	case n <= 0 || c.r.ContentLength >= 0 && c.r.ContentLength != n:
		return nil, s.violate(c.r, errBad("Content-Range and Content-Length differ"))
	case v.total >= 0 && (v.end > v.total || up.size >= 0 && v.total != up.size):
		return nil, s.violate(c.r, errBad("the size has changed"))
	case n%unit != 0 && v.end != v.total:
		return nil, s.violate(c.r, errBad("a chunk is no multiple of 256 KiB"))
	case v.from != up.data.size: // going back over what is there: refused here; unverified
		return nil, errOffset(strconv.FormatInt(v.from, 10), strconv.FormatInt(up.data.size, 10))
	}
	keep := n
	cut := c.fault.Kind == Cut || c.fault.Kind == Short || c.fault.Kind == StallMiddle
	if cut {
		keep = s.random.Int64N(n/unit+1) * unit
		keep = min(keep, (n-1)/unit*unit)
	}
	up.busy = true
	s.mu.Unlock()
	whole, err := c.receive(up.data, n, keep)
	if c.fault.Kind == StallMiddle {
		s.halt()
		io.Copy(io.Discard, c.r.Body) //nolint:errcheck // only then is a lost connection noticed
		<-c.r.Context().Done()
	}
	s.mu.Lock()
	up.busy = false
	if err != nil {
		panic(err) // the test's disk is full
	}
	if c.fault.Kind == Flip {
		up.data.damage(s)
	}
	if !whole || c.fault.Kind == Cut || c.fault.Kind == StallMiddle {
		panic(http.ErrAbortHandler)
	}
	if cut || v.end != v.total {
		return resumeIncomplete(up), nil
	}
	return c.complete(up)
}

// receive reads n bytes and keeps some of them, in whole units unless all came.
func (c *call) receive(to *content, n, keep int64) (whole bool, err error) {
	buffer := make([]byte, unit)
	for got := int64(0); got < n; {
		size := min(int64(len(buffer)), n-got)
		m, readErr := io.ReadFull(c.r.Body, buffer[:size])
		if readErr != nil {
			return false, nil //nolint:nilerr // the client has gone, and what came of this unit is not kept
		}
		if got < keep {
			if err := to.add(c.server, buffer[:m]); err != nil {
				return false, err
			}
		} else if c.fault.Kind == Cut || c.fault.Kind == StallMiddle {
			return false, nil
		}
		got += int64(m)
	}
	return true, nil
}

// complete makes the file. The caller holds the lock.
func (c *call) complete(up *session) (*answer, *apiError) {
	if err := c.quota(up.data.size); err != nil {
		return nil, err
	}
	f, err := c.add(up.meta, up.data)
	if err != nil {
		return nil, err
	}
	up.file = f
	return c.replyUpload(up)
}

// replyUpload answers with the finished file, in the fields that were asked for
// when the session was opened.
func (c *call) replyUpload(up *session) (*answer, *apiError) {
	fields := up.fields
	if strings.TrimSpace(fields) == "" {
		fields = "kind,id,name,mimeType"
	}
	masked, err := mask(c.server.resource(up.file), fields, fileSchema())
	if err != nil {
		return nil, c.server.violate(c.r, err)
	}
	return &answer{code: http.StatusOK, body: masked}, nil
}

// Sink takes a plain PUT, does with the bytes what an upload does with them, and
// answers with their SHA-256: what a benchmark compares uploads with.
func (s *Server) Sink(w http.ResponseWriter, r *http.Request) {
	data := newContent()
	c := &call{server: s, r: r}
	if _, err := c.receive(data, r.ContentLength, r.ContentLength); err != nil {
		panic(err) // the test's disk is full
	}
	if data.disk != nil {
		os.Remove(data.disk.Name()) //nolint:errcheck // it goes with the test's folder
		data.disk.Close()           //nolint:errcheck // it is not needed any more
	}
	w.Write([]byte(hexOf(data.sha))) //nolint:errcheck // the client has gone, then
}
