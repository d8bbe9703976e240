package drivetest

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
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
	from := int64(0)
	if header := c.r.Header.Get("Range"); header != "" {
		text, ok := strings.CutPrefix(header, "bytes=")
		text, ok2 := strings.CutSuffix(text, "-")
		n, err := strconv.ParseInt(text, 10, 64)
		if !ok || !ok2 || err != nil {
			return nil, s.violate(c.r, errBad("Range "+header))
		}
		if from = n; from >= size {
			return nil, &apiError{code: http.StatusRequestedRangeNotSatisfiable, raw: "Requested range not satisfiable", rawType: "text/plain"}
		}
	}
	if c.fault.Kind == Lose || c.fault.Kind == TornAnswer {
		panic(http.ErrAbortHandler)
	}
	reader := io.NewSectionReader(f.content.reader(), from, size-from)
	flip := int64(-1)
	if c.fault.Kind == Flip {
		flip = s.random.Int64N(max(size-from, 1))
	}
	h := http.Header{
		"Content-Type":   {f.mimeType},
		"Content-Length": {strconv.FormatInt(size-from, 10)},
		"Server":         {"UploadServer"},
	}
	code := http.StatusOK
	if from > 0 {
		code = http.StatusPartialContent
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, size-1, size))
	}
	return &answer{code: code, header: h, send: func() { c.send(reader, size-from, flip) }}, nil
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
