package training

import (
	"bufio"
	"errors"
	"os"
	"time"
)

const (
	// drainWait is how long the events are quiet before we believe that a worker
	// that has ended said everything. What it wrote is in the pipe already.
	drainWait = 100 * time.Millisecond
	// drainLooks bounds how often we look for more: a process that it left behind
	// may go on writing. Each look takes all that is there.
	drainLooks = 50
	// pipeSize is what a pipe holds.
	pipeSize = 64 << 10
)

// An eventPipe ends with the worker, also if a process that it left behind keeps
// the other end open.
type eventPipe struct {
	f     *os.File
	looks int // since the worker has ended
}

func newEventPipe(f *os.File, over <-chan struct{}) *eventPipe {
	go func() { // ends with the worker
		<-over
		f.SetReadDeadline(time.Now().Add(drainWait)) //nolint:errcheck // a pipe has deadlines, or is closed
	}()
	return &eventPipe{f: f}
}

// Read implements io.Reader.
func (p *eventPipe) Read(b []byte) (int, error) {
	n, err := p.f.Read(b)
	if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		return n, err
	}
	// The deadline may have passed while the event before was handled: only
	// a fresh one tells whether there is more.
	if p.looks++; p.looks > drainLooks {
		return 0, err
	}
	if err := p.f.SetReadDeadline(time.Now().Add(drainWait)); err != nil {
		return 0, err
	}
	return p.f.Read(b)
}

// errLong says that a line was too long, and was skipped.
var errLong = errors.New("the line is too long")

// readLine returns the next whole line. It is valid until the next call.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	long := false
	for {
		part, err := r.ReadSlice('\n')
		if long = long || len(line)+len(part) > limit; !long {
			line = append(line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil:
			return nil, err
		case long:
			return nil, errLong
		}
		return line, nil
	}
}
