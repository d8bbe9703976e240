package kernel

import (
	"bufio"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"outlast/kernel/jupyter"
)

// An rpcServer takes the calls of magics in the middle of Python. The child's
// bridge connects once for each call, says which magic, and shows what it is
// told, so that the output has its place in the cell. It is reachable only from
// a folder of ours, and demands a token in any case.
//
// One line of JSON a message. To us: the call, then answers {value} or {error}
// and {interrupt}. To Python: {op: stream, display_data, update_display_data,
// eval, exec, end}.
type rpcServer struct {
	proxy    *Proxy
	folder   *folder
	address  string
	token    string
	listener net.Listener
}

func newRPCServer(p *Proxy, temp string) (*rpcServer, error) {
	own, err := socketFolder(temp)
	if err != nil {
		return nil, fmt.Errorf("make a folder for the kernel: %w", err)
	}
	s := &rpcServer{proxy: p, folder: own, token: uuid.NewString(), address: filepath.Join(own.path, "m")}
	network := "unix"
	if runtime.GOOS == "windows" { // Python has no Unix sockets there
		network, s.address = "tcp", "127.0.0.1:0"
	}
	if s.listener, err = net.Listen(network, s.address); err != nil { //nolint:noctx // local
		own.remove()
		return nil, fmt.Errorf("listen for magics: %w", err)
	}
	s.address = s.listener.Addr().String()
	return s, nil
}

func (s *rpcServer) close() {
	s.listener.Close() //nolint:errcheck // it may be closed already
	s.folder.remove()
}

// serve takes calls until ctx is done, and waits for those that run.
func (s *rpcServer) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.listener.Close() }) //nolint:errcheck // that is what ends Accept
	defer stop()
	var calls sync.WaitGroup
	defer calls.Wait()
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			s.proxy.config.Log.WarnContext(ctx, "call of a magic not taken", "error", err)
			time.Sleep(acceptPause)
			continue
		}
		calls.Go(func() {
			defer conn.Close() //nolint:errcheck // the call is over
			// An interrupt does not close it: the magic has last words, and a second
			// interrupt may come.
			defer context.AfterFunc(ctx, func() { conn.Close() })() //nolint:errcheck // it ends what waits
			if err := s.call(ctx, conn); err != nil {
				s.proxy.config.Log.InfoContext(ctx, "call of a magic failed", "error", err)
			}
		})
	}
}

// rpcCall is the first line of a call.
type rpcCall struct {
	Token  string `json:"token"`
	Name   string `json:"name"`
	Cell   bool   `json:"cell"`
	Line   string `json:"line"`
	Body   string `json:"body"`
	Parent struct {
		Header   json.RawMessage `json:"header"`
		Metadata json.RawMessage `json:"metadata"`
	} `json:"parent"`
}

// rpcAnswer is what Python says while a call runs.
type rpcAnswer struct {
	Interrupt bool                    `json:"interrupt"`
	Value     json.RawMessage         `json:"value"`
	Error     *jupyter.ExecutionError `json:"error"`
}

// rpcOrder is what Python is told.
type rpcOrder struct {
	Op      string                  `json:"op"`
	Code    string                  `json:"code,omitempty"`
	Content any                     `json:"content,omitempty"`
	Value   json.RawMessage         `json:"value,omitempty"`
	Error   *jupyter.ExecutionError `json:"error,omitempty"`
}

var errToken = errors.New("it has not the token")

// call runs one magic.
func (s *rpcServer) call(ctx context.Context, conn net.Conn) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lines := bufio.NewReader(conn)
	var c rpcCall
	if err := readLine(lines, &c); err != nil {
		return err
	}
	if subtle.ConstantTimeCompare([]byte(c.Token), []byte(s.token)) != 1 {
		return errToken
	}
	code := "%" + c.Name + " " + c.Line
	if c.Cell {
		code = "%" + code + "\n" + c.Body
	}
	request := &jupyter.Message{RawHeader: orEmpty(c.Parent.Header), Metadata: orEmpty(c.Parent.Metadata)}
	remote := &rpcCell{server: s, conn: conn, request: request, answers: make(chan rpcAnswer, 1)}
	gone := make(chan struct{}) // closed at the end of the connection
	cell := &Cell{Code: code, request: request, sink: remote, interrupts: make(chan struct{}, maxInterrupts), gone: gone}
	go func() {
		defer close(gone)
		for {
			var a rpcAnswer
			if err := readLine(lines, &a); err != nil {
				cancel(ErrEnding) // the cell that called is gone, or it makes no sense
				return
			}
			if a.Interrupt {
				cell.interrupted()
				cancel(ErrInterrupted)
				continue
			}
			select {
			case remote.answers <- a:
			default: // nobody asks any more
			}
		}
	}()
	err := s.proxy.config.Interceptor.Run(ctx, cell)
	end := rpcOrder{Op: "end", Value: cell.result}
	if err != nil {
		end = rpcOrder{Op: "end", Error: failure(err)}
	}
	err = remote.tell(end)
	remote.ended.Store(true)
	conn.Close() //nolint:errcheck // all is said; it ends the listening
	<-gone
	return err
}

func orEmpty(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 {
		return json.RawMessage("{}")
	}
	return raw
}

func readLine(r *bufio.Reader, v any) error {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return err
	}
	return json.Unmarshal(line, v)
}

// rpcCell is the sink of a magic that Python calls.
type rpcCell struct {
	server  *rpcServer
	conn    net.Conn
	request *jupyter.Message
	answers chan rpcAnswer
	ended   atomic.Bool // the call is over; what is still shown goes past Python

	asking  sync.Mutex // one question at a time
	writing sync.Mutex
}

var _ sink = (*rpcCell)(nil)

func (c *rpcCell) tell(o rpcOrder) error {
	data, err := json.Marshal(o)
	if err != nil {
		return err
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	_, err = c.conn.Write(append(data, '\n'))
	return err
}

func (c *rpcCell) emit(t jupyter.Type, content any) {
	if c.ended.Load() {
		c.server.proxy.publish(t, c.request, content)
		return
	}
	if err := c.tell(rpcOrder{Op: string(t), Content: content}); err != nil {
		c.server.proxy.config.Log.Debug("output of a magic not shown", "error", err)
	}
}

func (c *rpcCell) eval(ctx context.Context, expr string) (json.RawMessage, error) {
	return c.ask(ctx, rpcOrder{Op: "eval", Code: expr})
}

func (c *rpcCell) exec(ctx context.Context, code string) error {
	_, err := c.ask(ctx, rpcOrder{Op: "exec", Code: code})
	return err
}

// hand runs code at once: Python waits for us in the middle of the cell.
func (c *rpcCell) hand(ctx context.Context, code string) error { return c.exec(ctx, code) }

func (c *rpcCell) ask(ctx context.Context, o rpcOrder) (json.RawMessage, error) {
	c.asking.Lock()
	defer c.asking.Unlock()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	select {
	case <-c.answers: // to a question that was given up
	default:
	}
	if err := c.tell(o); err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case a := <-c.answers:
		if a.Error != nil {
			return nil, a.Error
		}
		return a.Value, nil
	}
}

var errInsideChild = errors.New("a kernel cannot be restarted from inside its own cell: run the magic as the first line of a cell")

func (c *rpcCell) restart(context.Context) error { return errInsideChild }
