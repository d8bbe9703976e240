package kernel

import (
	"bytes"
	"crypto/sha256"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// hushed returns a quiet connection and its peer, an ordinary one.
func hushed(t *testing.T) (*quiet, net.Conn) {
	t.Helper()
	near, far := pair(t)
	q, ok := hush(near).(*quiet)
	require.True(t, ok)
	t.Cleanup(func() { q.Close() }) //nolint:errcheck // the test may have closed it
	return q, far
}

// told reports whether Go is being told of an event.
func told(t *testing.T, q *quiet) bool {
	t.Helper()
	var n int
	var err error
	require.NoError(t, q.lock.Control(func(fd uintptr) {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	}))
	require.NoError(t, err)
	return n > 0
}

func TestAQuietConnectionIsSilentWhileItsReaderRests(t *testing.T) {
	q, far := hushed(t)
	say := func(text string) {
		_, err := far.Write([]byte(text))
		require.NoError(t, err)
	}
	hear := func() string {
		p := make([]byte, 100)
		n, err := q.Read(p)
		assert.NoError(t, err)
		return string(p[:n])
	}
	for round := range 3 {
		heard := make(chan string)
		go func() { heard <- hear() }()
		say("waited for")
		require.Equal(t, "waited for", <-heard)

		q.rest(time.Millisecond)
		assert.False(t, told(t, q), round)
		say("at")
		say(" rest")
		assert.False(t, told(t, q), round)
		q.rest(time.Millisecond)
		assert.Equal(t, "at rest", hear(), "what came is there, untold")
	}
	say("awake")
	assert.False(t, told(t, q), "nobody has waited yet")
	require.NoError(t, q.lock.Control(func(events uintptr) { assert.NoError(t, q.mute(events, false)) }))
	assert.True(t, told(t, q), "who waits is told of what has come before")
}

func TestAQuietConnectionCarriesEverythingBothWays(t *testing.T) {
	q, far := hushed(t)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // more than a socket takes at once
	want := sha256.Sum256(sent)
	go io.Copy(far, far) //nolint:errcheck // all comes back, until the test ends
	go func() {
		n, err := q.Write(sent)
		assert.NoError(t, err)
		assert.Len(t, sent, n)
	}()
	got := make([]byte, len(sent))
	_, err := io.ReadFull(q, got)
	require.NoError(t, err)
	assert.Equal(t, want, sha256.Sum256(got))
}

func TestAQuietConnectionEnds(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*quiet, net.Conn) error
		want error
	}{
		"with its peer":        {func(_ *quiet, far net.Conn) error { return far.Close() }, io.EOF},
		"when ours was closed": {func(q *quiet, _ net.Conn) error { return q.Close() }, net.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			q, far := hushed(t)
			ended := make(chan error)
			go func() {
				_, err := q.Read(make([]byte, 1))
				ended <- err
			}()
			require.NoError(t, c.end(q, far))
			require.ErrorIs(t, <-ended, c.want)
			_, err := q.Write([]byte("to nobody"))
			require.Error(t, err)
		})
	}
}

func TestAQuietConnectionIsClosedOnce(t *testing.T) {
	q, _ := hushed(t)
	require.NoError(t, q.Close())
	other, err := os.Open(os.DevNull) // takes the number that is free now
	require.NoError(t, err)
	defer other.Close() //nolint:errcheck // it was only read
	require.ErrorIs(t, q.Close(), os.ErrClosed)
	_, err = other.Stat()
	require.NoError(t, err, "the second Close must not have closed it")
}

func TestWhatIsNoSocketStaysAsItIs(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close() //nolint:errcheck // the test ends
	assert.Same(t, near, hush(near))
}

func TestALinkIsQuietFromItsFirstRestOn(t *testing.T) {
	near, far := pair(t)
	l := newLink(near)
	read := func() string {
		p := make([]byte, 3)
		_, err := io.ReadFull(l.r, p)
		require.NoError(t, err)
		return string(p)
	}
	_, err := far.Write([]byte("onetwo"))
	require.NoError(t, err)
	assert.Equal(t, "one", read())
	l.rest(time.Microsecond)
	require.IsType(t, (*quiet)(nil), l.raw)
	assert.Equal(t, "two", read(), "what was buffered is not lost")
	_, err = far.Write([]byte("six"))
	require.NoError(t, err)
	l.rest(time.Microsecond)
	assert.Equal(t, "six", read())

	closed := make(chan struct{})
	go func() { l.close(); close(closed) }()
	l.rest(time.Microsecond)
	<-closed
	_, err = l.r.ReadByte()
	assert.Error(t, err)
}
