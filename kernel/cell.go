package kernel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"outlast/kernel/jupyter"
)

// A Cell is one cell of ours while it runs, and what shows its output. Its
// methods may be called concurrently, and those that show something also after
// the cell has ended: a display may live longer.
type Cell struct {
	Code string

	request    *jupyter.Message
	sink       sink
	interrupts chan struct{}
	gone       <-chan struct{}

	mu     sync.Mutex
	result json.RawMessage
}

// A sink is where a cell of ours lives: in the lane, or inside a cell of the
// child that calls a magic.
type sink interface {
	emit(t jupyter.Type, content any)
	eval(ctx context.Context, expr string) (json.RawMessage, error)
	exec(ctx context.Context, code string) error
	restart(ctx context.Context) error
	// kept hands over what the journal has of a cell; again shows it.
	kept(count int, see func(journalLine)) (lost bool, err error)
	again(line journalLine)
	// hand has Python run code as a part of the cell.
	hand(ctx context.Context, code string) error
	// hold says whether work of the cell goes on behind it.
	hold(on bool)
}

// maxInterrupts is how many interrupts are counted; nobody counts beyond two.
const maxInterrupts = 2

// Request returns the request that runs the cell.
func (c *Cell) Request() *jupyter.Message { return c.request }

// Interrupts delivers each interrupt that comes while the cell runs, the first
// included.
func (c *Cell) Interrupts() <-chan struct{} { return c.interrupts }

// Gone is closed when the cell has lost who it works for: the kernel ends, or
// the child that called has died. Jupyter interrupts a kernel right before it
// ends it: whoever takes an interrupt for a wish waits a moment for this.
func (c *Cell) Gone() <-chan struct{} { return c.gone }

// Stream shows text on stdout or stderr.
func (c *Cell) Stream(name jupyter.StreamName, text string) {
	if text != "" {
		c.sink.emit(jupyter.TypeStream, jupyter.StreamContent{Name: name, Text: text})
	}
}

// Display shows b, under an id if it is to be updated.
func (c *Cell) Display(b jupyter.Bundle, id string) { c.show(jupyter.TypeDisplayData, b, id) }

// DisplayWith shows b, with what front ends are told of how to show it.
func (c *Cell) DisplayWith(b jupyter.Bundle, metadata map[string]any) {
	c.sink.emit(jupyter.TypeDisplayData, jupyter.DisplayContent{Data: b, Metadata: metadata, Transient: map[string]any{}})
}

// Update replaces what was shown under id.
func (c *Cell) Update(b jupyter.Bundle, id string) { c.show(jupyter.TypeUpdateDisplay, b, id) }

func (c *Cell) show(t jupyter.Type, b jupyter.Bundle, id string) {
	transient := map[string]any{}
	if id != "" {
		transient["display_id"] = id
	}
	c.sink.emit(t, jupyter.DisplayContent{Data: b, Metadata: map[string]any{}, Transient: transient})
}

// Eval returns the value of an expression in the notebook's Python, as JSON.
func (c *Cell) Eval(ctx context.Context, expr string) (json.RawMessage, error) {
	return c.sink.eval(ctx, expr)
}

// Exec runs code in the notebook's Python, without a trace in the history.
func (c *Cell) Exec(ctx context.Context, code string) error { return c.sink.exec(ctx, code) }

// Hand has the notebook's Python run one line of code as a part of the cell,
// with all that a cell has: output, questions, interrupts. In a cell that a
// front end sent it runs when the magics of the cell have ended.
func (c *Cell) Hand(ctx context.Context, code string) error { return c.sink.hand(ctx, code) }

// RestartChild ends the wrapped kernel, even one that hangs, and returns when a
// new one answers.
func (c *Cell) RestartChild(ctx context.Context) error { return c.sink.restart(ctx) }

// SetResult sets the value that a magic has for Python: x = %name.
func (c *Cell) SetResult(value json.RawMessage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.result = value
}

// interrupted notes one interrupt.
func (c *Cell) interrupted() {
	select {
	case c.interrupts <- struct{}{}:
	default:
	}
}

// laneCell is the sink of a cell that a front end sent.
type laneCell struct {
	p *Proxy
	x *execution
}

var _ sink = laneCell{}

func newCell(p *Proxy, x *execution, content jupyter.ExecuteRequestContent) *Cell {
	return &Cell{
		Code: content.Code, request: x.route.request, sink: laneCell{p, x},
		interrupts: make(chan struct{}, maxInterrupts), gone: p.leaving,
	}
}

func (s laneCell) emit(t jupyter.Type, content any) { s.p.publish(t, s.x.route.request, content) }

func (s laneCell) eval(ctx context.Context, expr string) (json.RawMessage, error) {
	return s.p.eval(ctx, s.x, expr)
}

func (s laneCell) exec(ctx context.Context, code string) error { return s.p.exec(ctx, s.x, code) }

func (s laneCell) hand(_ context.Context, code string) error {
	s.x.handed = code
	return nil
}

func (s laneCell) restart(ctx context.Context) error { return s.p.restart(ctx) }

// beginCell implements the lane's begin: it runs the magics of a cell in a
// goroutine of their own.
func (p *Proxy) beginCell(x *execution) {
	ctx, cancel := context.WithCancelCause(context.Background())
	x.end = func(cause error) {
		if errors.Is(cause, ErrInterrupted) {
			x.cell.interrupted()
		}
		cancel(cause)
	}
	ok := p.crew.start(func() {
		defer cancel(nil)
		p.runCell(ctx, x)
	})
	if !ok {
		cancel(ErrEnding)
	}
}

// runCell runs a cell of ours to its end, or to where its Python begins.
func (p *Proxy) runCell(ctx context.Context, x *execution) {
	began := time.Now()
	request := x.route.request
	p.working.begin(request)
	p.publishStatus(jupyter.Busy, request)
	number := 0
	if x.claim.Whole {
		number = p.enter(ctx, x)
	}
	err := p.config.Interceptor.Run(ctx, x.cell)
	if err == nil && !x.claim.Whole {
		err = p.announce(ctx, x)
	}
	if err != nil && !x.claim.Whole { // its Python, which would have numbered it, does not run
		after, stop := p.afterwards(ctx)
		number = p.enter(after, x)
		stop()
	}
	p.working.end(request)
	if err == nil && !x.claim.Whole {
		p.lane.give(x)
		p.forward(x.route)
		return
	}
	metadata := map[string]any{"started": began.UTC().Format(jupyter.TimeFormat), "status": jupyter.OK, "dependencies_met": true}
	reply := jupyter.ExecuteReplyContent{
		Status: jupyter.OK, ExecutionCount: number,
		UserExpressions: json.RawMessage("{}"), Payload: json.RawMessage("[]"),
	}
	var doomed []*execution
	if err != nil {
		doomed = p.lane.doom(x)
		e := failure(err)
		p.publish(jupyter.TypeError, request, e)
		metadata["status"] = jupyter.Failed
		reply = jupyter.ExecuteReplyContent{Status: jupyter.Failed, ExecutionCount: number, ExecutionError: e}
	} else if raw := p.expressions(ctx, x); raw != nil {
		reply.UserExpressions = raw
	}
	p.reply(x.route, reply, metadata)
	p.publishStatus(jupyter.Idle, request)
	if x.aside {
		p.stillWorking(true)
	}
	p.abort(doomed)
	p.lane.finished(x)
}

// enter numbers a cell, puts it into the history, and says both.
func (p *Proxy) enter(ctx context.Context, x *execution) int {
	number := p.book(ctx, x)
	p.publish(jupyter.TypeExecuteInput, x.route.request, jupyter.ExecuteInputContent{Code: x.cell.Code, ExecutionCount: number})
	return number
}

// afterwards returns a context for what is still asked for a cell that has
// failed. An interrupt was for the magic, and only makes haste here.
func (p *Proxy) afterwards(ctx context.Context) (context.Context, context.CancelFunc) {
	if !errors.Is(context.Cause(ctx), ErrInterrupted) {
		return ctx, func() {}
	}
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), bookLimit)
	p.crew.start(func() {
		select {
		case <-p.leaving:
			cancel()
		case <-after.Done():
		}
	})
	return after, cancel
}

// A sturdy interceptor is one whose mistakes end a cell, not the kernel and with
// it all variables. Cells of the lane and calls from Python go through it alike.
type sturdy struct {
	Interceptor

	log *slog.Logger
}

// Run implements Interceptor.
func (s sturdy) Run(ctx context.Context, cell *Cell) (err error) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		s.log.ErrorContext(ctx, "a magic panicked", "panic", v, "stack", string(debug.Stack()))
		value := fmt.Sprintf("a mistake in Outlast ended this cell: %v", v)
		err = &jupyter.ExecutionError{Name: "OutlastError", Value: value, Traceback: []string{
			"OutlastError: " + value,
			"Variables, and runs in training, are not touched.",
			"To do: run the cell again; if it ends like this again, report it with the stack that the kernel has logged, in the terminal of its server.",
		}}
	}()
	return s.Interceptor.Run(ctx, cell)
}

// failure gives an error the form in which front ends show it.
func failure(err error) *jupyter.ExecutionError {
	if e, ok := errors.AsType[*jupyter.ExecutionError](err); ok {
		return e
	}
	return &jupyter.ExecutionError{Name: "OutlastError", Value: err.Error(), Traceback: []string{"OutlastError: " + err.Error()}}
}

// crew is the goroutines that run cells of ours.
type crew struct {
	mu    sync.Mutex
	ended bool
	wg    sync.WaitGroup
}

// start runs f in a goroutine, unless the kernel ends.
func (c *crew) start(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return false
	}
	c.wg.Go(f)
	return true
}

// wait waits for all of them; no more are started.
func (c *crew) wait() {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.wg.Wait()
}

// counter is the number of the latest cell, as the child and we have counted.
type counter struct {
	n atomic.Int64
}

func (c *counter) now() int { return int(c.n.Load()) }

// next counts a cell.
func (c *counter) next() int { return int(c.n.Add(1)) }

func (c *counter) set(n int) { c.n.Store(int64(n)) }

// see takes note of the number under which the child runs a cell.
func (c *counter) see(input *jupyter.Message) {
	if content, err := jupyter.Decode[jupyter.ExecuteInputContent](input); err == nil {
		c.set(content.ExecutionCount)
	}
}
