package durable

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
)

// Sizes of the blocks in which content is copied. A file of one small block is
// not worth a second goroutine; the blocks of a large one, while it is copied,
// are all the memory that it takes.
const (
	smallBlock  = 64 << 10
	largeBlock  = 512 << 10
	largeBlocks = 4
)

// copyHashed copies r to w and returns what it was. A large content is hashed by
// a goroutine of its own, one block while the next is read and written.
func copyHashed(w io.Writer, r io.Reader) (Digest, error) {
	block := make([]byte, smallBlock)
	n, err := fillBlock(r, block)
	if err != nil && !ended(err) {
		return Digest{}, err
	}
	if _, writeErr := w.Write(block[:n]); writeErr != nil {
		return Digest{}, writeErr
	}
	if err != nil { // that was all
		sum := sha256.Sum256(block[:n])
		return Digest{Size: int64(n), SHA256: hex.EncodeToString(sum[:])}, nil //nolint:nilerr // the end of r is none
	}
	h := startHasher(block)
	rest, err := copyBlocks(w, r, h)
	sum := h.sum()
	return Digest{Size: int64(n) + rest, SHA256: sum}, err
}

func copyBlocks(w io.Writer, r io.Reader, h *hasher) (copied int64, err error) {
	for {
		block := h.block()
		n, err := fillBlock(r, block)
		h.full <- block[:n] // it is only read from now on, here and there
		written, writeErr := w.Write(block[:n])
		copied += int64(written)
		switch {
		case writeErr != nil:
			return copied, writeErr
		case ended(err):
			return copied, nil
		case err != nil:
			return copied, err
		}
	}
}

// ended reports whether a reader has come to its end. An error that only wraps
// io.EOF, such as that of a connection that was cut, is not that.
func ended(err error) bool {
	return err == io.EOF //nolint:errorlint // see above
}

// fillBlock reads until block is full or r ends. Unlike io.ReadFull it passes on
// what r says: io.ErrUnexpectedEOF is its own.
func fillBlock(r io.Reader, block []byte) (n int, err error) {
	for n < len(block) && err == nil {
		var more int
		more, err = r.Read(block[n:])
		n += more
	}
	return n, err
}

// A hasher hashes blocks in a goroutine, which ends with sum.
type hasher struct {
	full   chan []byte
	free   chan []byte
	result chan string
	made   int
}

func startHasher(first []byte) *hasher {
	h := &hasher{full: make(chan []byte, largeBlocks), free: make(chan []byte, largeBlocks), result: make(chan string, 1)}
	go func() {
		s := sha256.New()
		s.Write(first)
		for block := range h.full {
			s.Write(block)
			h.free <- block[:cap(block)]
		}
		h.result <- hex.EncodeToString(s.Sum(nil))
	}()
	return h
}

// block returns one that may be written to.
func (h *hasher) block() []byte {
	if h.made < largeBlocks {
		select {
		case b := <-h.free:
			return b
		default:
			h.made++
			return newBlock()
		}
	}
	return <-h.free
}

// sum ends the goroutine and returns the SHA-256 of what it was given.
func (h *hasher) sum() string {
	close(h.full)
	return <-h.result
}

// SyncFile makes the content of a file that somebody else wrote durable, and
// returns its digest. Nobody may write to it any more. Where that fails with
// ErrLost, to ask again would make what is left of it durable, and call it good.
func SyncFile(path string) (Digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return Digest{}, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	var synced bool
	done := make(chan error, 1)
	go func() { // the medium is slow and the hash is slow: both at once
		var err error
		synced, err = syncFile(f)
		done <- err
	}()
	d, err := copyHashed(io.Discard, f)
	syncErr := <-done
	if err != nil {
		return Digest{}, fmt.Errorf("hash %s: %w", path, err)
	}
	if syncErr != nil {
		return Digest{}, fmt.Errorf("sync %s: %w: %w", path, ErrLost, syncErr)
	}
	d.Synced = synced
	return d, nil
}

// Hash returns the digest of what r has.
func Hash(r io.Reader) (Digest, error) { return copyHashed(io.Discard, r) }

// HashFile returns the digest of a file.
func HashFile(path string) (Digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return Digest{}, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	d, err := Hash(f)
	if err != nil {
		return Digest{}, fmt.Errorf("hash %s: %w", path, err)
	}
	return d, nil
}
