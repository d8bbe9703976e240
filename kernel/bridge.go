package kernel

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"outlast/kernel/jupyter"
)

// bridgeSource is what we put into a child that has IPython: it numbers our
// cells, blanks our lines of a mixed cell, and makes the magics IPython's own.
//
//go:embed bridge.py
var bridgeSource string

// bridgeCall is how the bridge is reached from an expression.
const bridgeCall = "__import__('sys').modules['_outlast_bridge']."

// Limits of what we ask the child on behalf of a cell.
const (
	// prepareLimit is how long a child may take to take the bridge.
	prepareLimit = 20 * time.Second
	// bookLimit is how long a cell of ours waits for its number. A child that
	// is busy with something else gets it later; the cell does not wait.
	bookLimit = 2 * time.Second
	// bootWait is how long it waits with that for a child that boots.
	bootWait = 15 * time.Second
	// abortPause is how long a child goes on aborting after an error.
	abortPause = 20 * time.Millisecond
)

var (
	errNoIPython = errors.New("the notebook's kernel has no IPython")
	errNoChild   = errors.New("the notebook's Python is not there")
)

// internal returns a request of our own, of which nothing is shown. heard is
// called for what it causes on iopub; it may be nil.
func (p *Proxy) internal(t jupyter.Type, content any, heard func()) *route {
	m, err := jupyter.New(t, p.session, nil, content)
	if err != nil { // our own contents always have a JSON form
		panic(err)
	}
	if heard == nil {
		heard = func() {}
	}
	return &route{request: m, channel: onShell, answer: make(chan *jupyter.Message, 1), heard: heard}
}

// prepare puts the bridge into a child that just began to answer. A child that
// does not take it is a kernel like any other, only without magics in Python.
func (g *generation) prepare(ctx context.Context) {
	if language, _ := g.proxy.info.language(); language != "python" {
		return
	}
	config, err := json.Marshal(map[string]any{
		"address": g.proxy.rpc.address, "token": g.proxy.rpc.token, "names": g.proxy.config.Interceptor.Names(),
	})
	if err != nil {
		g.proxy.config.Log.ErrorContext(ctx, "bridge not built", "error", err)
		return
	}
	source, err := json.Marshal(bridgeSource)
	if err != nil {
		g.proxy.config.Log.ErrorContext(ctx, "bridge not built", "error", err)
		return
	}
	quoted, err := json.Marshal(string(config))
	if err != nil {
		g.proxy.config.Log.ErrorContext(ctx, "bridge not built", "error", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, prepareLimit)
	defer cancel()
	r := g.proxy.internal(jupyter.ExecuteRequest, jupyter.ExecuteRequestContent{
		Code:            fmt.Sprintf("exec(%s, {'__name__': '_outlast_bridge', 'CONFIG': %s})", source, quoted),
		Silent:          true,
		UserExpressions: expression(resultName, "bool("+bridgeCall+"ip)"),
	}, nil)
	g.proxy.routes.add(r)
	g.put(r)
	select {
	case m := <-r.answer:
		if _, err := value(m); err != nil {
			g.proxy.config.Log.InfoContext(ctx, "child takes no bridge", "error", err)
			return
		}
		g.ipy = true
	case <-ctx.Done():
		g.proxy.config.Log.WarnContext(ctx, "child takes no bridge", "error", ctx.Err())
	case <-g.child.exited:
	}
}

// ask runs code silently in the child, for a cell of ours, and returns the reply.
func (p *Proxy) ask(ctx context.Context, x *execution, content jupyter.ExecuteRequestContent) (*jupyter.Message, error) {
	for {
		g := p.life.current()
		if g == nil {
			return nil, errNoChild
		}
		r := p.question(x, content)
		p.forward(r)
		select {
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), ErrInterrupted) && !x.aside {
				p.crew.start(func() { p.takeBack(g, r) })
			}
			return nil, context.Cause(ctx)
		case <-g.child.exited:
			return nil, errNoChild
		case m := <-r.answer:
			status, err := jupyter.Decode[jupyter.StatusContent](m)
			if err != nil || status.Status != jupyter.Aborted {
				return m, err
			}
		}
		select { // an error before us is being dealt with
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(abortPause):
		}
	}
}

// question returns a silent request for a cell of ours.
func (p *Proxy) question(x *execution, content jupyter.ExecuteRequestContent) *route {
	content.Silent = true
	if p.needsIPython() == nil {
		content.UserExpressions = adopting(x, content.UserExpressions)
	}
	return p.internal(jupyter.ExecuteRequest, content, nil)
}

// adoptName is the expression that makes a cell of ours the one that the output
// of threads and other processes belongs to: the child takes the latest request
// for it, which is one that nobody else knows of.
const adoptName = "_outlast_adopt"

// adopting adds that expression to those that are asked for x.
func adopting(x *execution, expressions json.RawMessage) json.RawMessage {
	header, err := json.Marshal(string(x.route.request.RawHeader))
	if err != nil {
		panic(err) // a string always has a JSON form
	}
	adopt := expression(adoptName, bridgeCall+"adopt("+string(header)+")")
	rest := bytes.TrimSpace(expressions)
	if len(rest) < 2 || rest[0] != '{' || len(bytes.TrimSpace(rest[1:len(rest)-1])) == 0 {
		return adopt
	}
	return slices.Concat(adopt[:len(adopt)-1], []byte(","), rest[1:]) // theirs stay in their order
}

// takeBack interrupts the child until it is done with what it was asked for a
// cell that is over. An interrupt that comes before the question is lost.
func (p *Proxy) takeBack(g *generation, r *route) {
	for range takeBackTries {
		p.interruptChild()
		select {
		case <-r.answer:
			return
		case <-g.child.exited:
			return
		case <-time.After(takeBackPause):
		}
	}
}

// Code may catch an interrupt; we do not insist for ever.
const (
	takeBackTries = 5
	takeBackPause = 300 * time.Millisecond
)

// resultName is the name of the one user expression that we ask for.
const resultName = "r"

func expression(name, expr string) json.RawMessage {
	raw, err := json.Marshal(map[string]string{name: expr})
	if err != nil {
		return nil // a string always has a JSON form
	}
	return raw
}

// jsonType is the media type under which the bridge returns values.
const jsonType = "application/vnd.outlast+json"

// value returns what the expression of an answer gave: JSON if the bridge made
// it, else the text.
func value(m *jupyter.Message) (json.RawMessage, error) {
	var content struct {
		Status jupyter.Outcome `json:"status"`
		jupyter.ExecutionError
		Expressions map[string]struct {
			Status jupyter.Outcome `json:"status"`
			jupyter.ExecutionError
			Data map[string]json.RawMessage `json:"data"`
		} `json:"user_expressions"`
	}
	if err := json.Unmarshal(m.Content, &content); err != nil {
		return nil, fmt.Errorf("%w: %w", jupyter.ErrMalformed, err)
	}
	if content.Status != jupyter.OK {
		return nil, &content.ExecutionError
	}
	r, ok := content.Expressions[resultName]
	switch {
	case !ok:
		return nil, errNoIPython
	case r.Status != jupyter.OK:
		return nil, &r.ExecutionError
	case r.Data[jsonType] != nil:
		return r.Data[jsonType], nil
	}
	return r.Data["text/plain"], nil
}

// eval implements Cell.Eval.
func (p *Proxy) eval(ctx context.Context, x *execution, expr string) (json.RawMessage, error) {
	if err := p.needsIPython(); err != nil {
		return nil, err
	}
	quoted, err := json.Marshal(expr)
	if err != nil {
		return nil, err
	}
	m, err := p.ask(ctx, x, jupyter.ExecuteRequestContent{UserExpressions: expression(resultName, bridgeCall+"evaluate("+string(quoted)+")")})
	if err != nil {
		return nil, err
	}
	return value(m)
}

// exec implements Cell.Exec.
func (p *Proxy) exec(ctx context.Context, x *execution, code string) error {
	m, err := p.ask(ctx, x, jupyter.ExecuteRequestContent{Code: code})
	if err != nil {
		return err
	}
	var content struct {
		Status jupyter.Outcome `json:"status"`
		jupyter.ExecutionError
	}
	if err := json.Unmarshal(m.Content, &content); err != nil {
		return fmt.Errorf("%w: %w", jupyter.ErrMalformed, err)
	}
	if content.Status != jupyter.OK {
		return &content.ExecutionError
	}
	return nil
}

func (p *Proxy) needsIPython() error {
	g := p.life.current()
	if g == nil {
		return errNoChild
	}
	if !g.ipy {
		return errNoIPython
	}
	return nil
}

// book gives a cell of ours its number, and its place in the child's history.
// Without a child that could number it, it gets the next number from us. A cell
// beside another one does not wait for it: the child books it later.
func (p *Proxy) book(ctx context.Context, x *execution) int {
	if x.aside {
		p.bookLater(x) //nolint:contextcheck // it outlives the cell
		return p.count.next()
	}
	booting, stop := context.WithTimeout(ctx, bootWait)
	defer stop()
	if !p.awaitChild(booting) || p.needsIPython() != nil {
		return p.count.next()
	}
	ctx, cancel := context.WithTimeout(ctx, bookLimit)
	defer cancel()
	m, err := p.ask(ctx, x, booking(x))
	if err == nil {
		var raw json.RawMessage
		if raw, err = value(m); err == nil {
			var n int
			if err = json.Unmarshal(raw, &n); err == nil {
				p.count.set(n)
				return n
			}
		}
	}
	p.config.Log.InfoContext(ctx, "cell not numbered by the child", "error", err)
	return p.count.next()
}

// bookLater has the child book a cell when it comes to it.
func (p *Proxy) bookLater(x *execution) {
	g := p.life.current()
	if p.needsIPython() != nil || g == nil {
		return
	}
	r := p.question(x, booking(x))
	p.forward(r) // at once, so that two are booked in their order
	p.crew.start(func() {
		select {
		case <-g.child.exited:
		case m := <-r.answer:
			if status, err := jupyter.Decode[jupyter.StatusContent](m); err == nil && status.Status == jupyter.Aborted {
				p.ask(context.Background(), x, booking(x)) //nolint:errcheck // the next child counts anew
			}
		}
	})
}

// booking is what the child is asked to number a cell.
func booking(x *execution) jupyter.ExecuteRequestContent {
	code, err := json.Marshal(x.cell.Code)
	if err != nil {
		panic(err) // a string always has a JSON form
	}
	return jupyter.ExecuteRequestContent{UserExpressions: expression(resultName, bridgeCall+"book("+string(code)+")")}
}

// awaitChild waits for a child that boots, and reports whether there is one.
func (p *Proxy) awaitChild(ctx context.Context) bool {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if p.life.current() != nil {
			return true
		}
		if p.life.dead() {
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

// pollInterval is how often a cell looks whether its child has booted.
const pollInterval = 20 * time.Millisecond

// announce tells the bridge which lines of a mixed cell are not Python's.
func (p *Proxy) announce(ctx context.Context, x *execution) error {
	if !p.awaitChild(ctx) {
		return errNoChild
	}
	g := p.life.current()
	if err := p.needsIPython(); err != nil {
		return fmt.Errorf("run Python below a magic: %w", err)
	}
	code, err := json.Marshal(x.cell.Code)
	if err != nil {
		return err
	}
	handed, err := json.Marshal(x.handed)
	if err != nil {
		return err
	}
	m, err := p.ask(ctx, x, jupyter.ExecuteRequestContent{
		UserExpressions: expression(resultName, bridgeCall+"announce("+string(code)+", "+strconv.Itoa(x.claim.Lines)+", "+string(handed)+")"),
	})
	if err != nil {
		return err
	}
	if _, err = value(m); err == nil && g != nil {
		x.announced = g.number
	}
	return err
}

// expressions evaluates what the front end wants to know after its cell.
func (p *Proxy) expressions(ctx context.Context, x *execution) json.RawMessage {
	content, err := jupyter.Decode[jupyter.ExecuteRequestContent](x.route.request)
	if err != nil || len(content.UserExpressions) == 0 || string(content.UserExpressions) == "{}" || string(content.UserExpressions) == "null" {
		return nil
	}
	m, err := p.ask(ctx, x, jupyter.ExecuteRequestContent{UserExpressions: content.UserExpressions})
	if err != nil {
		return nil
	}
	reply, err := jupyter.Decode[jupyter.ExecuteReplyContent](m)
	if err != nil {
		return nil
	}
	var theirs map[string]json.RawMessage
	if json.Unmarshal(reply.UserExpressions, &theirs) != nil {
		return reply.UserExpressions
	}
	delete(theirs, adoptName)
	raw, err := json.Marshal(theirs)
	if err != nil {
		return nil
	}
	return raw
}
