package kernel

import (
	"outlast/kernel/jupyter"
)

// published passes on what the child publishes. What answers our own questions
// stays here.
func (p *Proxy) published(g *generation, frames [][]byte) {
	m, err := g.child.decode(frames)
	if err != nil {
		p.config.Log.Warn("output dropped", "error", err)
		return
	}
	if m.Header.Type == jupyter.TypeIOPubWelcome {
		p.welcomed()
		return
	}
	if !g.up.Load() && m.ParentID() == "" {
		// Said while it boots. A front end of a kernel without us is not there
		// yet to hear it; ours is, and would show it in whatever cell runs first.
		p.config.Log.Debug("boot output left out", "msg_type", string(m.Header.Type))
		return
	}
	r := p.routes.get(m.ParentID())
	state := stateOf(m)
	idle := state == jupyter.Idle
	if r != nil && r.answer != nil {
		r.heard()
		if idle {
			p.routes.idle(r)
		}
		return
	}
	if state == jupyter.Busy && r != nil && r.cell != nil {
		p.working.childBegins(r.request, func() bool { return p.routes.hasReply(r) })
		if r.cell.claim.Lines > 0 {
			return // we have said so when its magics began
		}
	}
	if idle && r != nil {
		p.working.childEnds(r.request)
	}
	if m.Header.Type == jupyter.TypeExecuteInput {
		p.count.see(m)
	}
	if kept(m.Header.Type) {
		g.flood.output(frames)
	}
	p.broadcast(broadcast{msg: m, frames: p.passed(m, frames, m.Identities), more: true})
	if !idle {
		return
	}
	if r != nil {
		p.routes.idle(r)
	}
	p.stillWorking(false)
}

// stateOf returns the state that a status message tells; "" for any other.
func stateOf(m *jupyter.Message) jupyter.State {
	if m.Header.Type != jupyter.TypeStatus {
		return ""
	}
	content, err := jupyter.Decode[jupyter.KernelStatusContent](m)
	if err != nil {
		return ""
	}
	return content.State
}

// subscribed takes subscriptions to iopub. A new one is greeted, if the child
// greets (JEP 65).
func (p *Proxy) subscribed(from *peer, frames [][]byte) {
	if len(frames) != 1 {
		return
	}
	if topic, fresh := from.subscribe(frames[0]); fresh && p.info.greets() {
		p.welcome(from, topic)
	}
}

// welcomed takes note that the child greets subscribers, and greets for it
// those who were here before.
func (p *Proxy) welcomed() {
	if !p.info.setGreets(p.config) {
		return
	}
	for _, peer := range p.iopub.all() {
		for _, topic := range peer.subscriptions() {
			p.welcome(peer, topic)
		}
	}
}

func (p *Proxy) welcome(to *peer, topic string) {
	m, err := jupyter.New(jupyter.TypeIOPubWelcome, p.session, nil, jupyter.WelcomeContent{Subscription: topic})
	if err != nil {
		p.config.Log.Error("subscriber not greeted", "error", err)
		return
	}
	m.Identities = [][]byte{[]byte(topic)}
	p.iopub.send(to, p.signer.Encode(m))
}
