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
	mode := p.config.Spec.InterruptMode
	done := p.lane.interrupt()
	if !done && mode == "message" {
		if r == nil {
			r = p.internal(jupyter.InterruptRequest, struct{}{}, nil)
			r.channel = onControl
		}
		p.forward(r)
		return
	}
	if !done {
		if err := p.life.interrupt(); err != nil {
			p.config.Log.Warn("child not interrupted", "error", err)
		}
	}
	if r != nil {
		p.publishStatus(jupyter.Busy, r.request)
		p.reply(r, jupyter.StatusContent{Status: jupyter.OK}, nil)
		p.publishStatus(jupyter.Idle, r.request)
	}
}

// shutdownGrace is how long the child may take to answer a shutdown. Jupyter
// gives us 2.5 s for all of it.
const shutdownGrace = time.Second

// shutdown ends the kernel: the child is told, and its answer is ours. What
// runs in cells of ours ends; runs in training do not belong to the kernel.
func (p *Proxy) shutdown(r *route) {
	content, err := jupyter.Decode[jupyter.ShutdownContent](r.request)
	if err != nil {
		p.config.Log.Warn("shutdown request not understood", "error", err)
	}
	p.lane.interrupt()
	p.life.asked()
	ask := p.internal(jupyter.ShutdownRequest, content, nil)
	ask.channel = onControl
	p.crew.start(func() {
		p.forward(ask)
		select {
		case <-ask.answer:
		case <-p.life.gone():
		case <-time.After(shutdownGrace):
		}
		answer := jupyter.ShutdownReplyContent{Status: jupyter.OK, Restart: content.Restart}
		p.publishStatus(jupyter.Busy, r.request)
		p.publish(jupyter.ShutdownReply, r.request, answer)
		p.reply(r, answer, nil)
		p.publishStatus(jupyter.Idle, r.request)
		p.stop(errShutdown)
	})
}
