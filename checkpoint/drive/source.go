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
	"sync"

	"outlast/checkpoint/durable"
)

// Sizes of what is held in memory.
const (
	smallFile = 4 << 20 // up to this a file is read whole, and sent in one request with its metadata
	window    = 8 << 20 // of a reader that cannot go back; what Drive has not kept is sent again from it
)

// A source is the content of one large file. It is read by one goroutine.
type source interface {
	// part returns a body of up to most bytes that begins at offset, and its
	// length. The last byte of the content is not handed out unless the content
	// is what was announced; ErrContent says that it is not.
	part(ctx context.Context, offset, most int64) (body io.ReadCloser, n int64, err error)
	// digest says what the content is, once its last byte was handed out.
	digest() durable.Digest
}

// A sourceError says that the trouble is on our side: no other request helps.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

func differs(d durable.Digest) error {
	return &sourceError{fmt.Errorf("%w: %d bytes with SHA-256 %s", durable.ErrContent, d.Size, d.SHA256)}
}

// readSmall reads a small file whole, and compares it with what was announced.
func readSmall(ctx context.Context, r io.Reader, want durable.Digest) ([]byte, durable.Digest, error) {
	// One byte more than announced is enough to know that it is wrong.
	var content bytes.Buffer
	content.Grow(int(want.Size) + bytes.MinRead)
	_, err := content.ReadFrom(io.LimitReader(r, want.Size+1))
	if err = errors.Join(err, ctx.Err()); err != nil {
		return nil, durable.Digest{}, err
	}
	sum := sha256.Sum256(content.Bytes())
	got := durable.Digest{Size: int64(content.Len()), SHA256: hex.EncodeToString(sum[:])}
	if !got.Matches(want) {
		return nil, durable.Digest{}, differs(got)
	}
	return content.Bytes(), got, nil
}

// openSource returns the source of a large file, and its digest, the SHA-256 of
// which stays unknown only for a reader that cannot go back.
func openSource(ctx context.Context, r io.Reader, want durable.Digest) (source, durable.Digest, error) {
	seeker, ok := r.(io.ReadSeeker)
	if !ok {
		return &stream{r: r, want: want, sum: sha256.New()}, want, nil
	}
	start, err := seeker.Seek(0, io.SeekCurrent)
	if err != nil { // a pipe, for instance, is an *os.File too
		return &stream{r: r, want: want, sum: sha256.New()}, want, nil //nolint:nilerr // it is read once instead
	}
	end, err := seeker.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, want, err
	}
	if end-start != want.Size {
		return nil, want, differs(durable.Digest{Size: end - start, SHA256: "not computed"})
	}
	at, ok := r.(io.ReaderAt)
	if !ok {
		at = &seeking{r: seeker}
	}
	f := &file{content: io.NewSectionReader(at, start, want.Size), want: want, sum: sha256.New()}
	if want.SHA256 == "" {
		if err := f.catchUp(ctx, want.Size); err != nil {
			return nil, want, err
		}
		want.SHA256 = hex.EncodeToString(f.sum.Sum(nil))
		f.want = want
	}
	return f, want, nil
}

// seeking reads anywhere in a reader that seeks.
type seeking struct {
	mu sync.Mutex
	r  io.ReadSeeker
}

// ReadAt implements io.ReaderAt.
func (s *seeking) ReadAt(p []byte, offset int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.r.Seek(offset, io.SeekStart); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(s.r, p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

// file is a source that can be read again. It is not held in memory.
type file struct {
	content *io.SectionReader
	want    durable.Digest

	mu     sync.Mutex // bodies may be read a little longer than their request lives
	sum    hash.Hash
	hashed int64 // bytes in sum, from the beginning
	bad    error // why no more is handed out
}

// part implements source.
func (f *file) part(ctx context.Context, offset, most int64) (io.ReadCloser, int64, error) {
	if err := f.catchUp(ctx, offset); err != nil {
		return nil, 0, err
	}
	n := min(most, f.want.Size-offset)
	return &part{f: f, next: offset, end: offset + n}, n, nil
}

// digest implements source.
func (f *file) digest() durable.Digest { return f.want }

// catchUp hashes what Drive has had from an earlier process.
func (f *file) catchUp(ctx context.Context, offset int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.bad != nil {
		return f.bad
	}
	if f.hashed >= offset {
		return nil
	}
	buffer := make([]byte, 1<<20)
	for f.hashed < offset {
		n, err := f.content.ReadAt(buffer[:min(int64(len(buffer)), offset-f.hashed)], f.hashed)
		if n == 0 && err != nil {
			return &sourceError{fmt.Errorf("read the file again: %w", err)}
		}
		f.sum.Write(buffer[:n])
		f.hashed += int64(n)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// take reads the bytes at an offset, and hashes those that come for the first
// time. The end of the content is kept back if it is not what was announced.
func (f *file) take(p []byte, offset int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.bad != nil {
		return 0, f.bad
	}
	n, err := f.content.ReadAt(p, offset)
	if n == 0 && err != nil {
		f.bad = &sourceError{fmt.Errorf("read the file: it became shorter meanwhile, or broke: %w", err)}
		return 0, f.bad
	}
	if end := offset + int64(n); end > f.hashed {
		f.sum.Write(p[f.hashed-offset : n])
		f.hashed = end
	}
	if f.hashed == f.want.Size {
		got := durable.Digest{Size: f.hashed, SHA256: hex.EncodeToString(f.sum.Sum(nil))}
		if !got.Matches(f.want) {
			f.bad = differs(got)
			return 0, f.bad
		}
	}
	return n, nil
}

// part is one request's body.
type part struct {
	f *file

	mu        sync.Mutex
	next, end int64
	closed    bool
}

// Read implements io.Reader.
func (p *part) Read(buffer []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, errClosed
	}
	if p.next == p.end {
		return 0, io.EOF
	}
	n, err := p.f.take(buffer[:min(int64(len(buffer)), p.end-p.next)], p.next)
	p.next += int64(n)
	return n, err
}

// Close implements io.Closer. After it nothing is read any more: the next
// request may be on its way.
func (p *part) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return nil
}
