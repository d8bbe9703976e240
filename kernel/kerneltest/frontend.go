package kerneltest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"outlast/kernel/jupyter"
)

// Patience is how long a front end waits for what a test expects. It is never
// waited for in a test that passes.
const Patience = 20 * time.Second

// A Received is one message that a front end received, and all its frames.
type Received struct {
	Channel Channel
	*jupyter.Message
	Frames [][]byte
}

// A Verdict is what an expectation says of the messages so far.
type Verdict int

// The verdicts.
const (
	Unmet      Verdict = iota // not yet
	Met                       // it is fulfilled
	Unmeetable                // it can no more be fulfilled
)

// An Expectation judges all messages that were received so far, in order.
type Expectation func(log []Received) Verdict

// A Frontend is a Jupyter client. It fails its test if the kernel sends it what
// is malformed, wrongly signed or signed twice. Its methods may be called
// concurrently; those that wait only on the test's goroutine.
type Frontend struct {
	t        testing.TB
	conn     jupyter.Connection
	signer   jupyter.Signer
	session  string
	identity string
	links    map[Channel]*Conn

	mu     sync.Mutex
	news   chan struct{} // closed and replaced with each message
	log    []Received
	signed map[string]bool
	faults []string
	muted  string
	ending bool
	reader sync.WaitGroup
}

// NewFrontend connects a front end with an identity of its own.
func NewFrontend(t testing.TB, conn jupyter.Connection) *Frontend {
	t.Helper()
	return NewFrontendAs(t, conn, uuid.NewString())
}

// NewFrontendAs connects a front end whose sockets have the given identity. It
// is closed when the test ends.
func NewFrontendAs(t testing.TB, conn jupyter.Connection, identity string) *Frontend {
	t.Helper()
	signer, err := jupyter.NewSigner(conn.Scheme, conn.Key)
	require.NoError(t, err)
	f := &Frontend{
		t: t, conn: conn, signer: signer, session: uuid.NewString(), identity: identity,
		links: map[Channel]*Conn{}, news: make(chan struct{}), signed: map[string]bool{},
	}
	for _, ch := range []Channel{IOPub, Stdin, Control, Shell} {
		typ := Dealer
		if ch == IOPub {
			typ = Sub
		}
		link := f.dial(ch, typ)
		f.links[ch] = link
		f.reader.Go(func() { f.read(ch, link) })
	}
	require.NoError(t, f.links[IOPub].Send([]byte{1}))
	t.Cleanup(f.Close)
	return f
}

// dial connects to a kernel that may still be starting.
func (f *Frontend) dial(ch Channel, typ SocketType) *Conn {
	f.t.Helper()
	network, address := f.conn.Address(ch.Port(f.conn))
	var err error
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		var c *Conn
		if c, err = Dial(network, address, typ, f.identity); err == nil {
			return c
		}
	}
	require.NoError(f.t, err, "connect to %s", ch)
	return nil
}

// Close closes all connections, and fails the test if the kernel misbehaved.
func (f *Frontend) Close() {
	f.mu.Lock()
	f.ending = true
	f.mu.Unlock()
	for _, c := range f.links {
		c.Close()
	}
	f.reader.Wait()
	for _, fault := range f.faults {
		f.t.Errorf("the kernel sent %s", fault)
	}
	f.faults = nil
}

func (f *Frontend) read(ch Channel, c *Conn) {
	for {
		frames, err := c.Receive()
		f.mu.Lock()
		if err != nil {
			if !f.ending && !isClosed(err) {
				f.faults = append(f.faults, fmt.Sprintf("on %s: %v", ch, err))
			}
			f.mu.Unlock()
			return
		}
		f.enter(ch, frames)
		close(f.news)
		f.news = make(chan struct{})
		f.mu.Unlock()
	}
}

// isClosed reports whether a connection ended as connections do, at a frame's
// end.
func isClosed(err error) bool {
	var op *net.OpError
	return strings.HasSuffix(err.Error(), "EOF") || errors.As(err, &op)
}

func (f *Frontend) enter(ch Channel, frames [][]byte) {
	m, err := f.signer.Decode(frames)
	if err == nil && len(m.Signature) > 0 && f.signed[string(m.Signature)] {
		err = fmt.Errorf("signature %s was there before", m.Signature)
	}
	if err != nil {
		f.faults = append(f.faults, fmt.Sprintf("on %s: %v: %q", ch, err, frames))
		return
	}
	if f.muted != "" && m.ParentID() == f.muted && m.Header.Type == jupyter.TypeStream {
		return
	}
	f.signed[string(m.Signature)] = true
	f.log = append(f.log, Received{ch, m, frames})
}

// Nudge returns once the front end hears the kernel on iopub. As servers do, it
// asks for kernel_info until then.
func (f *Frontend) Nudge() {
	f.t.Helper()
	heard := func(ch Channel) bool {
		return slices.ContainsFunc(f.Log(), func(r Received) bool { return r.Channel == ch })
	}
	for end := time.Now().Add(Patience); !heard(IOPub); time.Sleep(10 * time.Millisecond) {
		require.False(f.t, time.Now().After(end), "nothing is heard on iopub")
		f.Send(Control, jupyter.KernelInfoRequest, struct{}{})
	}
	if heard(Control) { // the last one to its end, so that nothing of it comes later
		f.Finish(f.Send(Control, jupyter.KernelInfoRequest, struct{}{}))
	}
}

// Log returns what was received so far.
func (f *Frontend) Log() []Received {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.log)
}

// Await waits until e is met. The test ends when it cannot be met any more, or
// is not in time, and shows what was received.
func (f *Frontend) Await(what string, e Expectation) {
	f.t.Helper()
	limit := time.After(Patience)
	for {
		f.mu.Lock()
		verdict, news := e(f.log), f.news
		f.mu.Unlock()
		switch verdict {
		case Met:
			return
		case Unmeetable:
			f.t.Fatalf("%s: can no more come true.\n%s", what, f)
		case Unmet:
		}
		select {
		case <-news:
		case <-limit:
			f.t.Fatalf("%s: did not come true.\n%s", what, f)
		}
	}
}

// String returns the messages so far, a line each.
func (f *Frontend) String() string {
	var b strings.Builder
	for _, r := range f.Log() {
		content := string(r.Content)
		if len(content) > 300 {
			content = content[:300] + "…"
		}
		fmt.Fprintf(&b, "%-7s %-20s <- %.8s %s\n", r.Channel, r.Header.Type, r.ParentID(), content)
	}
	if b.Len() == 0 {
		return "Nothing was received."
	}
	return b.String()
}

// NewMessage returns a request that was not sent yet.
func (f *Frontend) NewMessage(typ jupyter.Type, content any) *jupyter.Message {
	f.t.Helper()
	m, err := jupyter.New(typ, f.session, nil, content)
	require.NoError(f.t, err)
	return m
}

// Send sends a request and returns it.
func (f *Frontend) Send(ch Channel, typ jupyter.Type, content any) *jupyter.Message {
	f.t.Helper()
	m := f.NewMessage(typ, content)
	f.SendMessage(ch, m)
	return m
}

// SendMessage signs m and sends it.
func (f *Frontend) SendMessage(ch Channel, m *jupyter.Message) {
	f.t.Helper()
	f.SendFrames(ch, f.signer.Encode(m))
}

// SendFrames sends frames as they are.
func (f *Frontend) SendFrames(ch Channel, frames [][]byte) {
	f.t.Helper()
	require.NoError(f.t, f.links[ch].Send(frames...))
}

// Sign returns the frames of m, signed.
func (f *Frontend) Sign(m *jupyter.Message) [][]byte { return f.signer.Encode(m) }

// Mute makes the front end forget what a request prints, at once.
func (f *Frontend) Mute(request *jupyter.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.muted = request.Header.ID
}

// Forget empties the log.
func (f *Frontend) Forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = nil
}

// Execute sends a cell and returns its request.
func (f *Frontend) Execute(code string) *jupyter.Message {
	f.t.Helper()
	return f.Send(Shell, jupyter.ExecuteRequest, jupyter.ExecuteRequestContent{Code: code, AllowStdin: true})
}

// A Result is what came of a request: its reply, and what was published for it.
type Result struct {
	Reply  Received
	Output []Received
}

// Finish waits for the reply to a request and for the idle after it.
func (f *Frontend) Finish(request *jupyter.Message) Result {
	f.t.Helper()
	var result Result
	f.Await("the end of "+string(request.Header.Type)+" "+short(request), func(log []Received) Verdict {
		result = Result{}
		replied, idle := false, false
		for _, r := range log {
			if r.ParentID() != request.Header.ID || r.Channel == Stdin {
				continue
			}
			if r.Channel != IOPub {
				result.Reply, replied = r, true
				continue
			}
			result.Output = append(result.Output, r)
			idle = StateOf(r) == jupyter.Idle
		}
		if replied && idle {
			return Met
		}
		return Unmet
	})
	return result
}

func short(m *jupyter.Message) string {
	content := string(m.Content)
	if len(content) > 80 {
		content = content[:80]
	}
	return content
}

// Run executes a cell to its end.
func (f *Frontend) Run(code string) Result {
	f.t.Helper()
	return f.Finish(f.Execute(code))
}

// Status returns the status of the reply.
func (r Result) Status() jupyter.Outcome { return ContentOf[jupyter.StatusContent](r.Reply).Status }

// Text returns all that was printed.
func (r Result) Text() string {
	var b strings.Builder
	for _, m := range r.Output {
		if m.Header.Type == jupyter.TypeStream {
			b.WriteString(ContentOf[jupyter.StreamContent](m).Text)
		}
	}
	return b.String()
}

// Types returns the types of what was published, in order.
func (r Result) Types() []jupyter.Type {
	types := make([]jupyter.Type, len(r.Output))
	for i, m := range r.Output {
		types[i] = m.Header.Type
	}
	return types
}

// Count returns the execution count of the reply.
func (r Result) Count() int { return ContentOf[jupyter.ExecuteReplyContent](r.Reply).ExecutionCount }

// Failure returns the error of the reply.
func (r Result) Failure() jupyter.ExecutionError {
	return ContentOf[jupyter.ExecutionError](r.Reply)
}

// ContentOf returns the content of a message as T. What does not fit stays zero.
func ContentOf[T any](r Received) T {
	var content T
	json.Unmarshal(r.Content, &content) //nolint:errcheck // see above
	return content
}

// StateOf returns the state that a status message tells; "" for any other.
func StateOf(r Received) jupyter.State {
	if r.Header.Type != jupyter.TypeStatus {
		return ""
	}
	return ContentOf[jupyter.KernelStatusContent](r).State
}
