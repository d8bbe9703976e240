package kernel

import (
	"outlast/kernel/jupyter"
)

// fromShell takes what front ends ask on shell. It is called on the goroutine
// of the peer and never waits.
func (p *Proxy) fromShell(from *peer, frames [][]byte) {
	m := p.decode(p.shell, frames)
	if m == nil {
		return
	}
	r := &route{request: m, channel: onShell, peer: from.id}
	switch m.Header.Type {
	case jupyter.KernelInfoRequest:
		p.answerInfo(r)
	case jupyter.ShutdownRequest: // clients of old protocols ask here
		p.shutdown(r)
	case jupyter.ExecuteRequest:
		p.execute(r)
	default:
		p.forward(r)
	}
}

// execute puts a cell into the lane. One for a subshell passes beside it, as it
// would in the child.
func (p *Proxy) execute(r *route) {
	content, err := jupyter.Decode[jupyter.ExecuteRequestContent](r.request)
	if err != nil {
		p.config.Log.Warn("cell passed on unread", "msg_id", r.request.Header.ID, "error", err)
		p.forward(r) // what is wrong with it is the child's to say
		return
	}
	x := &execution{route: r, stops: content.Stops() && !content.Silent}
	if !content.Silent {
		p.journal.begin(r.request.Header.ID)
	}
	if content.Stores() {
		x.claim = p.config.Interceptor.Claim(content.Code)
	}
	if r.request.Header.SubshellID != "" && x.claim.Lines == 0 {
		p.forward(r)
		return
	}
	r.cell = x
	x.cell = newCell(p, x, content)
	p.lane.add(x)
}

// forward gives a request to the child, or keeps it until there is one.
func (p *Proxy) forward(r *route) {
	p.routes.add(r)
	if !p.life.give(r) {
		p.routes.remove(r)
		p.refuse(r)
	}
}

// forwardCell implements the lane's forward.
func (p *Proxy) forwardCell(x *execution) {
	if text := p.life.takeNotice(); text != "" {
		p.publish(jupyter.TypeStream, x.route.request, jupyter.StreamContent{Name: jupyter.Stderr, Text: text})
	}
	p.forward(x.route)
}

// refuse answers what cannot be given to any child, because none starts.
func (p *Proxy) refuse(r *route) {
	e := p.life.broken()
	if e == nil { // it has ended since the cell began
		e = &jupyter.ExecutionError{Name: "KernelDied", Value: "the Python kernel has ended.", Traceback: []string{"KernelDied: the Python kernel has ended.", variablesGone}}
	}
	if r.cell != nil {
		p.crew.start(func() { p.refuseCell(r, e) }) // the lane may be locked
		return
	}
	p.publishStatus(jupyter.Busy, r.request)
	if !r.silent() {
		p.reply(r, errorReply{jupyter.Failed, e}, nil)
	}
	p.publishStatus(jupyter.Idle, r.request)
}

func (p *Proxy) refuseCell(r *route, e *jupyter.ExecutionError) {
	doomed := p.lane.doom(r.cell)
	p.publishStatus(jupyter.Busy, r.request)
	p.fail(r, e)
	p.abort(doomed)
	p.lane.answered(r.cell)
}

// errorReply is what any request can be answered with.
type errorReply struct { //nolint:errname // it holds an error and is none
	Status jupyter.Outcome `json:"status"`
	*jupyter.ExecutionError
}

func (p *Proxy) abort(doomed []*execution) {
	for _, x := range doomed {
		p.abortCell(x)
	}
}

// abortCell answers as ipykernel does for a cell that was queued behind an
// error.
func (p *Proxy) abortCell(x *execution) {
	p.publishStatus(jupyter.Busy, x.route.request)
	p.reply(x.route, jupyter.StatusContent{Status: jupyter.Aborted}, map[string]any{"status": jupyter.Aborted})
	p.publishStatus(jupyter.Idle, x.route.request)
}

// stillWorking follows an idle with the busy of what goes on beside it. beside
// says that the idle is of a cell that was answered beside others: then the
// child's own may be among them. What the child says itself is as it would be
// without us.
func (p *Proxy) stillWorking(beside bool) {
	p.working.mu.Lock() // what ends now says so after us
	defer p.working.mu.Unlock()
	m := p.working.now()
	if m == nil && beside {
		m = p.working.child
	}
	if m != nil {
		p.publish(jupyter.TypeStatus, m, jupyter.KernelStatusContent{State: jupyter.Busy})
	}
}

// publishStatus tells whether the kernel works for a request; nil for itself.
func (p *Proxy) publishStatus(s jupyter.State, request *jupyter.Message) {
	if s == jupyter.Idle {
		p.working.childEnds(request) // it was the child's, which has died
	}
	p.publish(jupyter.TypeStatus, request, jupyter.KernelStatusContent{State: s})
	if s == jupyter.Idle {
		p.stillWorking(false)
	}
}

// fromChild takes what the child answers on shell and control.
func (p *Proxy) fromChild(g *generation, c channel, frames [][]byte) {
	m, err := g.child.decode(frames)
	if err != nil {
		p.config.Log.Warn("answer dropped", "error", err)
		return
	}
	r := p.routes.reply(m.ParentID())
	if r == nil {
		p.unasked(c, m, frames)
		return
	}
	if r.answer != nil {
		select {
		case r.answer <- m:
		default: // it was answered already
		}
		return
	}
	var doomed []*execution
	if r.cell != nil {
		p.working.childEnds(r.request)
	}
	if r.cell != nil && failed(m) {
		doomed = p.lane.doom(r.cell)
	}
	p.socketOf(r.channel).reply(r.peer, p.passed(m, frames, r.request.Identities))
	p.abort(doomed)
	if r.cell != nil {
		p.lane.answered(r.cell)
	}
}

func failed(reply *jupyter.Message) bool {
	content, err := jupyter.Decode[jupyter.StatusContent](reply)
	return err == nil && content.Status == jupyter.Failed
}

// unasked passes on what answers nothing that we know of: the identities that
// the child gave back say where to.
func (p *Proxy) unasked(c channel, m *jupyter.Message, frames [][]byte) {
	if len(m.Identities) == 0 {
		p.config.Log.Debug("answer to nobody", "msg_type", string(m.Header.Type))
		return
	}
	p.socketOf(c).reply(string(m.Identities[0]), p.passed(m, frames, m.Identities[1:]))
}

// passed returns the frames of a message on its way through, with another
// return path. All else is what came; where the keys differ, but for the
// signature.
func (p *Proxy) passed(m *jupyter.Message, frames, path [][]byte) [][]byte {
	if !p.life.sharesKey() {
		other := *m
		other.Identities = path
		return p.signer.Encode(&other)
	}
	out := make([][]byte, 0, len(path)+len(frames)-len(m.Identities))
	return append(append(out, path...), frames[len(m.Identities):]...)
}

// fromStdin takes what front ends answer on stdin. Some answer unasked, as
// Colab does: what it means is the child's business.
func (p *Proxy) fromStdin(from *peer, frames [][]byte) {
	if m := p.decode(p.stdin, frames); m != nil {
		p.life.send(onStdin, &route{request: m, channel: onStdin, peer: from.id})
	}
}

// askedStdin takes what the child asks on stdin, and sends it to the front end
// whose cell asks.
func (p *Proxy) askedStdin(g *generation, frames [][]byte) {
	m, err := g.child.decode(frames)
	if err != nil {
		p.config.Log.Warn("question dropped", "error", err)
		return
	}
	if r := p.routes.get(m.ParentID()); r != nil {
		p.stdin.reply(r.peer, p.passed(m, frames, r.request.Identities))
		return
	}
	p.unasked(onStdin, m, frames)
}
