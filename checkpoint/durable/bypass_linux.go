package durable

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// alignment is what O_DIRECT asks of addresses, lengths and offsets. File systems
// want their device's sectors, which are no larger than this; see open(2).
const alignment = 4096

// A bypass writes large blocks to a file past the page cache: content that only
// has to be safe costs no memory then, and no time to keep pages, write them back
// and drop them again (docs/performance.md). What does not fit the alignment, or
// a file system that has no such way, is written as ever.
type bypass struct {
	f      *os.File
	direct bool // as the file is now
	never  bool // its file system refuses
}

// Write implements io.Writer.
func (b *bypass) Write(p []byte) (int, error) {
	b.set(!b.never && len(p) >= largeBlock && len(p)%alignment == 0)
	n, err := b.f.Write(p)
	if b.direct && errors.Is(err, unix.EINVAL) {
		b.never = true
		b.set(false)
		var rest int
		rest, err = b.f.Write(p[n:])
		n += rest
	}
	return n, err
}

// set changes the file's flag.
func (b *bypass) set(direct bool) {
	if b.direct == direct {
		return
	}
	fd := b.f.Fd()
	flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
	if direct {
		flags |= unix.O_DIRECT
	} else {
		flags &^= unix.O_DIRECT
	}
	if err == nil {
		_, err = unix.FcntlInt(fd, unix.F_SETFL, flags)
	}
	if err != nil {
		b.never = true
		return
	}
	b.direct = direct
}

// newBlock returns a large block where O_DIRECT wants it.
func newBlock() []byte {
	block := make([]byte, largeBlock+alignment)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(block)))) & (alignment - 1)
	return block[skip : skip+largeBlock : skip+largeBlock]
}
