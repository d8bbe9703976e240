package kernel

import (
	"time"

	"outlast/kernel/jupyter"
)

// fromControl takes what front ends ask on control. Nothing on shell holds it
// up.
func (p *Proxy) fromControl(from *peer, frames [][]byte) {
	m := p.decode(p.control, frames)
	if m == nil {
		return
	}
	r := &route{request: m, channel: onControl, peer: from.id}
	switch m.Header.Type {
	case jupyter.KernelInfoRequest:
		p.answerInfo(r)
	case jupyter.InterruptRequest:
		p.interrupt(r)
	case jupyter.ShutdownRequest:
		p.shutdown(r)
	default:
		p.forward(r)
	}
}

// interrupt ends what runs: a cell of ours, and what the child does. r is the
// request, or nil for a signal. A child that wants a message gets one.
func (p *Proxy) interrupt(r *route) {
	p.withdraw()
	done := p.lane.interrupt(ErrInterrupted)
	if !done && r != nil && p.config.Spec.InterruptMode == messageMode {
		p.forward(r) // the answer is the child's too
		return
	}
	if !done {
		p.interruptChild()
	}
	if r != nil {
		p.publishStatus(jupyter.Busy, r.request)
		p.reply(r, jupyter.StatusContent{Status: jupyter.OK}, nil)
		p.publishStatus(jupyter.Idle, r.request)
	}
}

// withdraw ends the cells that no child was given yet.
func (p *Proxy) withdraw() {
	for i, r := range p.life.withdraw() {
		p.routes.remove(r)
		doomed := p.lane.doom(r.cell)
		if i == 0 {
			p.publishStatus(jupyter.Busy, r.request)
			p.fail(r, &jupyter.ExecutionError{Name: "KeyboardInterrupt", Traceback: []string{"KeyboardInterrupt: before Python had started"}})
		} else {
			p.abortCell(r.cell)
		}
		p.abort(doomed)
		p.lane.answered(r.cell)
	}
}

// interruptChild interrupts what the child does for a cell of ours.
func (p *Proxy) interruptChild() {
	if p.config.Spec.InterruptMode == messageMode {
		r := p.internal(jupyter.InterruptRequest, struct{}{}, nil)
		r.channel = onControl
		p.forward(r)
		return
	}
	if err := p.life.interrupt(); err != nil {
		p.config.Log.Warn("child not interrupted", "error", err)
	}
}

// messageMode is the interrupt mode of kernels that want a message.
const messageMode = "message"

// shutdownGrace is how long the child may take to answer a shutdown. Jupyter
// gives us 2.5 s for all of it.
const shutdownGrace = time.Second

// shutdown ends the kernel: the child is told, and its answer is ours. Cells of
// ours end with ErrEnding, and so leave alone what works without the kernel.
func (p *Proxy) shutdown(r *route) {
	content, err := jupyter.Decode[jupyter.ShutdownContent](r.request)
	if err != nil {
		p.config.Log.Warn("shutdown request not understood", "error", err)
	}
	p.leave()
	listens := p.life.shutdown()
	p.crew.start(func() {
		if listens && p.tellShutdown(content) {
			p.life.obeyed()
		}
		answer := jupyter.ShutdownReplyContent{Status: jupyter.OK, Restart: content.Restart}
		p.publishStatus(jupyter.Busy, r.request)
		p.publish(jupyter.ShutdownReply, r.request, answer)
		p.reply(r, answer, nil)
		p.publishStatus(jupyter.Idle, r.request)
		p.stop(errShutdown)
	})
}

// tellShutdown asks the child to end, and reports whether it said that it will.
func (p *Proxy) tellShutdown(content jupyter.ShutdownContent) bool {
	ask := p.internal(jupyter.ShutdownRequest, content, nil)
	ask.channel = onControl
	gone := p.life.gone()
	p.forward(ask)
	select {
	case <-ask.answer:
		return true
	case <-gone:
	case <-time.After(shutdownGrace):
	}
	return false
}
