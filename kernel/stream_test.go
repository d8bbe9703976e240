//go:build unix

package kernel

import (
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-zeromq/zmq4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/kernel/kerneltest"
)

// pair returns two ends of a connection, the first of which takes little at once.
func pair(t *testing.T) (near, far net.Conn) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(t.TempDir(), "s"))
	require.NoError(t, err)
	defer listener.Close() //nolint:errcheck // it has done its work
	far, err = (&net.Dialer{}).DialContext(t.Context(), "unix", listener.Addr().String())
	require.NoError(t, err)
	near, err = listener.Accept()
	require.NoError(t, err)
	unix, ok := near.(*net.UnixConn)
	require.True(t, ok)
	require.NoError(t, unix.SetWriteBuffer(4096))
	for _, c := range []net.Conn{near, far} {
		require.NoError(t, c.SetDeadline(time.Now().Add(kerneltest.Patience)))
		t.Cleanup(func() { c.Close() }) //nolint:errcheck // the test ends
	}
	return near, far
}

func TestWhatTheConnectionDoesNotTakeAtOnceFollowsInOrder(t *testing.T) {
	near, far := pair(t)
	shaken := make(chan *kerneltest.Conn, 1)
	go func() {
		c, err := kerneltest.Open(far, kerneltest.Dealer, "")
		assert.NoError(t, err)
		shaken <- c
	}()
	l, err := shake(near, zmq4.Router, "", true)
	require.NoError(t, err)
	client := <-shaken
	require.NotNil(t, client)

	const messages, size = 400, 900
	o := newOutbox()
	var writer sync.WaitGroup
	writer.Go(func() { o.write(l) })
	for i := range messages { // nobody reads meanwhile
		frame := make([]byte, size)
		binary.BigEndian.PutUint32(frame, uint32(i))
		if i%3 == 0 {
			o.mu.Lock()
			o.holdLocked(newParcel([][]byte{frame}, nil))
			o.mu.Unlock()
			continue
		}
		o.put(newParcel([][]byte{frame}, nil))
	}
	o.release()
	for i := range messages {
		frames, err := client.Receive()
		require.NoError(t, err)
		require.Len(t, frames, 1)
		require.Len(t, frames[0], size)
		require.Equal(t, uint32(i), binary.BigEndian.Uint32(frames[0]))
	}
	o.end(false)
	writer.Wait()
	assert.Equal(t, 0, o.queued)
}

func TestASmallMessageIsWrittenByWhoHasIt(t *testing.T) {
	near, far := pair(t)
	go kerneltest.Open(far, kerneltest.Dealer, "") //nolint:errcheck // the other side sees whether it worked
	l, err := shake(near, zmq4.Router, "", true)
	require.NoError(t, err)
	o := newOutbox()
	o.idle = l // as if the writer waited
	o.put(newParcel([][]byte{[]byte("hello")}, nil))
	assert.Empty(t, o.queue)
	assert.Equal(t, 1, o.taken)
	o.put(newParcel([][]byte{make([]byte, maxDirect+1)}, nil))
	assert.Len(t, o.queue, 1, "a large one is the writer's")
	l.close()
	o.queue, o.queued = nil, 0
	o.put(newParcel([][]byte{[]byte("to nobody")}, nil))
	assert.Error(t, l.send([]parcel{newParcel([][]byte{{1}}, nil)}), "the writer notices, as the reader does")
}

func TestAWholeMessageIsKnown(t *testing.T) {
	long := kerneltest.Frame(0, make([]byte, 300))
	for name, c := range map[string]struct {
		bytes []byte
		whole bool
	}{
		"nothing":                   {nil, false},
		"half a head":               {[]byte{0}, false},
		"one":                       {kerneltest.Frame(0, []byte("x")), true},
		"an empty one":              {kerneltest.Frame(0, nil), true},
		"one and a half":            {append(kerneltest.Frame(0, []byte("x")), 0), true},
		"all but its last byte":     {long[:len(long)-1], false},
		"a long one":                {long, true},
		"half of a long head":       {long[:5], false},
		"one of two frames":         {kerneltest.Frame(flagMore, []byte("x")), false},
		"two frames":                {append(kerneltest.Frame(flagMore, []byte("x")), kerneltest.Frame(0, nil)...), true},
		"a command":                 {kerneltest.Frame(flagCommand, []byte("\x04PING\x00\x00")), false},
		"a size beyond what can be": {[]byte{flagLong, 255, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3}, false},
	} {
		t.Run(name, func(t *testing.T) {
			near, far := pair(t)
			l := newLink(near)
			if len(c.bytes) > 0 {
				_, err := far.Write(c.bytes)
				require.NoError(t, err)
				_, err = l.r.Peek(len(c.bytes))
				require.NoError(t, err)
			}
			assert.Equal(t, c.whole, l.whole())
		})
	}
}

func TestTheEndOfAConnectionIsRead(t *testing.T) {
	near, far := pair(t)
	in := &inlet{near, direct(near)}
	require.NotNil(t, in.direct)
	_, err := far.Write([]byte("last words"))
	require.NoError(t, err)
	require.NoError(t, far.Close())
	words, err := io.ReadAll(in)
	require.NoError(t, err)
	assert.Equal(t, "last words", string(words))
	require.NoError(t, near.Close())
	_, err = in.Read(make([]byte, 1))
	assert.ErrorIs(t, err, net.ErrClosed)
}

func TestAReaderThatWaitsEndsWithItsConnection(t *testing.T) {
	near, _ := pair(t)
	in := &inlet{near, direct(near)}
	ended := make(chan error, 1)
	go func() {
		_, err := in.Read(make([]byte, 1))
		ended <- err
	}()
	require.NoError(t, near.Close())
	assert.ErrorIs(t, <-ended, net.ErrClosed)
}

func TestWritingToWhoHasGoneIsAnError(t *testing.T) {
	near, far := pair(t)
	require.NoError(t, far.Close())
	out := &outlet{raw: near, direct: direct(near), trying: true}
	_, err := out.Write([]byte("x"))
	assert.ErrorIs(t, err, syscall.EPIPE)
}

func TestAFloodIsMuchOutputInAShortTime(t *testing.T) {
	now := time.Unix(0, 0)
	var f flood
	size := 500
	pour := func(outputs int, over time.Duration) (raged int) {
		for range outputs {
			now = now.Add(over / time.Duration(outputs))
			f.output([][]byte{make([]byte, size)})
			if f.breath(now) > 0 {
				raged++
			}
		}
		return raged
	}
	assert.Equal(t, 0, pour(100, time.Second), "a bar of progress")
	assert.Greater(t, pour(6000, time.Second), 5900, "a loop that prints")
	pour(1, time.Second)
	assert.Equal(t, 0, pour(100, time.Second), "it is over")
	size = muchOutput
	pour(6000, time.Second)
	f.output([][]byte{make([]byte, size)})
	assert.Equal(t, shortBreath, f.breath(now), "large messages fill a socket soon")
	size = fullSocket
	assert.Equal(t, 0, pour(6000, time.Second), "to wait would hold up who prints")
}
