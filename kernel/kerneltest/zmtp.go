// Package kerneltest plays the two ends between which the kernel stands: a
// front end and a wrapped kernel. Both are stricter than the real ones: they
// refuse what is signed wrongly, sent twice, or no frame that they know.
//
// It speaks ZMTP by itself, so that a mistake in the kernel's own use of it
// meets another opinion: https://rfc.zeromq.org/spec/23/.
package kerneltest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// A SocketType is a ZeroMQ socket type.
type SocketType string

// The socket types that Jupyter uses.
const (
	Dealer SocketType = "DEALER"
	Router SocketType = "ROUTER"
	Sub    SocketType = "SUB"
	XPub   SocketType = "XPUB"
	Req    SocketType = "REQ"
	Rep    SocketType = "REP"
)

// Flags of a frame.
const (
	flagMore    = 1
	flagLong    = 2
	flagCommand = 4
)

// A Conn is one ZMTP connection. One goroutine may receive while others send.
type Conn struct {
	Raw          net.Conn
	PeerType     SocketType
	PeerIdentity string

	r       *bufio.Reader
	writing sync.Mutex
}

// Dial connects and shakes hands.
func Dial(network, address string, typ SocketType, identity string) (*Conn, error) {
	raw, err := net.Dial(network, address)
	if err != nil {
		return nil, err
	}
	return Open(raw, typ, identity)
}

// Open shakes hands on raw, which it closes on an error.
func Open(raw net.Conn, typ SocketType, identity string) (*Conn, error) {
	c := &Conn{Raw: raw, r: bufio.NewReader(raw)}
	if err := c.shake(typ, identity); err != nil {
		raw.Close() //nolint:errcheck // the first error counts
		return nil, fmt.Errorf("handshake: %w", err)
	}
	return c, nil
}

// Greeting returns what a peer says first.
func Greeting() []byte {
	g := make([]byte, 64)
	g[0], g[9], g[10] = 0xff, 0x7f, 3
	copy(g[12:], "NULL")
	return g
}

// Ready returns the command that ends a handshake.
func Ready(typ SocketType, identity string) []byte {
	body := []byte("\x05READY")
	for _, p := range [][2]string{{"Socket-Type", string(typ)}, {"Identity", identity}} {
		body = append(body, byte(len(p[0])))
		body = append(body, p[0]...)
		body = binary.BigEndian.AppendUint32(body, uint32(len(p[1])))
		body = append(body, p[1]...)
	}
	return Frame(flagCommand, body)
}

// Frame returns one frame as it is sent.
func Frame(flags byte, body []byte) []byte {
	if len(body) < 256 {
		return append([]byte{flags, byte(len(body))}, body...)
	}
	head := binary.BigEndian.AppendUint64([]byte{flags | flagLong}, uint64(len(body)))
	return append(head, body...)
}

var errGreeting = errors.New("no ZMTP 3 greeting")

func (c *Conn) shake(typ SocketType, identity string) error {
	if _, err := c.Raw.Write(append(Greeting(), Ready(typ, identity)...)); err != nil {
		return err
	}
	var g [64]byte
	if _, err := io.ReadFull(c.r, g[:]); err != nil {
		return err
	}
	if g[0] != 0xff || g[9] != 0x7f || g[10] < 3 || !bytes.HasPrefix(g[12:], []byte("NULL\x00")) {
		return errGreeting
	}
	flags, body, err := c.frame()
	if err != nil {
		return err
	}
	rest, ready := bytes.CutPrefix(body, []byte("\x05READY"))
	if flags != flagCommand || !ready {
		return fmt.Errorf("%q is not READY", body)
	}
	for len(rest) > 0 {
		name, value, after, err := property(rest)
		if err != nil {
			return err
		}
		switch name {
		case "Socket-Type":
			c.PeerType = SocketType(value)
		case "Identity":
			c.PeerIdentity = value
		default:
			return fmt.Errorf("property %q was not asked for", name)
		}
		rest = after
	}
	return nil
}

func property(b []byte) (name, value string, rest []byte, err error) {
	if len(b) < 1 || len(b) < 1+int(b[0])+4 {
		return "", "", nil, io.ErrUnexpectedEOF
	}
	name, b = string(b[1:1+b[0]]), b[1+b[0]:]
	size := int(binary.BigEndian.Uint32(b))
	if b = b[4:]; len(b) < size {
		return "", "", nil, io.ErrUnexpectedEOF
	}
	return name, string(b[:size]), b[size:], nil
}

// Send sends one message. All of it is written at once.
func (c *Conn) Send(frames ...[]byte) error {
	var out []byte
	for i, f := range frames {
		var flags byte
		if i < len(frames)-1 {
			flags = flagMore
		}
		out = append(out, Frame(flags, f)...)
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	_, err := c.Raw.Write(out)
	return err
}

// Receive receives one message. A command, or a flag that ZMTP does not know, is
// an error.
func (c *Conn) Receive() ([][]byte, error) {
	var frames [][]byte
	for {
		flags, body, err := c.frame()
		if err != nil {
			return nil, err
		}
		if flags&^(flagMore|flagLong) != 0 {
			return nil, fmt.Errorf("frame with flags %#x", flags)
		}
		frames = append(frames, body)
		if flags&flagMore == 0 {
			return frames, nil
		}
	}
}

func (c *Conn) frame() (flags byte, body []byte, err error) {
	if flags, err = c.r.ReadByte(); err != nil {
		return 0, nil, err
	}
	size := make([]byte, 1)
	if flags&flagLong != 0 {
		size = make([]byte, 8)
	}
	if _, err = io.ReadFull(c.r, size); err != nil {
		return 0, nil, err
	}
	n := uint64(size[0])
	if len(size) == 8 {
		if n = binary.BigEndian.Uint64(size); n < 256 {
			return 0, nil, fmt.Errorf("a long frame of %d bytes", n)
		}
	}
	body = make([]byte, n)
	_, err = io.ReadFull(c.r, body)
	return flags, body, err
}

// Close closes the connection at once.
func (c *Conn) Close() { c.Raw.Close() } //nolint:errcheck // nobody is left to tell
