package drive

import (
	"bytes"
	"encoding/json"
	"mime/multipart"
	"net/textproto"
	"path"

	driveapi "google.golang.org/api/drive/v3"
)

// multipartBody is metadata and content in one, as multipart/related.
func multipartBody(meta *driveapi.File, content []byte) (body []byte, contentType string, err error) {
	head, err := json.Marshal(meta)
	if err != nil {
		return nil, "", err
	}
	var b bytes.Buffer
	b.Grow(len(head) + len(content) + 1024)
	w := multipart.NewWriter(&b)
	for _, part := range []struct {
		kind string
		data []byte
	}{{"application/json; charset=UTF-8", head}, {meta.MimeType, content}} {
		to, err := w.CreatePart(textproto.MIMEHeader{"Content-Type": {part.kind}})
		if err != nil {
			return nil, "", err
		}
		if _, err := to.Write(part.data); err != nil {
			return nil, "", err
		}
	}
	if err := w.Close(); err != nil {
		return nil, "", err
	}
	return b.Bytes(), "multipart/related; boundary=" + w.Boundary(), nil
}

// mimeType is what Drive needs to show a file; checkpoints are just bytes.
func mimeType(name string) string {
	switch path.Ext(name) {
	case ".json":
		return "application/json"
	case ".jsonl", ".txt", ".log", ".yaml", ".py", ".md":
		return "text/plain"
	}
	return "application/octet-stream"
}
