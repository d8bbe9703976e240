package kernel

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
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
	maxMessage       = 1 << 30 // bytes of all its frames
	maxFrames        = 4096    // of one message of a stranger
	readChunk        = 1 << 20 // bytes that a stranger is believed before they have come
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
	raw      io.ReadWriteCloser
	conn     *zmq4.Conn
	in       inlet
	r        *bufio.Reader // from in
	w        *bufio.Writer // to out
	out      outlet
	identity string // the peer's; may be empty
	trusted  int    // bytes that the peer is believed before they have come

	writing sync.Mutex // the answer to a PING comes between two messages
	closing sync.Mutex // raw is not replaced meanwhile
}

func newLink(raw net.Conn) *link {
	d := direct(raw)
	l := &link{raw: raw, in: inlet{raw, d}, out: outlet{raw: raw, direct: d}, trusted: readChunk}
	l.r = bufio.NewReaderSize(&l.in, ioBuffer)
	l.w = bufio.NewWriterSize(&l.out, ioBuffer)
	return l
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
			l = nil
		}
	}()
	if err := raw.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, err
	}
	l = newLink(raw)
	pipe := &handshake{Conn: raw, link: l, open: true}
	l.conn, err = zmq4.Open(pipe, null.Security(), typ, zmq4.SocketIdentity(identity), server, nil)
	if err != nil {
		return nil, err
	}
	pipe.open = false
	if id := l.conn.Peer.Meta["Identity"]; !strings.HasPrefix(id, "\x00") { // such are ours to give
		l.identity = id
	}
	return l, raw.SetDeadline(time.Time{})
}

// handshake is the net.Conn that zmq4 is given. During the handshake every
// write goes out at once, and zmq4 reads what was read and checked before: one
// greeting, then one command, and nothing else. It would believe any length.
type handshake struct {
	net.Conn

	link    *link
	open    bool
	checked []byte // of what was read, zmq4 has not seen this
	stage   int
}

const greetingSize = 64

// Read implements net.Conn.
func (h *handshake) Read(p []byte) (int, error) {
	if len(h.checked) == 0 {
		h.stage++
		var err error
		switch h.stage {
		case 1:
			h.checked, err = readBody(h.link.r, greetingSize, readChunk)
		case 2:
			h.checked, err = h.command()
		default:
			err = errFrame
		}
		if err != nil {
			return 0, err
		}
	}
	n := copy(p, h.checked)
	h.checked = h.checked[n:]
	return n, nil
}

// command reads a frame that holds a command, head included.
func (h *handshake) command() ([]byte, error) {
	flags, size, err := h.link.head()
	if err != nil {
		return nil, err
	}
	if flags&^flagLong != flagCommand || size > maxHandshake {
		return nil, errFrame
	}
	body, err := readBody(h.link.r, int(size), readChunk)
	if err != nil {
		return nil, err
	}
	head := binary.BigEndian.AppendUint64([]byte{flagCommand | flagLong}, size)
	return append(head, body...), nil
}

// Write implements net.Conn.
func (h *handshake) Write(p []byte) (int, error) {
	n, err := h.link.w.Write(p)
	if err == nil && h.open {
		err = h.link.w.Flush()
	}
	return n, err
}

// rest lets the reader sleep, where it can be without being woken by what arrives.
// That takes a quiet connection, which it becomes then, for good: to be woken takes
// some microseconds longer there. Only for a link to which nobody else writes.
func (l *link) rest(d time.Duration) {
	if raw, ok := l.raw.(net.Conn); ok {
		l.hush(raw)
	}
	if q, ok := l.raw.(interface{ rest(d time.Duration) }); ok {
		q.rest(d)
		return
	}
	time.Sleep(d)
}

func (l *link) hush(raw net.Conn) {
	l.closing.Lock()
	defer l.closing.Unlock()
	if q := hush(raw); q != io.ReadWriteCloser(raw) {
		l.raw, l.in, l.out = q, inlet{raw: q}, outlet{raw: q}
	}
}

// send writes messages, and waits until the connection has taken them.
func (l *link) send(batch []parcel) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.writeAll(batch); err != nil {
		return err
	}
	if err := l.w.Flush(); err != nil {
		return err
	}
	return l.out.flush()
}

// try writes messages as far as the connection takes them without waiting, and
// returns how many bytes are left for send. It reports false if it wrote
// nothing, since somebody else writes.
func (l *link) try(batch []parcel) (rest int, ok bool) {
	if !l.out.canTry() || !l.writing.TryLock() {
		return 0, false
	}
	defer l.writing.Unlock()
	l.out.trying = true
	defer func() { l.out.trying = false }()
	err := l.writeAll(batch)
	if err == nil {
		err = l.w.Flush()
	}
	if err != nil {
		l.close() // its reader notices
		return 0, true
	}
	return len(l.out.rest), true
}

// writeAll puts messages into the buffer. The caller holds writing.
func (l *link) writeAll(batch []parcel) error {
	for _, p := range batch {
		if p.frames == nil {
			continue // replaced by a later one, or in out already
		}
		if err := l.conn.SendMsg(zmq4.NewMsgFrom(p.message()...)); err != nil {
			return err
		}
	}
	return nil
}

// receive reads one message. A PING is answered, as peers of ZMTP 3.1 expect;
// other commands are passed over.
func (l *link) receive() ([][]byte, error) {
	var frames [][]byte
	var total uint64
	for {
		flags, size, err := l.head()
		if err != nil {
			return nil, err
		}
		if total += size; total > maxMessage || len(frames) == maxFrames && l.stranger() {
			return nil, errFrame
		}
		body, err := readBody(l.r, int(size), l.trusted)
		if err != nil {
			return nil, err
		}
		if flags&flagCommand != 0 {
			if err := l.commanded(body); err != nil {
				return nil, err
			}
			continue
		}
		frames = append(frames, body)
		if flags&flagMore == 0 {
			return frames, nil
		}
	}
}

// stranger reports whether the peer may be anybody, and not the child.
func (l *link) stranger() bool { return l.trusted < maxFrame }

// whole reports whether the next message has come already, whole, so that
// receive does not wait for it.
func (l *link) whole() bool {
	buffered, err := l.r.Peek(l.r.Buffered())
	for err == nil && len(buffered) >= 2 {
		flags, size, head := buffered[0], uint64(buffered[1]), uint64(2)
		if flags&flagLong != 0 {
			if head = 9; uint64(len(buffered)) < head {
				return false
			}
			size = binary.BigEndian.Uint64(buffered[1:head])
		}
		if flags&flagCommand != 0 || size > uint64(len(buffered))-head {
			return false
		}
		if flags&flagMore == 0 {
			return true
		}
		buffered = buffered[head+size:]
	}
	return false
}

// pingSize is what stands before the context in a PING: its name and a time.
const pingSize = len("\x04PING") + 2

// commanded does what a command demands.
func (l *link) commanded(body []byte) error {
	if len(body) < pingSize || string(body[:len("\x04PING")]) != "\x04PING" {
		return nil
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.conn.SendCmd(zmq4.CmdPong, body[pingSize:]); err != nil {
		return err
	}
	return l.w.Flush()
}

// head reads the head of a frame.
func (l *link) head() (flags byte, size uint64, err error) {
	if flags, err = l.r.ReadByte(); err != nil {
		return 0, 0, err
	}
	if flags&flagLong == 0 {
		short, err := l.r.ReadByte()
		return flags, uint64(short), err
	}
	var long [8]byte
	if _, err = io.ReadFull(l.r, long[:]); err != nil {
		return 0, 0, err
	}
	if size = binary.BigEndian.Uint64(long[:]); size > maxFrame {
		return 0, 0, errFrame
	}
	return flags, size, nil
}

// readBody reads size bytes. Beyond trusted it allocates as they come.
func readBody(r io.Reader, size, trusted int) ([]byte, error) {
	body := make([]byte, min(size, trusted))
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
func (l *link) close() {
	l.closing.Lock()
	defer l.closing.Unlock()
	l.raw.Close() //nolint:errcheck // nobody is left to tell
}

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
