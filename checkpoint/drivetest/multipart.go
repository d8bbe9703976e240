package drivetest

import (
	"errors"
	"io"
	"mime"
	"mime/multipart"
)

// readMultipart reads metadata and content of an upload in one request.
func (c *call) readMultipart() (*metadata, []byte, *apiError) {
	if kind := c.r.URL.Query().Get("uploadType"); kind != "multipart" {
		return nil, nil, c.violate(errParameter("uploadType"))
	}
	kind, params, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/related" {
		return nil, nil, c.violate(errBad("Media type '" + kind + "' is not supported."))
	}
	parts := multipart.NewReader(io.LimitReader(c.r.Body, maxMultipart+maxMetadata), params["boundary"])
	head, err := parts.NextRawPart()
	if err != nil {
		return nil, nil, c.violate(errBad("Malformed multipart body."))
	}
	meta, apiErr := c.readMetadata(head)
	if apiErr != nil {
		return nil, nil, apiErr
	}
	body, err := parts.NextRawPart()
	if err != nil {
		return nil, nil, c.violate(errBad("Malformed multipart body."))
	}
	if meta.MimeType == "" {
		meta.MimeType = body.Header.Get("Content-Type")
	}
	data, err := io.ReadAll(body)
	if err == nil {
		_, err = parts.NextRawPart()
	}
	if !errors.Is(err, io.EOF) || len(data) > maxMultipart {
		return nil, nil, c.violate(errBad("Malformed multipart body, or more than 5 MB."))
	}
	return meta, data, nil
}

// create makes a file in one request. The caller holds the lock.
func (c *call) create(meta *metadata, data []byte) (*answer, *apiError) {
	s := c.server
	if err := c.reserve(meta); err != nil {
		return nil, err
	}
	if err := c.quota(int64(len(data))); err != nil {
		return nil, err
	}
	kept := newContent()
	if c.fault.Kind == Flip && len(data) > 0 {
		data[s.random.IntN(len(data))] ^= 1
	}
	if err := kept.add(s, data); err != nil {
		panic(err) // the test's disk is full
	}
	return c.make(meta, kept)
}
