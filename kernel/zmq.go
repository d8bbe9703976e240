package kernel

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/go-zeromq/zmq4"
	"github.com/go-zeromq/zmq4/security/null"
)

// Limits of what a peer may send. They are far above what Jupyter sends, and
// keep a stray program from taking all memory before its signature is checked.
const (
	handshakeTimeout = 5 * time.Second
	maxHandshake     = 4096    // bytes of a peer's metadata
	maxFrame         = 1 << 30 // bytes
	maxFrames        = 4096    // of one message
	readChunk        = 1 << 20 // bytes that are believed before they have come
	ioBuffer         = 64 << 10
)

// Flags of a ZMTP frame: https://rfc.zeromq.org/spec/23/.
const (
	flagMore    = 1
	flagLong    = 2
	flagCommand = 4
)

var errFrame = errors.New("frame beyond the limits")

// A link is one ZMTP connection. zmq4 shakes hands and writes; listening,
// queues, limits and closing are ours, because zmq4's sockets lose what is
// queued when they close, wait for the slowest peer, and allocate what a peer
// merely announces.
//
// One goroutine may receive while another sends.
type link struct {
	raw      net.Conn
	conn     *zmq4.Conn
	r        *bufio.Reader
	w        *bufio.Writer
	identity string // the peer's; may be empty
}

// shake performs the handshake on raw, which it closes on an error. It never
// panics, whatever the peer sends.
func shake(raw net.Conn, typ zmq4.SocketType, identity string, server bool) (l *link, err error) {
	defer func() {
		if r := recover(); r != nil { // zmq4 does not check lengths
			err = fmt.Errorf("handshake: %v", r)
		}
		if err != nil {
			raw.Close() //nolint:errcheck // there is nothing to lose
		}
	}()
	if err := raw.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, err
	}
	l = &link{raw: raw, r: bufio.NewReaderSize(raw, ioBuffer), w: bufio.NewWriterSize(raw, ioBuffer)}
	pipe := &handshake{link: l, open: true}
	l.conn, err = zmq4.Open(pipe, null.Security(), typ, zmq4.SocketIdentity(identity), server, nil)
	if err != nil {
		return nil, err
	}
	pipe.open = false
	l.identity = l.conn.Peer.Meta["Identity"]
	return l, raw.SetDeadline(time.Time{})
}

// handshake is the net.Conn that zmq4 is given. During the handshake every
// write goes out at once, and the length of the peer's first frame is checked
// before zmq4 believes it.
type handshake struct {
	*link
	open bool
	seen []byte // the greeting and the head of the first frame
}

const greetingSize = 64

// Read implements net.Conn.
func (h *handshake) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	if room := greetingSize + 9 - len(h.seen); room > 0 {
		h.seen = append(h.seen, p[:min(n, room)]...)
	}
	if head := h.seen[min(len(h.seen), greetingSize):]; len(head) > 0 && head[0]&flagLong != 0 {
		var size [8]byte
		copy(size[:], head[1:])
		if binary.BigEndian.Uint64(size[:]) > maxHandshake {
			return 0, errFrame
		}
	}
	return n, err
}

// Write implements net.Conn.
func (h *handshake) Write(p []byte) (int, error) {
	n, err := h.w.Write(p)
	if err == nil && h.open {
		err = h.w.Flush()
	}
	return n, err
}

// The rest of net.Conn is the socket's own.
func (h *handshake) Close() error                       { return h.raw.Close() }
func (h *handshake) LocalAddr() net.Addr                { return h.raw.LocalAddr() }
func (h *handshake) RemoteAddr() net.Addr               { return h.raw.RemoteAddr() }
func (h *handshake) SetDeadline(t time.Time) error      { return h.raw.SetDeadline(t) }
func (h *handshake) SetReadDeadline(t time.Time) error  { return h.raw.SetReadDeadline(t) }
func (h *handshake) SetWriteDeadline(t time.Time) error { return h.raw.SetWriteDeadline(t) }

// send writes one message. It is on its way once flush was called.
func (l *link) send(frames [][]byte) error { return l.conn.SendMsg(zmq4.NewMsgFrom(frames...)) }

func (l *link) flush() error { return l.w.Flush() }

// receive reads one message. Commands, such as a peer's PING, are passed over:
// as a ZMTP 3.0 peer we are owed none.
func (l *link) receive() ([][]byte, error) {
	var frames [][]byte
	for {
		flags, body, err := l.frame()
		if err != nil {
			return nil, err
		}
		if flags&flagCommand != 0 {
			continue
		}
		if frames = append(frames, body); len(frames) > maxFrames {
			return nil, errFrame
		}
		if flags&flagMore == 0 {
			return frames, nil
		}
	}
}

func (l *link) frame() (flags byte, body []byte, err error) {
	if flags, err = l.r.ReadByte(); err != nil {
		return 0, nil, err
	}
	var size uint64
	if flags&flagLong != 0 {
		var long [8]byte
		_, err = io.ReadFull(l.r, long[:])
		size = binary.BigEndian.Uint64(long[:])
	} else {
		var short byte
		short, err = l.r.ReadByte()
		size = uint64(short)
	}
	if err != nil {
		return 0, nil, err
	}
	if size > maxFrame {
		return 0, nil, errFrame
	}
	body, err = readBody(l.r, int(size))
	return flags, body, err
}

// readBody reads size bytes. It allocates as they come.
func readBody(r io.Reader, size int) ([]byte, error) {
	body := make([]byte, min(size, readChunk))
	for at := 0; ; {
		n, err := io.ReadFull(r, body[at:])
		if err != nil {
			return nil, err
		}
		if at += n; at == size {
			return body, nil
		}
		body = append(body, make([]byte, min(size-at, len(body)))...)
	}
}

// close ends the connection; what waits in receive or send fails.
func (l *link) close() { l.raw.Close() } //nolint:errcheck // nobody is left to tell

// dialInterval is how often a peer that does not listen yet is tried again.
const dialInterval = 5 * time.Millisecond

// dial connects to a peer that may still be starting. It tries until ctx ends.
func dial(ctx context.Context, network, address string, typ zmq4.SocketType, identity string) (*link, error) {
	var d net.Dialer
	for {
		raw, err := d.DialContext(ctx, network, address)
		if err == nil {
			return shake(raw, typ, identity, false)
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), err)
		case <-time.After(dialInterval):
		}
	}
}

// finish closes a connection whose messages are all written. Closing at once
// would throw away what the peer has not read yet if we have not read all of
// its own: so it is told first, and given a moment to close its end.
func (l *link) finish() {
	if half, ok := l.raw.(interface{ CloseWrite() error }); ok {
		half.CloseWrite() //nolint:errcheck // it is closed in any case
	}
	time.AfterFunc(finishGrace, l.close)
}

// finishGrace is how long a peer may take to close its end.
const finishGrace = 250 * time.Millisecond
