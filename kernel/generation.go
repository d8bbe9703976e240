package kernel

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zeromq/zmq4"

	"outlast/kernel/jupyter"
)

// A generation is one life of the child: its process and our connections to
// it. After the child's end a new one is made, on new sockets.
type generation struct {
	proxy    *Proxy
	number   int
	child    *child
	up       atomic.Bool // it has answered
	answered time.Time   // when it first did
	shared   bool        // it signs with the front end's key
	ipy      bool        // it is a Python with IPython, and the bridge is in it

	links [channels]*link
	out   [channels]*outbox
	iopub *link
	flood flood // of the reader of iopub

	readers sync.WaitGroup
}

// bootLimit is how long a child may take until it answers: the first import on
// a machine whose disk is cold takes many seconds.
const bootLimit = 3 * time.Minute

// lastWords is how long output that a dead child had sent may take to arrive.
// A process that the child left behind may hold the sockets open.
const lastWords = 300 * time.Millisecond

// connect joins the child's sockets and returns once it answers there.
func (g *generation) connect(ctx context.Context) error {
	ctx, cancel := g.child.whileAlive(ctx)
	defer cancel()
	ctx, limit := context.WithTimeoutCause(ctx, bootLimit, errors.New("the Python kernel did not answer in time"))
	defer limit()
	c := g.child.connection
	to := func(port int, typ zmq4.SocketType, identity string) (*link, error) {
		network, address := c.Address(port)
		l, err := dial(ctx, network, address, typ, identity)
		if err == nil {
			l.trusted = maxFrame
		}
		return l, err
	}
	var err error
	if g.iopub, err = to(c.IOPub, zmq4.Sub, ""); err != nil {
		return err
	}
	if err := g.iopub.send([]parcel{newParcel([][]byte{{1}}, nil)}); err != nil {
		return fmt.Errorf("subscribe to the child: %w", err)
	}
	g.read(g.iopub, func(frames [][]byte) { g.proxy.published(g, frames) }, g.drained)
	for ch, port := range map[channel]int{onShell: c.Shell, onControl: c.Control, onStdin: c.Stdin} {
		// One identity for all three: a child's question finds its way by it.
		l, err := to(port, zmq4.Dealer, g.proxy.session)
		if err != nil {
			return err
		}
		g.links[ch] = l
		g.readers.Go(func() { g.out[ch].write(l) })
		g.read(l, func(frames [][]byte) {
			if ch == onStdin {
				g.proxy.askedStdin(g, frames)
			} else {
				g.proxy.fromChild(g, ch, frames)
			}
		}, func() {})
	}
	return g.greet(ctx)
}

// read hands over what comes from l until it ends, and calls drained whenever
// it has to wait for more.
func (g *generation) read(l *link, handle func([][]byte), drained func()) {
	g.readers.Go(func() {
		for {
			frames, err := l.receive()
			if err != nil {
				drained()
				g.lost(err)
				return
			}
			handle(frames)
			if !l.whole() {
				drained()
			}
		}
	})
}

// goodbye is how long a child may take to end once it has closed a connection:
// one that ends by itself does that first.
const goodbye = 5 * time.Second

// lost ends a child to which a connection is broken: nothing more would come of
// it, and every cell would wait for ever.
func (g *generation) lost(err error) {
	d := death{instead: "it closed a connection and did not end"}
	if errors.Is(err, errFrame) { // what follows cannot be read either
		d = death{
			instead: "it sent a message of more than " + size(maxMessage) + ", which cannot be passed on",
			cure:    "show less at once, or write large data to a file",
		}
	} else if g.child.gone(goodbye) {
		return
	}
	g.proxy.config.Log.Warn("connection to the child lost", "error", err, "generation", g.number)
	if err := g.child.abandon(d); err != nil {
		g.proxy.config.Log.Error("child not ended", "error", err)
	}
}

// drained sends on what the child has published so far, and takes breath in a
// flood.
func (g *generation) drained() {
	g.proxy.iopub.release()
	if breath := g.flood.breath(time.Now()); breath > 0 {
		g.iopub.rest(breath)
	}
}

// A flood is more output than anybody can read. Whoever takes each message of it
// at once wakes up for each, and so does everybody behind him, at the cost of
// who prints. Taken some at a time it flows faster, unless it is so much that it
// fills the child's socket meanwhile.
type flood struct {
	began  time.Time // of the window that is counted in
	count  int       // outputs in it
	before bool      // there was a flood in the window before
	bytes  int       // of the outputs since the last breath
}

const (
	floodWindow = 10 * time.Millisecond
	floodCount  = 24 // outputs in a window

	longBreath  = time.Millisecond
	shortBreath = 100 * time.Microsecond
	muchOutput  = 8 << 10  // bytes, from which on a breath is short
	fullSocket  = 64 << 10 // bytes, from which on there is none: the child's socket holds some 200 KiB on Linux
)

// output counts one output.
func (f *flood) output(frames [][]byte) {
	f.count++
	for _, frame := range frames {
		f.bytes += len(frame)
	}
}

// breath returns how long to wait before more is taken; 0 where there is no flood.
// The larger its messages are, the sooner they fill the child's socket.
func (f *flood) breath(now time.Time) time.Duration {
	bytes := f.bytes
	f.bytes = 0
	switch {
	case !f.rages(now), bytes >= fullSocket:
		return 0
	case bytes >= muchOutput:
		return shortBreath
	}
	return longBreath
}

// rages reports whether there is a flood.
func (f *flood) rages(now time.Time) bool {
	if now.Sub(f.began) > floodWindow {
		f.before = f.count >= floodCount && now.Sub(f.began) < 2*floodWindow
		f.began, f.count = now, 0
	}
	return f.before || f.count >= floodCount
}

// nudgeInterval is how often a child that boots is asked again. A subscription
// may take effect after the first answer has been published.
const nudgeInterval = 100 * time.Millisecond

// greet asks the child who it is until its answer was seen on shell and iopub.
func (g *generation) greet(ctx context.Context) error {
	heard := make(chan struct{})
	var once sync.Once
	answers := make(chan *jupyter.Message, 1)
	tick := time.NewTicker(nudgeInterval)
	defer tick.Stop()
	var info *jupyter.Message
	for {
		r := g.proxy.internal(jupyter.KernelInfoRequest, struct{}{}, func() { once.Do(func() { close(heard) }) })
		r.answer = answers
		g.proxy.routes.add(r)
		g.put(r)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case m := <-answers:
			info = m
		case <-tick.C:
		}
		if info == nil {
			continue
		}
		select {
		case <-heard:
			g.proxy.info.learn(g.proxy.config, info)
			g.proxy.releaseInfo()
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// put sends a request to the child.
func (g *generation) put(r *route) { g.putOn(r.channel, r) }

func (g *generation) putOn(ch channel, r *route) {
	r.sent = g.number
	m := *r.request
	if r.answer == nil { // stacked: it comes back with the answer
		m.Identities = append([][]byte{[]byte(r.peer)}, r.request.Identities...)
	}
	g.out[ch].put(newParcel(g.frames(&m), nil))
}

// frames encodes m for the child. A message on its way through keeps its
// signature if the key is the same.
func (g *generation) frames(m *jupyter.Message) [][]byte {
	if g.shared && len(m.Signature) > 0 {
		return jupyter.Signed(m)
	}
	return g.child.signer.Encode(m)
}

// close ends the connections and waits for their goroutines. What the child
// had sent is still handed over, for a moment.
func (g *generation) close() {
	drained := make(chan struct{})
	go func() { g.readers.Wait(); close(drained) }() // ends when the links are closed, below
	for _, o := range g.out {
		o.end(true)
	}
	select {
	case <-drained:
	case <-time.After(lastWords):
	}
	for _, l := range append(g.links[:], g.iopub) {
		if l != nil {
			l.close()
		}
	}
	<-drained
}
