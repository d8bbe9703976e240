//go:build unix

package kernel

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-zeromq/zmq4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/kernel/kerneltest"
)

// open opens a socket that answers each message with itself.
func open(t *testing.T, typ zmq4.SocketType) (*socket, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "kt")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // a folder in the system's own
	path := filepath.Join(dir, "s")
	s := &socket{name: "test", typ: typ, log: slog.New(slog.DiscardHandler)}
	s.received = func(p *peer, frames [][]byte) { s.reply(p.id, frames) }
	require.NoError(t, s.listen(t.Context(), "unix", path))
	t.Cleanup(s.close)
	return s, path
}

func join(t *testing.T, path string, typ kerneltest.SocketType, identity string) *kerneltest.Conn {
	t.Helper()
	c, err := kerneltest.Dial("unix", path, typ, identity)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	require.NoError(t, c.Raw.SetDeadline(time.Now().Add(kerneltest.Patience)))
	return c
}

func echo(t *testing.T, c *kerneltest.Conn, text string) {
	t.Helper()
	require.NoError(t, c.Send([]byte(text)))
	got, err := c.Receive()
	require.NoError(t, err)
	assert.Equal(t, [][]byte{[]byte(text)}, got)
}

func TestWhoNeverShakesHandsHoldsUpNobody(t *testing.T) {
	_, path := open(t, zmq4.Router)
	for i := range 20 {
		raw, err := (&net.Dialer{}).DialContext(t.Context(), "unix", path)
		require.NoError(t, err)
		defer raw.Close() //nolint:errcheck // it was never written to
		if i%2 == 0 {
			_, err = raw.Write(kerneltest.Greeting()[:i])
			require.NoError(t, err)
		}
	}
	echo(t, join(t, path, kerneltest.Dealer, ""), "hello")
}

func TestPeersThatDoNotFitAreRefused(t *testing.T) {
	for name, typ := range map[string]kerneltest.SocketType{"subscriber": kerneltest.Sub, "publisher": "PUB", "none": ""} {
		t.Run(name, func(t *testing.T) {
			_, path := open(t, zmq4.Router)
			raw, err := (&net.Dialer{}).DialContext(t.Context(), "unix", path)
			require.NoError(t, err)
			c, err := kerneltest.Open(raw, typ, "")
			if err == nil {
				_, err = c.Receive()
			}
			assert.Error(t, err)
			echo(t, join(t, path, kerneltest.Dealer, ""), "hello")
		})
	}
}

func TestLengthsAreNotBelieved(t *testing.T) {
	huge := [][]byte{
		{flagCommand | flagLong, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		{flagCommand | flagLong, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		{flagCommand | flagLong, 0, 0, 0, 0x20, 0, 0, 0, 0}, // 128 GiB: the allocation would be fatal
		{flagLong, 0, 0, 0, 0x20, 0, 0, 0, 0},
		{flagMore, 0, flagLong, 0, 0, 0, 0x20, 0, 0, 0, 0},
		{flagCommand | flagMore, 1, 'x', flagLong, 0, 0, 0, 0x20, 0, 0, 0, 0},
	}
	ready := kerneltest.Ready(kerneltest.Dealer, "")
	_, path := open(t, zmq4.Router)
	for i, frame := range huge {
		for _, before := range [][]byte{nil, ready} {
			raw, err := (&net.Dialer{}).DialContext(t.Context(), "unix", path)
			require.NoError(t, err)
			require.NoError(t, raw.SetDeadline(time.Now().Add(kerneltest.Patience)))
			_, err = raw.Write(append(append(kerneltest.Greeting(), before...), frame...))
			require.NoError(t, err)
			if before != nil && frame[0] == flagCommand|flagMore {
				raw.Close() //nolint:errcheck // a command of an unknown kind, then nothing
				continue
			}
			_, err = raw.Read(make([]byte, 1024))
			for err == nil {
				_, err = raw.Read(make([]byte, 1024))
			}
			assert.NotErrorIs(t, err, os.ErrDeadlineExceeded, "frame %d: the connection must end", i)
		}
	}
	echo(t, join(t, path, kerneltest.Dealer, ""), "hello")
}

func TestTooManyFramesEndTheConnectionOnly(t *testing.T) {
	_, path := open(t, zmq4.Router)
	frames := make([][]byte, maxFrames+1)
	bad := join(t, path, kerneltest.Dealer, "")
	require.NoError(t, bad.Send(frames...))
	_, err := bad.Receive()
	require.Error(t, err)
	good := join(t, path, kerneltest.Dealer, "")
	require.NoError(t, good.Send(frames[1:]...))
	got, err := good.Receive()
	require.NoError(t, err)
	assert.Len(t, got, maxFrames)
}

func TestAPingIsAnswered(t *testing.T) {
	_, path := open(t, zmq4.Router)
	c := join(t, path, kerneltest.Dealer, "")
	_, err := c.Raw.Write(kerneltest.Frame(flagCommand, []byte("\x04PING\x00\x0acontext")))
	require.NoError(t, err)
	pong := kerneltest.Frame(flagCommand, []byte("\x04PONGcontext"))
	got := make([]byte, len(pong))
	_, err = c.Raw.Read(got)
	require.NoError(t, err)
	assert.Equal(t, pong, got)
	echo(t, c, "hello")
}

func TestARouterHandsAnIdentityOver(t *testing.T) {
	s, path := open(t, zmq4.Router)
	old := join(t, path, kerneltest.Dealer, "me")
	echo(t, old, "1")
	again := join(t, path, kerneltest.Dealer, "me")
	echo(t, again, "2")
	_, err := old.Receive()
	assert.Error(t, err, "the old connection ends")
	s.reply("me", [][]byte{[]byte("3")})
	got, err := again.Receive()
	require.NoError(t, err)
	assert.Equal(t, "3", string(got[0]))
}

func TestAClientThatDoesNotReadItsAnswersHoldsUpNobody(t *testing.T) {
	_, path := open(t, zmq4.Router)
	deaf := join(t, path, kerneltest.Dealer, "deaf")
	large := make([]byte, 1<<20)
	for range 8 { // far more than a connection holds
		require.NoError(t, deaf.Send(large))
	}
	other := join(t, path, kerneltest.Dealer, "other")
	for range 100 {
		echo(t, other, "hello")
	}
	for range 8 {
		got, err := deaf.Receive()
		require.NoError(t, err)
		assert.Len(t, got[0], len(large), "it has missed nothing")
	}
}

func TestSubscribersOfOneIdentityAreTwo(t *testing.T) {
	s, path := open(t, zmq4.XPub)
	first, second := join(t, path, kerneltest.Sub, "me"), join(t, path, kerneltest.Sub, "me")
	require.Eventually(t, func() bool { return len(s.all()) == 2 }, kerneltest.Patience, time.Millisecond)
	for _, p := range s.all() {
		s.send(p, [][]byte{[]byte("both")})
	}
	for _, c := range []*kerneltest.Conn{first, second} {
		_, err := c.Receive()
		assert.NoError(t, err)
	}
}

func TestNobodyTakesTheNameThatWeGiveOthers(t *testing.T) {
	s, path := open(t, zmq4.Router)
	nameless := join(t, path, kerneltest.Dealer, "")
	echo(t, nameless, "1")
	thief := join(t, path, kerneltest.Dealer, s.all()[0].id)
	echo(t, thief, "2")
	echo(t, nameless, "3")
}

func TestClosingDeliversWhatIsQueued(t *testing.T) {
	s, path := open(t, zmq4.XPub)
	c := join(t, path, kerneltest.Sub, "")
	require.Eventually(t, func() bool { return len(s.all()) == 1 }, kerneltest.Patience, time.Millisecond)
	const messages = 500
	for i := range messages {
		s.send(s.all()[0], [][]byte{fmt.Appendf(nil, "%d %01000d", i, 0)})
	}
	ended := make(chan struct{})
	go func() { defer close(ended); s.close() }()
	for i := range messages {
		got, err := c.Receive()
		require.NoError(t, err, "message %d", i)
		require.Contains(t, string(got[0]), fmt.Sprintf("%d ", i))
	}
	c.Close()
	<-ended
}

func TestClosingDoesNotWaitForWhoDoesNotRead(t *testing.T) {
	s, path := open(t, zmq4.XPub)
	join(t, path, kerneltest.Sub, "")
	require.Eventually(t, func() bool { return len(s.all()) == 1 }, kerneltest.Patience, time.Millisecond)
	s.send(s.all()[0], [][]byte{make([]byte, 32<<20)})
	began := time.Now()
	s.close()
	assert.Less(t, time.Since(began), 5*drainLimit)
}

// brokenListener accepts nothing.
type brokenListener struct {
	net.Listener
	tries  atomic.Int64
	closed chan struct{}
}

var errBroken = errors.New("too many open files")

func (l *brokenListener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
		l.tries.Add(1)
		return nil, errBroken
	}
}

func TestALastingFailureToAcceptTakesNoProcessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &brokenListener{closed: make(chan struct{})}
		s := &socket{name: "test", log: slog.New(slog.DiscardHandler), listener: l}
		s.serving.Go(s.accept)
		time.Sleep(time.Minute)
		assert.Less(t, l.tries.Load(), int64(80))
		assert.Greater(t, l.tries.Load(), int64(50), "it goes on trying")
		close(l.closed)
		s.serving.Wait()
	})
}

func TestTheFileOfADeadSocketIsReplacedALiveOneNot(t *testing.T) {
	_, path := open(t, zmq4.Router)
	second := &socket{name: "second", typ: zmq4.Router, log: slog.New(slog.DiscardHandler)}
	require.ErrorContains(t, second.listen(t.Context(), "unix", path), "open the second socket")
	echo(t, join(t, path, kerneltest.Dealer, ""), "the first one lives")

	dead := path + "2"
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", dead)
	require.NoError(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as after SIGKILL
	require.NoError(t, l.Close())
	require.NoError(t, second.listen(t.Context(), "unix", dead))
	second.close()

	file := path + "3"
	require.NoError(t, os.WriteFile(file, []byte("precious"), 0o600))
	require.Error(t, second.listen(t.Context(), "unix", file))
	assert.FileExists(t, file)
}
