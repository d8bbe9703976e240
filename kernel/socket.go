package kernel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/go-zeromq/zmq4"

	"outlast/kernel/jupyter"
)

const (
	// drainLimit is how long closing waits for peers to take what is queued.
	drainLimit = time.Second
	// acceptPause keeps a lasting failure to accept from taking a processor.
	acceptPause    = 50 * time.Millisecond
	maxAcceptPause = time.Second
)

// A socket is one of the five that front ends connect to.
//
// received is called for every message, on the goroutine of its connection:
// messages of one peer come in order. It must not wait for another peer.
type socket struct {
	name     string
	typ      zmq4.SocketType
	received func(p *peer, frames [][]byte)
	log      *slog.Logger

	listener net.Listener
	serving  sync.WaitGroup

	mu     sync.Mutex
	raws   map[net.Conn]struct{} // accepted, the handshake not yet over
	peers  map[*peer]struct{}
	byID   map[string]*peer
	count  int // of peers without an identity
	closed bool
}

// listen opens the socket. A stale ipc file, left by a kernel that was killed,
// is replaced.
func (s *socket) listen(ctx context.Context, network, address string) error {
	if network == "unix" {
		removeStale(address)
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, network, address)
	if err != nil {
		return fmt.Errorf("open the %s socket: %w", s.name, err)
	}
	s.listener = listener
	s.raws, s.peers, s.byID = map[net.Conn]struct{}{}, map[*peer]struct{}{}, map[string]*peer{}
	s.serving.Go(s.accept)
	return nil
}

// removeStale removes the file of a socket that nobody listens on.
func removeStale(path string) {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return
	}
	conn, err := net.Dial("unix", path) //nolint:noctx // local
	if err == nil {
		conn.Close() //nolint:errcheck // somebody lives there
		return
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		os.Remove(path) //nolint:errcheck // listening says what is wrong
	}
}

// accept takes connections until the listener is closed.
func (s *socket) accept() {
	pause := acceptPause
	for {
		raw, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no more files, for instance
			s.log.Warn("connection not accepted", "socket", s.name, "error", err)
			time.Sleep(pause)
			pause = min(2*pause, maxAcceptPause)
			continue
		}
		pause = acceptPause
		s.serving.Go(func() { s.serve(raw) })
	}
}

// serve shakes hands with one connection and reads from it to its end.
func (s *socket) serve(raw net.Conn) {
	if !s.greet(raw) {
		raw.Close() //nolint:errcheck // nothing was said
		return
	}
	l, err := shake(raw, s.typ, "", true)
	s.greeted(raw)
	if err != nil {
		s.log.Debug("connection refused", "socket", s.name, "error", err)
		return
	}
	p := s.add(l)
	if p == nil {
		l.close()
		return
	}
	s.serving.Go(func() { p.write(l) })
	for {
		frames, err := l.receive()
		if err != nil {
			break
		}
		s.received(p, frames)
	}
	s.drop(p)
	p.end(true)
	l.close()
}

// greet notes a connection whose handshake begins, unless the socket closes.
func (s *socket) greet(raw net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.raws[raw] = struct{}{}
	}
	return !s.closed
}

func (s *socket) greeted(raw net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.raws, raw)
}

// add enters a new peer. One with the identity of another takes its place, as a
// client that reconnects does.
func (s *socket) add(l *link) *peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	id := l.identity
	if id == "" || s.typ != zmq4.Router { // only there it is an address
		s.count++
		id = fmt.Sprintf("\x00%04x", s.count) // 0 first, as ZeroMQ's own
	}
	p := newPeer(l, id)
	if old := s.byID[id]; old != nil {
		old.link.close()
	}
	s.peers[p], s.byID[id] = struct{}{}, p
	return p
}

func (s *socket) drop(p *peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.peers, p)
	if s.byID[p.id] == p {
		delete(s.byID, p.id)
	}
}

// reply sends frames to the peer called id. One that has gone misses it.
func (s *socket) reply(id string, frames [][]byte) {
	s.mu.Lock()
	p := s.byID[id]
	s.mu.Unlock()
	if p == nil {
		s.log.Debug("reply to nobody", "socket", s.name)
		return
	}
	s.send(p, frames)
}

// publish sends b to everybody who has subscribed to its topic.
func (s *socket) publish(b broadcast, signer jupyter.Signer) {
	for _, p := range s.all() {
		if p.wants(b.topic()) && !p.publish(b, signer) {
			s.cutOff(p)
		}
	}
}

// release sends what was held because more was to follow.
func (s *socket) release() {
	for _, p := range s.all() {
		p.release()
	}
}

// await waits until nobody who still reads has more than so many bytes to read.
func (s *socket) await(bytes int) {
	for _, p := range s.all() {
		p.await(bytes)
	}
}

func (s *socket) send(p *peer, frames [][]byte) {
	if !p.send(frames) {
		s.cutOff(p)
	}
}

func (s *socket) cutOff(p *peer) {
	p.gone.Do(func() { s.log.Warn("peer cut off: it does not read", "socket", s.name, "limit_bytes", maxBehind) })
}

func (s *socket) all() []*peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	peers := make([]*peer, 0, len(s.peers))
	for p := range s.peers {
		peers = append(peers, p)
	}
	return peers
}

// close stops listening, lets every peer take what is queued for it, for a
// second at most, and returns when all goroutines of the socket have ended.
func (s *socket) close() {
	if s.listener == nil {
		return
	}
	s.mu.Lock()
	s.closed = true
	for raw := range s.raws {
		raw.Close() //nolint:errcheck // the handshake fails, as it should
	}
	s.mu.Unlock()
	s.listener.Close() //nolint:errcheck // it was never written to
	peers, limit := s.all(), time.After(drainLimit)
	for _, p := range peers {
		p.end(false)
	}
	for _, p := range peers {
		select {
		case <-p.written:
		case <-limit:
			limit = time.After(0)
		}
		p.link.finish()
	}
	s.serving.Wait()
}
