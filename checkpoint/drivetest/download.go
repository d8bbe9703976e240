package drivetest

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
)

// download answers with content, all or from an offset on. The caller holds the
// lock; it is sent without.
func (c *call) download() (*answer, *apiError) {
	s := c.server
	f := s.find(c.id)
	if f == nil {
		return nil, errNotFound(c.id)
	}
	if f.content == nil {
		return nil, s.violate(c.r, &apiError{
			code: http.StatusForbidden, domain: "global", reason: "fileNotDownloadable",
			message: "Only files with binary content can be downloaded. Use Export with Docs Editors files.",
		})
	}
	size := f.content.stored()
	from, to := int64(0), size
	header := c.r.Header.Get("Range")
	if header != "" {
		var ok bool
		if from, to, ok = byteRange(header, size); !ok {
			return nil, s.violate(c.r, errBad("Range "+header))
		}
		if from >= size {
			return nil, &apiError{code: http.StatusRequestedRangeNotSatisfiable, raw: "Requested range not satisfiable", rawType: "text/plain"}
		}
	}
	if c.fault.Kind == Lose || c.fault.Kind == TornAnswer {
		panic(http.ErrAbortHandler)
	}
	reader := io.NewSectionReader(f.content.reader(), from, to-from)
	flip := int64(-1)
	if c.fault.Kind == Flip {
		flip = s.random.Int64N(max(to-from, 1))
	}
	h := http.Header{
		"Content-Type":   {f.mimeType},
		"Content-Length": {strconv.FormatInt(to-from, 10)},
		"Server":         {"UploadServer"},
	}
	code := http.StatusOK
	if header != "" {
		code = http.StatusPartialContent
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, size))
	}
	return &answer{code: code, header: h, send: func() { c.send(reader, to-from, flip) }}, nil
}

// byteRange reads a Range of one part, with or without an end.
func byteRange(header string, size int64) (from, to int64, ok bool) {
	match := regexp.MustCompile(`^bytes=(\d+)-(\d*)$`).FindStringSubmatch(header)
	if match == nil {
		return 0, 0, false
	}
	from, err := strconv.ParseInt(match[1], 10, 64)
	to = size
	if err == nil && match[2] != "" {
		to, err = strconv.ParseInt(match[2], 10, 64)
		to = min(to+1, size)
	}
	return from, to, err == nil
}

// send sends content, as far as a fault lets it.
func (c *call) send(r io.Reader, size, flip int64) {
	half := size
	if c.fault.Kind == Cut || c.fault.Kind == StallMiddle {
		half = size / 2
	}
	buffer := make([]byte, 64<<10)
	for sent := int64(0); sent < half; {
		n, err := r.Read(buffer[:min(int64(len(buffer)), half-sent)])
		if flip >= sent && flip < sent+int64(n) {
			buffer[flip-sent] ^= 1
		}
		if _, err := c.w.Write(buffer[:n]); err != nil {
			return // the client has gone
		}
		sent += int64(n)
		if err != nil {
			break
		}
	}
	if half < size {
		http.NewResponseController(c.w).Flush() //nolint:errcheck // it is to break
		if c.fault.Kind == StallMiddle {
			<-c.r.Context().Done()
		}
		panic(http.ErrAbortHandler)
	}
}
