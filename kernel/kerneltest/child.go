//go:build unix

package kerneltest

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"outlast/kernel/jupyter"
)

// childVerb is the first argument by which a test binary knows that it is to
// play the wrapped kernel.
const childVerb = "kerneltest-child"

// A Child says how a wrapped kernel behaves. The zero value is a well-behaved
// one that has no IPython.
type Child struct {
	Boot           time.Duration // how long it takes until it listens
	BootExit       int           // with this status it ends instead of listening
	BootText       string        // printed to stderr before anything
	Deaf           bool          // it listens and never answers anything
	SlowReplies    time.Duration // every reply is so late
	DropIdentities bool          // replies and questions carry none, as Deno's
	NoWelcome      bool          // subscribers are not greeted
	NoTopics       bool          // what it publishes has no topic frame
	IPython        bool          // it takes the bridge
	IgnoreSignals  bool          // SIGINT and SIGTERM do nothing
	ByMessage      bool          // it must be interrupted by message
	OnlyTCP        bool          // it knows no local sockets, as several kernels
	Language       string        // default: python
	Record         string        // file that gets every message received, as JSON lines
}

// Argv returns the command line that plays the child: {connection_file} is to
// be filled in. The test binary's TestMain must call Play.
func (c Child) Argv(t testing.TB) []string {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	options, err := json.Marshal(c)
	require.NoError(t, err)
	return []string{exe, childVerb, "{connection_file}", string(options)}
}

// Play plays the child, and ends the process, if the command line says so.
func Play(args []string) {
	if len(args) < 4 || args[1] != childVerb {
		return
	}
	var c Child
	if err := json.Unmarshal([]byte(args[3]), &c); err != nil {
		die(err)
	}
	connection, err := jupyter.ReadConnection(args[2])
	if err != nil {
		die(err)
	}
	if err := c.run(connection); err != nil {
		die(err)
	}
	os.Exit(0)
}

func die(err error) {
	fmt.Fprintln(os.Stderr, "fake child:", err)
	os.Exit(99)
}

// fake is a child at work.
type fake struct {
	Child
	session string
	signer  jupyter.Signer
	keyed   bool
	record  *json.Encoder

	interrupt chan struct{}
	input     chan *jupyter.Message
	queue     chan request

	mu    sync.Mutex
	peers map[Channel]map[string]*Conn
	seen  map[string]bool
	count int
	abort time.Time // cells that came before it are aborted
	lines map[string]int
}

// A request is one message to the child, and when it came.
type request struct {
	*jupyter.Message
	channel Channel
	peer    string // its identity
	came    time.Time
}

func (c Child) run(connection jupyter.Connection) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	fmt.Fprint(os.Stderr, c.BootText)
	time.Sleep(c.Boot)
	if c.OnlyTCP && connection.Transport != jupyter.TCP {
		die(fmt.Errorf("transport %q", connection.Transport))
	}
	if c.BootExit != 0 {
		os.Exit(c.BootExit)
	}
	f := &fake{
		Child: c, keyed: connection.Key != "", session: uuid.NewString(), interrupt: make(chan struct{}, 8), input: make(chan *jupyter.Message, 8),
		queue: make(chan request, 1<<16), peers: map[Channel]map[string]*Conn{}, seen: map[string]bool{}, lines: map[string]int{},
	}
	var err error
	if f.signer, err = jupyter.NewSigner(connection.Scheme, connection.Key); err != nil {
		return err
	}
	if c.Record != "" {
		file, err := os.OpenFile(c.Record, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		f.record = json.NewEncoder(file)
	}
	for ch, typ := range map[Channel]SocketType{Shell: Router, Control: Router, Stdin: Router, IOPub: XPub, Heartbeat: Rep} {
		network, address := connection.Address(ch.Port(connection))
		listener, err := net.Listen(network, address)
		if err != nil {
			return err
		}
		f.mu.Lock()
		f.peers[ch] = map[string]*Conn{}
		f.mu.Unlock()
		go f.accept(ch, typ, listener)
	}
	go f.work()
	for s := range signals {
		switch {
		case c.IgnoreSignals || c.ByMessage && s == os.Interrupt:
		case s == os.Interrupt:
			f.interrupt <- struct{}{}
		default:
			os.Exit(143)
		}
	}
	return nil
}

func (f *fake) accept(ch Channel, typ SocketType, listener net.Listener) {
	for {
		raw, err := listener.Accept()
		if err != nil {
			die(err)
		}
		go func() {
			c, err := Open(raw, typ, "")
			if err != nil {
				return
			}
			f.mu.Lock()
			f.peers[ch][c.PeerIdentity] = c
			f.mu.Unlock()
			for {
				frames, err := c.Receive()
				if err != nil {
					return
				}
				f.received(ch, c, frames)
			}
		}()
	}
}

// A Record is one message that the child received.
type Record struct {
	Channel Channel
	Frames  [][]byte
}

// ReadRecords returns what a child has recorded so far.
func ReadRecords(t testing.TB, path string) []Record {
	t.Helper()
	file, err := os.Open(path)
	if os.IsNotExist(err) {
		return nil
	}
	require.NoError(t, err)
	defer file.Close() //nolint:errcheck // it was only read
	var all []Record
	for d := json.NewDecoder(file); ; {
		var r Record
		if d.Decode(&r) != nil {
			return all // the last line may be on its way
		}
		all = append(all, r)
	}
}

func (f *fake) received(ch Channel, c *Conn, frames [][]byte) {
	switch ch {
	case IOPub:
		f.subscribed(c, frames)
		return
	case Heartbeat:
		c.Send(frames...) //nolint:errcheck // the peer has gone
		return
	case Shell, Control, Stdin:
	}
	if f.record != nil {
		f.mu.Lock()
		f.record.Encode(Record{ch, frames}) //nolint:errcheck // the test misses it
		f.mu.Unlock()
	}
	m, err := f.signer.Decode(frames)
	f.mu.Lock()
	if err == nil && f.keyed && f.seen[string(m.Signature)] {
		err = fmt.Errorf("sent twice: %s", m.Header.Type)
	}
	if err == nil {
		f.seen[string(m.Signature)] = true
	}
	f.mu.Unlock()
	switch {
	case err != nil:
		die(fmt.Errorf("the kernel sent on %s: %w", ch, err))
	case f.Deaf:
	case ch == Stdin:
		f.input <- m
	case ch == Control || m.Header.SubshellID != "":
		go f.answer(request{m, ch, c.PeerIdentity, time.Now()})
	default:
		f.queue <- request{m, ch, c.PeerIdentity, time.Now()}
	}
}

func (f *fake) subscribed(c *Conn, frames [][]byte) {
	if f.Deaf || f.NoWelcome || len(frames) != 1 || len(frames[0]) == 0 || frames[0][0] != 1 {
		return
	}
	topic := frames[0][1:]
	m, err := jupyter.New(jupyter.TypeIOPubWelcome, f.session, nil, jupyter.WelcomeContent{Subscription: string(topic)})
	if err != nil {
		die(err)
	}
	m.Identities = [][]byte{topic}
	c.Send(f.signer.Encode(m)...) //nolint:errcheck // the peer has gone
}

// work works off the shell, one request after the other, as ipykernel does.
func (f *fake) work() {
	for r := range f.queue {
		f.answer(r)
	}
}

// send sends a message on a channel, to one peer or to all subscribers.
func (f *fake) send(ch Channel, typ jupyter.Type, parent request, content any) {
	m, err := jupyter.New(typ, f.session, parent.RawHeader, content)
	if err != nil {
		die(err)
	}
	if ch != IOPub {
		if !f.DropIdentities {
			m.Identities = parent.Identities
			f.toPeer(ch, parent.peer, f.signer.Encode(m))
			return
		}
		f.toPeers(ch, f.signer.Encode(m))
		return
	}
	if !f.NoTopics {
		m.Identities = [][]byte{[]byte("kernel.fake." + string(typ))}
	}
	f.toPeers(ch, f.signer.Encode(m))
}

// toPeer sends frames to the peer that has the identity of who asked on shell,
// as ROUTER sockets do; without one they are lost.
func (f *fake) toPeer(ch Channel, identity string, frames [][]byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.peers[ch][identity]; c != nil {
		c.Send(frames...) //nolint:errcheck // the peer has gone
	}
}

// toPeers sends frames to everybody: there is one peer, the proxy.
func (f *fake) toPeers(ch Channel, frames [][]byte) {
	f.eachPeer(ch, func(c *Conn) { c.Send(frames...) }) //nolint:errcheck // the peer has gone
}

func (f *fake) eachPeer(ch Channel, do func(*Conn)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.peers[ch] {
		do(c)
	}
}

func (f *fake) reply(r request, content any) {
	time.Sleep(f.SlowReplies)
	f.send(r.channel, r.Header.Type.Reply(), r, content)
}

func (f *fake) status(s jupyter.State, r request) {
	f.send(IOPub, jupyter.TypeStatus, r, jupyter.KernelStatusContent{State: s})
}
