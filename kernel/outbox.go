package kernel

import "sync"

// An outbox is what waits to be written to one link, in order. It is safe for
// concurrent use; one goroutine writes.
type outbox struct {
	mu      sync.Mutex
	wake    *sync.Cond
	queue   []parcel
	queued  int // bytes
	taken   int // parcels that the writer has taken so far
	ending  bool
	written chan struct{} // closed when the writer has ended
}

// A parcel is one message on its way to one link.
type parcel struct {
	frames [][]byte
	size   int // bytes
	merge  *merge
}

func newParcel(frames [][]byte, m *merge) parcel {
	p := parcel{frames: frames, merge: m}
	for _, f := range frames {
		p.size += len(f)
	}
	return p
}

func newOutbox() *outbox {
	o := &outbox{written: make(chan struct{})}
	o.wake = sync.NewCond(&o.mu)
	return o
}

// put queues one parcel. After the end it does nothing.
func (o *outbox) put(p parcel) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.putLocked(p)
}

func (o *outbox) putLocked(p parcel) {
	if o.ending {
		return
	}
	o.queue = append(o.queue, p)
	o.queued += p.size
	o.wake.Signal()
}

// end lets the writer end once the queue is empty; drop empties it.
func (o *outbox) end(drop bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ending = true
	if drop {
		o.queue, o.queued = nil, 0
	}
	o.wake.Signal()
}

// maxBatch bounds what the writer takes at once, so that what it has not taken
// can still be merged.
const maxBatch = 256 << 10

// take waits for something to write. It returns nothing at the end.
func (o *outbox) take() []parcel {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.queue) == 0 && !o.ending {
		o.wake.Wait()
	}
	n, size := 0, 0
	for n < len(o.queue) && size < maxBatch {
		size += o.queue[n].size
		n++
	}
	batch := o.queue[:n:n]
	if o.queue = o.queue[n:]; len(o.queue) == 0 {
		o.queue = nil // what was sent can be freed
	}
	o.queued -= size
	o.taken += n
	return batch
}

// write sends what is queued on l, until l is gone or the end was asked for.
func (o *outbox) write(l *link) {
	defer close(o.written)
	for {
		batch := o.take()
		if len(batch) == 0 {
			return
		}
		if err := sendAll(l, batch); err != nil {
			l.close() // its reader notices
			o.end(true)
			return
		}
	}
}

func sendAll(l *link, batch []parcel) error {
	for _, p := range batch {
		if p.frames == nil {
			continue // replaced by a later one
		}
		if p.merge != nil {
			p.frames = p.merge.encode(p.frames)
		}
		if err := l.send(p.frames); err != nil {
			return err
		}
	}
	return l.flush()
}
