package kernel

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A quiet connection wakes nobody while its reader rests. Go watches a connection
// all the time: each message that arrives meanwhile wakes a thread, which finds
// that nobody wants it yet.
//
// The socket is watched by an epoll instance of its own, and Go watches that: see
// epoll(7) about instances in instances. One goroutine may read and rest while
// another writes.
type quiet struct {
	socket uintptr
	events *os.File        // the epoll instance
	lock   syscall.RawConn // its; what uses socket holds it, so that Close waits
	muted  bool            // nothing is told
}

// hush makes a quiet connection of raw, or returns raw where that cannot be. On
// success raw is closed, and the connection is the one that is returned.
func hush(raw net.Conn) io.ReadWriteCloser {
	d := direct(raw)
	if d == nil {
		return raw
	}
	socket, err := -1, error(nil)
	closed := d.Control(func(fd uintptr) { socket, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if closed != nil || err != nil {
		return raw
	}
	q, err := newQuiet(socket)
	if err != nil {
		unix.Close(socket) //nolint:errcheck // raw has it still
		return raw
	}
	raw.Close() //nolint:errcheck // only its descriptor, which Go watches
	return q
}

// toRead is what wakes a reader.
const toRead = unix.EPOLLIN | unix.EPOLLRDHUP

func newQuiet(socket int) (*quiet, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an epoll instance: %w", err)
	}
	err = errors.Join(unix.SetNonblock(fd, true), unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, socket, &unix.EpollEvent{Events: toRead}))
	if err != nil {
		unix.Close(fd) //nolint:errcheck // it is new
		return nil, fmt.Errorf("watch a socket: %w", err)
	}
	q := &quiet{socket: uintptr(socket), events: os.NewFile(uintptr(fd), "epoll")}
	if q.lock, err = q.events.SyscallConn(); err != nil {
		q.events.Close() //nolint:errcheck // it is new
	}
	return q, err
}

// Read implements io.Reader.
func (q *quiet) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	closed := q.lock.Read(func(events uintptr) bool {
		if n, err = readNow(q.socket, p); !errors.Is(err, syscall.EAGAIN) {
			return true
		}
		err = q.mute(events, false) // what has come since is told
		return err != nil
	})
	switch {
	case closed != nil:
		return 0, net.ErrClosed
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// mute says whether what arrives is told, if that is new.
func (q *quiet) mute(events uintptr, muted bool) error {
	if q.muted == muted {
		return nil
	}
	q.muted = muted
	var what uint32
	if !muted {
		what = toRead
	}
	return unix.EpollCtl(int(events), unix.EPOLL_CTL_MOD, int(q.socket), &unix.EpollEvent{Events: what})
}

// rest lets the thread of the reader sleep. A sleep in Go is a timer: its end
// wakes a thread, which wakes another one to look for more to do, and both look on
// for a while. It keeps one of Go's processors, so d is short.
func (q *quiet) rest(d time.Duration) {
	q.lock.Control(func(events uintptr) { q.mute(events, true) }) //nolint:errcheck // the next Read tells
	t := syscall.NsecToTimespec(int64(d))
	syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0) //nolint:errcheck // a signal makes it shorter
}

// fullWait is how long a writer waits for a peer who has taken nothing.
const fullWait = time.Millisecond

// Write implements io.Writer. It is not fast: we only subscribe here.
func (q *quiet) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		var n int
		var err error
		closed := q.lock.Write(func(uintptr) bool {
			n, err = writeNow(q.socket, p[written:])
			return true
		})
		switch {
		case closed != nil:
			return written, net.ErrClosed
		case errors.Is(err, syscall.EAGAIN):
			time.Sleep(fullWait)
		case err != nil:
			return written, err
		default:
			written += n
		}
	}
	return written, nil
}

// Close implements io.Closer; what waits in Read or Write fails.
func (q *quiet) Close() error {
	if err := q.events.Close(); err != nil {
		return err // the second time: the socket's number may be another's
	}
	return unix.Close(int(q.socket))
}
