package drive

import (
	"context"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"sync"

	"outlast/checkpoint/durable"
)

// stream is a source that can be read once. It keeps the last window, and what
// lies before that Drive must have.
type stream struct {
	r      io.Reader
	want   durable.Digest
	sum    hash.Hash
	start  int64 // of the window
	buffer []byte
	last   *piece // handed out last; nil: none
}

// part implements source. What Drive has from an earlier process is read and
// hashed on the way to offset.
func (s *stream) part(ctx context.Context, offset, most int64) (io.ReadCloser, int64, error) {
	for offset >= s.start+int64(len(s.buffer)) {
		if s.last != nil { // its request is over, but may be reading yet
			s.last.Close() //nolint:errcheck // it returns nil always
		}
		if err := s.fill(ctx); err != nil {
			return nil, 0, err
		}
	}
	if offset < s.start {
		return nil, 0, &sourceError{errors.New("drive has lost what it had confirmed, and the content cannot be read again")}
	}
	data := s.buffer[offset-s.start:]
	data = data[:min(int64(len(data)), most)]
	s.last = &piece{data: data}
	return s.last, int64(len(data)), nil
}

// A piece is a body that lies in memory.
type piece struct {
	mu   sync.Mutex
	data []byte
	err  error
}

// Read implements io.Reader.
func (p *piece) Read(buffer []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil && len(p.data) == 0 {
		p.err = io.EOF
	}
	n := copy(buffer, p.data)
	p.data = p.data[n:]
	return n, p.err
}

// Close implements io.Closer. After it nothing is read any more.
func (p *piece) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.data, p.err = nil, errClosed
	return nil
}

// digest implements source.
func (s *stream) digest() durable.Digest { return s.want }

// fill reads the next window; the last one only counts if all of it together is
// what was announced.
func (s *stream) fill(ctx context.Context) error {
	s.start += int64(len(s.buffer))
	left := s.want.Size - s.start
	if s.buffer == nil {
		s.buffer = make([]byte, min(window, left))
	}
	s.buffer = s.buffer[:min(window, left)]
	n, err := io.ReadFull(s.r, s.buffer)
	if err == nil {
		err = ctx.Err()
	}
	s.sum.Write(s.buffer[:n])
	got := durable.Digest{Size: s.start + int64(n), SHA256: hex.EncodeToString(s.sum.Sum(nil))}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return differs(got)
	}
	if err != nil {
		return &sourceError{err}
	}
	if got.Size < s.want.Size {
		return nil
	}
	var more [1]byte
	if n, err := io.ReadFull(s.r, more[:]); n > 0 {
		got.Size++
		return differs(got)
	} else if !errors.Is(err, io.EOF) {
		return &sourceError{err}
	}
	if !got.Matches(s.want) {
		return differs(got)
	}
	s.want.SHA256 = got.SHA256 // if it was unknown, Drive's answer is compared with it
	return nil
}
