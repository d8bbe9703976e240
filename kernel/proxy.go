// Package kernel is a Jupyter kernel that wraps another one. It knows sockets,
// the child process and the order of cells, and passes every message through as
// it came. It does not know what a magic is: it asks an Interceptor which
// leading lines of a cell are not the child's, and has it run them.
//
// The protocol is https://jupyter-client.readthedocs.io/en/stable/messaging.html.
package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/go-zeromq/zmq4"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"outlast/kernel/jupyter"
)

// Config is what a Proxy needs. Connection, Spec, Interceptor, Log and Stderr
// must be set.
type Config struct {
	Connection  jupyter.Connection
	Spec        Spec     // how the child is started
	ChildArgs   []string // appended to its command line
	Env         []string // of the child
	Dir         string   // where the child works
	TempDir     string   // for its sockets
	JournalDir  string   // keeps what cells print; empty: nothing is kept
	JournalSize int64    // how much of it, in bytes; 0: 256 MiB
	CacheDir    string   // remembers what children say of themselves; empty: nothing is remembered
	ParentPID   int      // the process whose end is ours; 0: nobody's
	Interceptor Interceptor
	Log         *slog.Logger
	Stderr      io.Writer // the child's

	// Aftermath is asked for what to add when the child has died: what its end
	// did not touch. It may be nil.
	Aftermath func() string

	// Started is called once front ends can be served, with what says whether
	// something works that no cell of this process began. It may be nil.
	Started func(working func(on bool))
}

// A Claim says what of a cell is not the child's.
type Claim struct {
	Lines int  // leading lines, magics and what stands before and between them
	Whole bool // nothing is left for the child
	Looks bool // neither needs nor changes what cells do: may be answered beside one
	Now   bool // must not wait for the child
}

// An Interceptor knows which cells are not the child's, and runs them.
type Interceptor interface {
	// Claim says what of a cell is to be run by Run. It must be quick, and may
	// be called concurrently.
	Claim(code string) Claim
	// Run runs the claimed lines of cell. An interrupt ends ctx, with
	// ErrInterrupted as its cause. An *jupyter.ExecutionError is shown as it is; a
	// panic is an error of the cell.
	Run(ctx context.Context, cell *Cell) error
	// Names lists the magics that Python cells may call, for completion and help.
	Names() []Name
}

// A Name is a magic as the child's IPython knows it.
type Name struct {
	Name string `json:"name"`
	Line bool   `json:"line"`
	Cell bool   `json:"cell"`
	Body bool   `json:"body"` // %%name takes the text below it
	Help string `json:"help"`
}

// A Proxy is the kernel that front ends see. It is used once.
type Proxy struct {
	config  Config
	signer  jupyter.Signer
	session string // of our own messages, and our identity at the child's sockets
	topic   []byte

	shell, control, stdin, iopub, heartbeat *socket

	routes routes
	seen   replays
	info   infoState
	lane   lane
	life   life
	rpc    *rpcServer

	count   counter
	journal *journal
	working working
	ebb     ebb
	crew    crew // runs cells of ours

	stop    context.CancelCauseFunc
	leaving chan struct{} // closed when the kernel begins to end
	left    sync.Once
}

// Causes with which the context of a cell ends.
var (
	ErrInterrupted = errors.New("interrupted")
	ErrEnding      = errors.New("the kernel ends") // nobody has asked the cell to end
)

// Reasons for the end of Run that are no errors.
var (
	errShutdown = errors.New("shutdown was asked for")
	errOrphaned = errors.New("the process that started the kernel has ended")
)

// New returns a proxy that Run starts.
func New(c Config) *Proxy {
	p := &Proxy{config: c, session: uuid.NewString(), leaving: make(chan struct{})}
	p.topic = []byte("kernel." + p.session + ".")
	p.routes.byID = map[string][]*route{}
	p.seen.seen = map[string]struct{}{}
	p.lane = newLane(p.forwardCell, p.beginCell)
	make := func(name string, typ zmq4.SocketType, received func(*peer, [][]byte)) *socket {
		return &socket{name: name, typ: typ, received: received, log: c.Log}
	}
	p.shell = make("shell", zmq4.Router, p.fromShell)
	p.control = make("control", zmq4.Router, p.fromControl)
	p.stdin = make("stdin", zmq4.Router, p.fromStdin)
	p.iopub = make("iopub", zmq4.XPub, p.subscribed)
	// Answered here, whatever the child does: a beat says that the kernel is
	// there, and the child's health is told in words.
	p.heartbeat = make("heartbeat", zmq4.Rep, func(peer *peer, frames [][]byte) { p.heartbeat.send(peer, frames) })
	p.config.Interceptor = sturdy{c.Interceptor, c.Log}
	return p
}

// Run serves until ctx is done or a front end asks for a shutdown, and returns
// once every goroutine and process that it started has ended. Neither is
// reported as an error.
func (p *Proxy) Run(ctx context.Context) (err error) {
	if p.signer, err = jupyter.NewSigner(p.config.Connection.Scheme, p.config.Connection.Key); err != nil {
		return err
	}
	ctx, p.stop = context.WithCancelCause(ctx)
	defer p.stop(nil)
	if p.rpc, err = newRPCServer(p, p.config.TempDir); err != nil {
		return err
	}
	defer p.rpc.close()
	p.journal = openJournal(p.config.JournalDir, p.config.JournalSize, p.config.Log)
	defer p.journal.close()
	p.info.recall(p.config)
	if err := p.listen(ctx); err != nil {
		p.close()
		return err
	}
	if p.config.Started != nil {
		nobody := &jupyter.Message{} // as the parent: work that no request of this process began
		p.config.Started(func(on bool) { p.hold(nobody, on) })
	}
	p.ebb.started()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.live(ctx) })
	g.Go(func() error { return p.rpc.serve(ctx) })
	g.Go(func() error { p.watchParent(ctx); return nil })
	err = g.Wait()
	p.leave()
	p.crew.wait()
	p.close()
	if cause := context.Cause(ctx); errors.Is(cause, errShutdown) || errors.Is(cause, errOrphaned) {
		p.config.Log.DebugContext(ctx, "kernel ended", "why", cause.Error())
		return nil
	}
	return err
}

// leave ends the cells of ours, because the kernel ends.
func (p *Proxy) leave() {
	p.left.Do(func() { close(p.leaving) })
	p.lane.interrupt(ErrEnding)
}

// listen opens the five sockets.
func (p *Proxy) listen(ctx context.Context) error {
	c := p.config.Connection
	for _, s := range []struct {
		socket *socket
		port   int
	}{{p.heartbeat, c.Heartbeat}, {p.iopub, c.IOPub}, {p.stdin, c.Stdin}, {p.control, c.Control}, {p.shell, c.Shell}} {
		network, address := c.Address(s.port)
		if err := s.socket.listen(ctx, network, address); err != nil {
			return err
		}
	}
	return nil
}

// close ends the sockets, each once its peers have what is queued for them.
func (p *Proxy) close() {
	var closing sync.WaitGroup
	for _, s := range []*socket{p.shell, p.control, p.stdin, p.heartbeat, p.iopub} {
		closing.Go(s.close)
	}
	closing.Wait()
}

// parentInterval is how often we look whether the process that started us is
// still there.
const parentInterval = time.Second

// watchParent ends the kernel when its parent has ended without saying so: a
// server that was killed. Nobody could reach the kernel any more.
func (p *Proxy) watchParent(ctx context.Context) {
	if p.config.ParentPID == 0 || os.Getppid() != p.config.ParentPID {
		return // started through something in between, which may end
	}
	tick := time.NewTicker(parentInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if os.Getppid() != p.config.ParentPID {
			p.stop(errOrphaned)
			return
		}
	}
}

// Interrupt does what ■ does: it ends what runs, here or in the child.
func (p *Proxy) Interrupt() { p.interrupt(nil) }

// publish sends a message of our own to every subscriber of iopub.
func (p *Proxy) publish(t jupyter.Type, request *jupyter.Message, content any) {
	m, err := jupyter.New(t, p.session, rawHeader(request), content)
	if err != nil {
		p.config.Log.Error("message not published", "msg_type", string(t), "error", err)
		return
	}
	m.Identities = [][]byte{append(slices.Clip(p.topic), t...)}
	p.broadcast(broadcast{msg: m, frames: p.signer.Encode(m)})
}

// broadcast sends what is on its way to iopub.
func (p *Proxy) broadcast(b broadcast) {
	p.ebb.passed(b.frames)
	p.journal.note(b.msg)
	p.iopub.publish(b, p.signer)
}

// reply answers a request on the channel and the way it came.
func (p *Proxy) reply(r *route, content any, metadata map[string]any) {
	m, err := jupyter.New(r.request.Header.Type.Reply(), p.session, r.request.RawHeader, content)
	if err == nil && metadata != nil {
		err = m.SetMetadata(metadata)
	}
	if err != nil {
		p.config.Log.Error("request not answered", "msg_type", string(r.request.Header.Type), "error", err)
		return
	}
	m.Identities = r.request.Identities
	p.socketOf(r.channel).reply(r.peer, p.signer.Encode(m))
}

func (p *Proxy) socketOf(c channel) *socket {
	switch c {
	case onControl:
		return p.control
	case onStdin:
		return p.stdin
	case onShell, channels:
	}
	return p.shell
}

// decode reads a front end's message. One that is malformed, wrongly signed or
// sent twice is logged and dropped: it never ends a loop.
func (p *Proxy) decode(s *socket, frames [][]byte) *jupyter.Message {
	m, err := p.signer.Decode(frames)
	if err == nil && p.config.Connection.Key != "" {
		err = p.seen.check(m.Signature)
	}
	if err != nil {
		p.config.Log.Warn("message dropped", "socket", s.name, "error", err)
		return nil
	}
	return m
}

// replays remembers signatures, so that nobody can send a message again that
// somebody else has signed. It forgets the oldest.
type replays struct {
	mu    sync.Mutex
	seen  map[string]struct{}
	order []string
	next  int
}

// maxReplays is how many signatures are remembered, as in jupyter_client.
const maxReplays = 1 << 16

var errReplayed = fmt.Errorf("%w: it was sent before", jupyter.ErrSignature)

func (r *replays) check(signature []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := string(signature)
	if _, there := r.seen[s]; there {
		return errReplayed
	}
	r.seen[s] = struct{}{}
	if len(r.order) < maxReplays {
		r.order = append(r.order, s)
		return nil
	}
	delete(r.seen, r.order[r.next])
	r.order[r.next] = s
	r.next = (r.next + 1) % maxReplays
	return nil
}

func rawHeader(m *jupyter.Message) []byte {
	if m == nil {
		return nil
	}
	return m.RawHeader
}
