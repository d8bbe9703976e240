package training

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

const (
	// importLimit is how long a server may import before we do without it. A
	// large library on a cold disk takes half a minute.
	importLimit = 2 * time.Minute
	// forkLimit is how long it may take to answer an order, which takes it
	// milliseconds.
	forkLimit = 20 * time.Second
	// reportLimit is how long it may take to say that a worker has ended.
	reportLimit = 5 * time.Second
	// endLimit is how long it may take to end when its socket is closed.
	endLimit = 2 * time.Second
	// mostAnswer is the length of an answer, in bytes: some numbers, or the names
	// of threads.
	mostAnswer = 16 << 10
)

// A forkServer is a Python that has imported what workers need, and forks them.
// It has never touched a device. It dies with us, and its workers with it.
type forkServer struct {
	cmd     *exec.Cmd
	link    *net.UnixConn
	gone    chan struct{} // closed when it has ended and what it said is read
	answers chan answerOf // to what was asked last

	asking    sync.Mutex    // one order at a time
	forkLimit time.Duration // see the constant

	workers map[int]chan ending // of the goroutine that hears
}

// answerOf is a line of the server.
type answerOf struct {
	Ready   int    `json:"ready"`
	Refused string `json:"refused"`
	Started int    `json:"started"`
	Failed  string `json:"failed"`
	Ended   int    `json:"ended"`
	Status  uint32 `json:"status"` // as wait(2) gives it

	end chan ending // of the worker that was started: it may have ended already
}

// startForkServer starts cmd and waits until it has imported everything. It
// ends with close.
func startForkServer(ctx context.Context, cmd *exec.Cmd) (*forkServer, error) {
	link, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	cmd.ExtraFiles = []*os.File{theirs}
	f := &forkServer{
		cmd: cmd, link: link, gone: make(chan struct{}), answers: make(chan answerOf, 1),
		workers: map[int]chan ending{}, forkLimit: forkLimit,
	}
	started := make(chan error, 1)
	go f.live(started) // ended by close
	err = <-started
	theirs.Close() //nolint:errcheck // it has its own copy
	if err != nil {
		link.Close() //nolint:errcheck // nothing was said
		return nil, err
	}
	said, err := f.answer(ctx, importLimit)
	if err == nil && said.Ready == 0 {
		err = errors.New(said.Refused)
	}
	if err != nil {
		f.cmd.Process.Kill() //nolint:errcheck // it may have ended
		f.close()
		return nil, err
	}
	return f, nil
}

// socketPair returns two ends that keep messages apart.
func socketPair() (*net.UnixConn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "fork server"), os.NewFile(uintptr(fds[1]), "fork server")
	conn, err := net.FileConn(ours)
	ours.Close() //nolint:errcheck // conn has its own copy
	if err != nil {
		theirs.Close() //nolint:errcheck // the first error counts
		return nil, nil, err
	}
	return conn.(*net.UnixConn), theirs, nil // what a Unix socket becomes
}

// live starts the server, hears it and waits for its end. It keeps its thread:
// the server is killed when that ends.
func (f *forkServer) live(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := f.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	var hearing sync.WaitGroup
	hearing.Go(f.hear)
	f.cmd.Wait() //nolint:errcheck // however it ended, it is gone
	// Its last words are in the socket. Who else has the other end is a worker
	// that was just forked, and that says nothing.
	f.link.SetReadDeadline(time.Now().Add(drainWait)) //nolint:errcheck // it has deadlines, or is closed
	hearing.Wait()
	close(f.gone)
}

// hear reads what the server says until it has ended.
func (f *forkServer) hear() {
	line := make([]byte, mostAnswer)
	for {
		n, err := f.link.Read(line)
		if err != nil || n == 0 {
			return
		}
		var said answerOf
		if json.Unmarshal(line[:n], &said) != nil {
			return // it is none of ours
		}
		if end := f.workers[said.Ended]; end != nil {
			end <- endingBy(syscall.WaitStatus(said.Status))
			delete(f.workers, said.Ended)
		}
		if said.Ended != 0 {
			continue
		}
		if said.Started != 0 {
			said.end = make(chan ending, 1)
			f.workers[said.Started] = said.end
		}
		select {
		case f.answers <- said:
		default: // nobody asked
		}
	}
}

// answer waits for what the server says next.
func (f *forkServer) answer(ctx context.Context, limit time.Duration) (answerOf, error) {
	late := time.NewTimer(limit)
	defer late.Stop()
	select {
	case said := <-f.answers:
		return said, nil
	case <-f.gone:
		return answerOf{}, errors.New("it ended")
	case <-late.C:
		return answerOf{}, fmt.Errorf("no answer within %s", short(limit))
	case <-ctx.Done():
		return answerOf{}, ctx.Err()
	}
}

// fork starts a worker, which gets the given files: events, output and lock.
// A server that does not answer is ended.
func (f *forkServer) fork(ctx context.Context, o order, given []*os.File) (process, error) {
	f.asking.Lock()
	defer f.asking.Unlock()
	data, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	fds := make([]int, len(given))
	for i, file := range given {
		fds[i] = int(file.Fd())
	}
	if _, _, err = f.link.WriteMsgUnix(data, syscall.UnixRights(fds...), nil); err != nil {
		f.close()
		return nil, fmt.Errorf("order worker: %w", err)
	}
	said, err := f.answer(context.WithoutCancel(ctx), f.forkLimit)
	if err != nil {
		f.close() // it may have forked one that we do not know
		return nil, fmt.Errorf("order worker: %w", err)
	}
	if said.Started == 0 {
		return nil, fmt.Errorf("order worker: %s", said.Failed)
	}
	return &forked{f, identify(said.Started), said.end}, nil
}

// over reports whether the server has ended.
func (f *forkServer) over() bool {
	select {
	case <-f.gone:
		return true
	default:
		return false
	}
}

// close ends the server and with it every worker that is left, and waits for
// it. It may be called twice.
func (f *forkServer) close() {
	f.link.CloseWrite() //nolint:errcheck // it may be gone
	patience := time.NewTimer(endLimit)
	defer patience.Stop()
	select {
	case <-f.gone:
	case <-patience.C:
		f.cmd.Process.Kill() //nolint:errcheck // it may just have ended
		<-f.gone
	}
	f.link.Close() //nolint:errcheck // all was read
}

// forked is a worker that the server forked.
type forked struct {
	server *forkServer
	id     identity
	end    <-chan ending
}

var _ process = (*forked)(nil)

// pid implements process.
func (p *forked) pid() int { return p.id.pid }

// wait implements process. A worker whose server was ended was ended with it.
// A server that does not say that its worker has ended is no longer relied on.
func (p *forked) wait() (ending, error) {
	look := time.NewTicker(reportLimit / 2)
	defer look.Stop()
	for missed := 0; ; {
		select {
		case end := <-p.end:
			return end, nil
		case <-p.server.gone:
			return p.orphaned(), nil
		case <-look.C:
			if p.id.works() {
				continue
			}
			if missed++; missed > 2 {
				p.server.close()
			}
		}
	}
}

// orphaned returns how the worker of a server that is gone has ended, once it
// has.
func (p *forked) orphaned() ending {
	select {
	case end := <-p.end: // just before
		return end
	default:
	}
	for end := time.Now().Add(fenceWait); p.id.works() && time.Now().Before(end); time.Sleep(reapInterval) {
		p.id.killGroup() //nolint:errcheck // its server's death has done so
	}
	return ending{-1, syscall.SIGKILL.String(), false}
}

// reapInterval is how often we look whether a process is gone that is not our
// child.
const reapInterval = 5 * time.Millisecond
