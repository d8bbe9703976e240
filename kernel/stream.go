package kernel

import (
	"errors"
	"io"
	"net"
	"syscall"
)

// An inlet reads from a connection.
type inlet struct {
	raw    io.Reader
	direct syscall.RawConn // nil where only raw can be read
}

// An outlet writes to a connection, on demand only what that takes without
// waiting. Its writers take turns.
type outlet struct {
	raw    io.Writer
	direct syscall.RawConn // nil where it cannot be asked not to wait
	trying bool            // do not wait
	rest   []byte          // what the connection did not take
}

// direct returns the descriptor of raw, if there is one that never blocks.
func direct(raw net.Conn) syscall.RawConn {
	c, ok := raw.(syscall.Conn)
	if !ok || !neverBlocks {
		return nil
	}
	d, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	return d
}

// Read implements io.Reader.
func (i *inlet) Read(p []byte) (n int, err error) {
	if i.direct == nil || len(p) == 0 {
		return i.raw.Read(p)
	}
	closed := i.direct.Read(func(fd uintptr) bool {
		n, err = readNow(fd, p)
		return !errors.Is(err, syscall.EAGAIN)
	})
	switch {
	case closed != nil:
		return 0, closed
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func (o *outlet) canTry() bool { return o.direct != nil }

// Write implements io.Writer. While it tries, it takes everything, and keeps
// what the connection does not.
func (o *outlet) Write(p []byte) (int, error) {
	if !o.trying {
		if err := o.flush(); err != nil {
			return 0, err
		}
		return o.raw.Write(p)
	}
	n := 0
	if len(o.rest) == 0 {
		var err error
		if n, err = o.some(p); err != nil {
			return n, err
		}
	}
	o.rest = append(o.rest, p[n:]...)
	return len(p), nil
}

// some writes as much of p as the connection takes now, and returns how much
// that was.
func (o *outlet) some(p []byte) (n int, err error) {
	closed := o.direct.Write(func(fd uintptr) bool {
		n, err = writeNow(fd, p)
		return true
	})
	switch {
	case closed != nil:
		return 0, closed
	case errors.Is(err, syscall.EAGAIN):
		return 0, nil
	case err != nil:
		return 0, err
	}
	return n, nil
}

// flush writes what the connection had not taken.
func (o *outlet) flush() error {
	if len(o.rest) == 0 {
		return nil
	}
	_, err := o.raw.Write(o.rest)
	o.rest = nil
	return err
}
