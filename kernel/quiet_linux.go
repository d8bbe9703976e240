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

// A quiet connection wakes the process for what arrives while somebody waits for
// it, once, and at no other time. Go watches a connection all the time: each
// message that arrives while its reader rests wakes a thread, which finds that
// nobody wants it yet.
//
// The socket is watched by an epoll instance of its own, for one event at a time
// (EPOLLONESHOT, epoll(7)), and Go watches only that. One goroutine may read while
// another writes.
type quiet struct {
	socket uintptr
	events *os.File        // the epoll instance
	lock   syscall.RawConn // its; what uses socket holds it, so that Close waits
	armed  bool            // an event was asked for
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

func newQuiet(socket int) (*quiet, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an epoll instance: %w", err)
	}
	err = errors.Join(unix.SetNonblock(fd, true), unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, socket, &unix.EpollEvent{}))
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
		if q.armed {
			q.disarm(int(events))
		}
		if n, err = readNow(q.socket, p); !errors.Is(err, syscall.EAGAIN) {
			return true
		}
		err = q.arm(int(events))
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

// arm asks for one event. One that came before is told at once.
func (q *quiet) arm(events int) error {
	q.armed = true
	return unix.EpollCtl(events, unix.EPOLL_CTL_MOD, int(q.socket), &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT})
}

// disarm takes the event. Until it is taken, more of them would be told.
func (q *quiet) disarm(events int) {
	q.armed = false
	var event [1]unix.EpollEvent
	unix.EpollWait(events, event[:], 0) //nolint:errcheck // without one, none was told
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

// rest lets the thread sleep. A sleep in Go is a timer: its end wakes a thread,
// which wakes another one to look for more to do, and both look on for a while.
// It keeps one of Go's processors, so d is short.
func rest(d time.Duration) {
	t := syscall.NsecToTimespec(int64(d))
	syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0) //nolint:errcheck // a signal makes it shorter
}
