package kernel

import "sync"

// An outbox is what waits to be written to one link, in order. It is safe for
// concurrent use.
//
// One goroutine writes, and waits for a peer that is slow. While it has nothing
// to do, who puts a parcel writes it itself, as far as the connection takes it
// without waiting: to wake another goroutine costs more than a small message.
type outbox struct {
	mu      sync.Mutex
	wake    *sync.Cond
	idle    *link // where the writer would write; nil while it writes
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

// message returns the frames to be written.
func (p parcel) message() [][]byte {
	if p.merge != nil {
		return p.merge.encode(p.frames)
	}
	return p.frames
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
	o.holdLocked(p)
	o.sendLocked()
}

// holdLocked queues one parcel that others follow at once.
func (o *outbox) holdLocked(p parcel) {
	if o.ending {
		return
	}
	o.queue = append(o.queue, p)
	o.queued += p.size
}

// release sends what was held.
func (o *outbox) release() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sendLocked()
}

// sendLocked writes what is queued, or has the writer write it.
func (o *outbox) sendLocked() {
	if len(o.queue) == 0 {
		return
	}
	if o.idle != nil && o.queued <= maxDirect {
		if rest, ok := o.idle.try(o.queue); ok {
			o.taken += len(o.queue)
			o.queue, o.queued = nil, rest
			if rest == 0 {
				return
			}
			o.queue = []parcel{{size: rest}} // the link has it
		}
	}
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

// maxDirect is how much is not left to the writer, in bytes. What the connection
// does not take of it is copied.
const maxDirect = 16 << 10

// maxBatch bounds what the writer takes at once, so that what it has not taken
// can still be merged.
const maxBatch = 256 << 10

// take waits for something to write to l. It returns nothing at the end.
func (o *outbox) take(l *link) []parcel {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.idle = l
	for len(o.queue) == 0 && !o.ending {
		o.wake.Wait()
	}
	o.idle = nil
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
		batch := o.take(l)
		if len(batch) == 0 {
			return
		}
		if err := l.send(batch); err != nil {
			l.close() // its reader notices
			o.end(true)
			return
		}
	}
}
