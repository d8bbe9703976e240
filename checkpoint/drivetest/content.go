package drivetest

import (
	"bytes"
	"crypto/md5" //nolint:gosec // Drive tells it
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"os"
)

// inMemory is how large content may be that is not put into a file.
const inMemory = 1 << 20

// A content is bytes that arrive piece by piece.
type content struct {
	size   int64
	memory []byte
	disk   *os.File
	md5    hash.Hash
	sha    hash.Hash
}

func newContent() *content { return &content{md5: md5.New(), sha: sha256.New()} } //nolint:gosec // see above

// add appends p.
func (c *content) add(s *Server, p []byte) (err error) {
	if s.opts.Discard {
		c.size += int64(len(p))
		c.md5.Write(p)
		c.sha.Write(p)
		return nil
	}
	if c.disk == nil && c.size+int64(len(p)) > inMemory {
		if c.disk, err = s.tempFile(); err != nil {
			return err
		}
		if _, err = c.disk.Write(c.memory); err != nil {
			return err
		}
		c.memory = nil
	}
	if c.disk != nil {
		_, err = c.disk.Write(p)
	} else {
		c.memory = append(c.memory, p...)
	}
	c.size += int64(len(p))
	c.md5.Write(p)
	c.sha.Write(p)
	return err
}

// cut takes bytes off the end.
func (c *content) cut(s *Server, size int64) error {
	data, err := io.ReadAll(io.LimitReader(c.reader(), size))
	if err != nil {
		return err
	}
	fresh := newContent()
	if err := fresh.add(s, data); err != nil {
		return err
	}
	*c = *fresh
	return nil
}

// flip changes one bit of what is stored, and not what is told of it.
func (c *content) flip(offset int64) {
	if c.size == 0 {
		return
	}
	offset %= c.size
	if c.disk == nil {
		c.memory = bytes.Clone(c.memory)
		c.memory[offset] ^= 1
		return
	}
	var b [1]byte
	_, err := c.disk.ReadAt(b[:], offset)
	b[0] ^= 1
	_, err2 := c.disk.WriteAt(b[:], offset)
	if err := errors.Join(err, err2); err != nil {
		panic(err) // the test's disk is full
	}
}

func (c *content) reader() *io.SectionReader {
	if c.disk != nil {
		return io.NewSectionReader(c.disk, 0, c.size)
	}
	return io.NewSectionReader(bytes.NewReader(c.memory), 0, c.size)
}

// stored is how much is really there: less than size after Truncate.
func (c *content) stored() int64 {
	if c.disk == nil {
		return int64(len(c.memory))
	}
	info, err := c.disk.Stat()
	if err != nil {
		panic(err) // the test's disk is broken
	}
	return info.Size()
}

func hexOf(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

func (c *content) bytes() ([]byte, error) { return io.ReadAll(c.reader()) }

// damage changes one bit that was received: the checksums are those of what is
// stored.
func (c *content) damage(s *Server) {
	data, err := c.bytes()
	if err != nil || len(data) == 0 {
		return
	}
	data[s.random.IntN(len(data))] ^= 1
	fresh := newContent()
	if err := fresh.add(s, data); err != nil {
		panic(err) // the test's disk is full
	}
	*c = *fresh
}
