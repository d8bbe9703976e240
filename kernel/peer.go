package kernel

import (
	"bytes"
	"sync"
	"time"

	"outlast/kernel/jupyter"
)

// How far a subscriber may fall behind, in bytes. Jupyter's own clients are
// never more than some messages behind, so nothing is merged for them.
const (
	// mergeBehind is where streams of one cell begin to be merged, and updates
	// of a display that were not yet sent to be replaced.
	mergeBehind = 1 << 20
	// maxBehind is where a peer that takes nothing any more is cut off. It
	// would miss messages anyway, and reconnects when it is awake again.
	maxBehind = 64 << 20
	// hardBehind is where even a peer that still reads is cut off.
	hardBehind = 160 << 20
	// stallTime is how long a peer may take nothing before it counts as stalled.
	stallTime = time.Second
)

// A peer is a front end's connection to one of our sockets, with an outbox of
// its own: who does not read holds up nobody else.
type peer struct {
	*outbox
	link *link
	id   string // how the socket names it: its identity, or one of ours

	// Guarded by the outbox's mutex.
	topics   map[string]int // iopub: subscriptions, counted
	displays map[string]int // display → number of the parcel that updates it
	seen     int            // taken, when it was last seen to move
	moved    time.Time      // when that was
	stuck    int            // taken, when it was waited for in vain

	gone sync.Once
}

func newPeer(l *link, id string) *peer {
	return &peer{outbox: newOutbox(), link: l, id: id, topics: map[string]int{}, displays: map[string]int{}, moved: time.Now(), stuck: -1}
}

// send queues frames and reports false if the peer was cut off for it.
func (p *peer) send(frames [][]byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := newParcel(frames, nil)
	p.putLocked(next)
	return p.within(maxBehind, next.size)
}

// publish queues a broadcast and reports false if the peer was cut off for it.
// For one that is behind it is merged with what waits, if that loses nothing.
func (p *peer) publish(b broadcast, signer jupyter.Signer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.queued
	switch typ := b.msg.Header.Type; {
	case p.queued < mergeBehind:
		clear(p.displays)
		p.holdLocked(newParcel(b.frames, nil))
	case typ == jupyter.TypeStream:
		next := streamMerge(signer, b.msg)
		if tail := len(p.queue) - 1; next != nil && tail >= 0 && p.queue[tail].merge != nil && p.queue[tail].merge.add(next) {
			p.queue[tail].size += len(next.texts[0])
			p.queued += len(next.texts[0])
			break
		}
		p.holdLocked(newParcel(b.frames, next))
	case typ == jupyter.TypeUpdateDisplay:
		p.replace(displayKey(b.msg))
		p.holdLocked(newParcel(b.frames, nil))
		p.displays[displayKey(b.msg)] = p.taken + len(p.queue) - 1
	default:
		p.holdLocked(newParcel(b.frames, nil))
	}
	added := max(0, p.queued-before)
	if !b.more {
		p.sendLocked()
	}
	return p.within(maxBehind, added)
}

// replace empties the parcel that waits with an earlier update of a display.
func (p *peer) replace(display string) {
	at, ok := p.displays[display]
	if i := at - p.taken; ok && display != "" && i >= 0 && i < len(p.queue) {
		p.queued -= p.queue[i].size
		p.queue[i] = parcel{}
	}
}

// within reports whether the peer keeps up, and cuts it off if it does not. What
// was added just now does not count: nobody can have read it yet, however large
// it is.
func (p *peer) within(limit, added int) bool {
	behind := p.queued - added
	if p.ending || behind <= limit {
		p.seen, p.moved = p.taken, time.Now()
		return true
	}
	if p.seen != p.taken {
		p.seen, p.moved = p.taken, time.Now()
	}
	if behind <= hardBehind && time.Since(p.moved) < stallTime {
		return true
	}
	p.ending, p.queue, p.queued = true, nil, 0
	p.link.close()
	p.wake.Signal()
	return false
}

// await waits until at most so many bytes wait for the peer. One that has stalled
// is waited for once.
func (p *peer) await(bytes int) {
	const look = 5 * time.Millisecond
	since, taken := time.Now(), -1
	for !p.reads(bytes) {
		now := time.Now()
		p.mu.Lock()
		if taken != p.taken {
			since, taken = now, p.taken
		}
		if now.Sub(since) >= stallTime {
			p.stuck = p.taken
		}
		p.mu.Unlock()
		time.Sleep(look)
	}
}

// reads reports whether there is no use in waiting until at most so many bytes
// wait for the peer.
func (p *peer) reads(bytes int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ending || p.queued <= bytes || p.stuck == p.taken
}

// subscribe takes a subscription message: \x01topic or \x00topic. It reports
// whether topic is new for this peer.
func (p *peer) subscribe(frame []byte) (topic string, fresh bool) {
	if len(frame) == 0 {
		return "", false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	topic = string(frame[1:])
	switch frame[0] {
	case 1:
		p.topics[topic]++
		return topic, p.topics[topic] == 1
	case 0:
		if p.topics[topic]--; p.topics[topic] <= 0 {
			delete(p.topics, topic)
		}
	}
	return topic, false
}

// subscriptions returns the topics that the peer has subscribed to.
func (p *peer) subscriptions() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	topics := make([]string, 0, len(p.topics))
	for t := range p.topics {
		topics = append(topics, t)
	}
	return topics
}

// wants reports whether the peer has subscribed to topic, by a prefix.
func (p *peer) wants(topic []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for prefix := range p.topics {
		if bytes.HasPrefix(topic, []byte(prefix)) {
			return true
		}
	}
	return false
}
