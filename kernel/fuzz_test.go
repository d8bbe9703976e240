package kernel

import (
	"bytes"
	"net"
	"testing"
	"time"

	"github.com/go-zeromq/zmq4"

	"outlast/kernel/kerneltest"
)

// said is a connection whose other end has said something, and closed.
type said struct {
	net.Conn // nothing but what is below is called
	*bytes.Reader
}

func (said) Write(p []byte) (int, error)        { return len(p), nil }
func (s said) Read(p []byte) (int, error)       { return s.Reader.Read(p) }
func (said) Close() error                       { return nil }
func (said) SetDeadline(time.Time) error        { return nil }
func (said) SetWriteDeadline(t time.Time) error { return nil }

// FuzzHandshake lets a peer say anything, from its first byte on. Whatever it is,
// a handshake ends and takes no more memory than it was sent.
func FuzzHandshake(f *testing.F) {
	for _, typ := range []kerneltest.SocketType{kerneltest.Dealer, kerneltest.Sub, kerneltest.Req, "X"} {
		f.Add(append(kerneltest.Greeting(), kerneltest.Ready(typ, "identity")...), true)
	}
	f.Add(kerneltest.Greeting(), false)
	f.Add(append(kerneltest.Greeting(), 6, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), true)
	f.Add(append(kerneltest.Greeting(), 5, 1, 'x', 2, 0, 0, 0, 0x20, 0, 0, 0, 0), true)
	f.Fuzz(func(t *testing.T, text []byte, server bool) {
		for _, typ := range []zmq4.SocketType{zmq4.Router, zmq4.XPub, zmq4.Rep} {
			l, err := shake(said{Reader: bytes.NewReader(text)}, typ, "", server)
			if (l == nil) == (err == nil) {
				t.Fatalf("link %v, error %v", l, err)
			}
		}
	})
}

// FuzzReceive lets a peer say anything after its handshake. Messages come out as
// they were sent, until something is wrong.
func FuzzReceive(f *testing.F) {
	f.Add([]byte("\x01\x02ab\x00\x01c"))
	f.Add([]byte("\x03\x00\x00\x00\x00\x00\x00\x01\x00\x00"))
	f.Add([]byte{2, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Add(append([]byte("\x04\x0d\x04PING\x00\x01context"), "\x00\x01x"...))
	f.Fuzz(func(t *testing.T, text []byte) {
		hello := append(kerneltest.Greeting(), kerneltest.Ready(kerneltest.Dealer, "")...)
		l, err := shake(said{Reader: bytes.NewReader(append(hello, text...))}, zmq4.Router, "", true)
		if err != nil {
			t.Fatal(err)
		}
		bytes := 0
		for {
			frames, err := l.receive()
			if err != nil {
				return
			}
			if len(frames) == 0 {
				t.Fatal("a message without frames")
			}
			for _, frame := range frames {
				bytes += len(frame)
			}
			if bytes > len(text) {
				t.Fatalf("%d bytes out of %d", bytes, len(text))
			}
		}
	})
}
