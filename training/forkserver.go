package training

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"sync"
)

// forkServers is how many fork servers a run may use up. One that dies was
// killed, by somebody or for its memory; one that dies often is better missed.
const forkServers = 3

// An order asks a fork server for a worker.
type order struct {
	Job string            `json:"job"`
	Dir string            `json:"cwd"`
	Env map[string]string `json:"env"` // beside the server's own
}

// A nursery is where workers come from that have their libraries imported
// already. It may have none to give; the caller starts a Python then, which is
// the same but for the time that it takes.
type nursery struct {
	mu      sync.Mutex
	server  *forkServer
	threads int // that its libraries use
	begun   int
	closed  bool
}

// worker forks a worker for a, or returns nil if there is none to be had.
func (n *nursery) worker(ctx context.Context, a *attempt, cmd *exec.Cmd, given []*os.File) process {
	plan := a.s.Run.plan
	if plan.Code.Kind == CodeCommand || a.s.history(a.model).cold {
		return nil
	}
	server := n.open(ctx, a.s, a.threads())
	if server == nil {
		return nil
	}
	w, err := server.fork(ctx, order{cmd.Args[len(cmd.Args)-1], cmd.Dir, a.variables()}, given)
	if err != nil {
		a.s.Log.WarnContext(ctx, "worker not forked; a Python is started", "model", a.model.Name, "error", err)
		return nil
	}
	return w
}

// open returns a server that is ready and whose libraries use so many threads, or
// nil.
func (n *nursery) open(ctx context.Context, s *Supervisor, threads int) *forkServer {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.server != nil && !n.server.over() {
		if n.threads != threads {
			return nil // libraries settle that when they are imported
		}
		return n.server
	}
	if n.closed || n.begun >= forkServers || ctx.Err() != nil {
		return nil
	}
	n.begun++
	n.threads = threads
	cmd, err := s.serverCommand(threads)
	if err == nil {
		n.server, err = startForkServer(ctx, cmd)
	}
	if err != nil {
		s.Log.InfoContext(ctx, "no fork server; each worker imports for itself", "why", err)
		n.server = nil
		n.closed = ctx.Err() == nil // it would say so again
	}
	return n.server
}

// close ends the server, if there is one, and waits for that.
func (n *nursery) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	if n.server != nil {
		n.server.close()
	}
}

// serverCommand is how a fork server for the plan's code is started: as workers
// are, so that what it imports is what they would have.
func (s *Supervisor) serverCommand(threads int) (*exec.Cmd, error) {
	code, err := s.writeCode()
	if err != nil {
		return nil, err
	}
	plan := s.Run.plan
	args := append([]string{"-m", "outlast._server", "3"}, append(code.Shared, code.Path)...)
	// Not CommandContext: a pause leaves it to its workers, see nursery.close.
	cmd := exec.Command(plan.Python, args...) //nolint:noctx // see above
	if cmd.Dir = plan.Dir; !isFolder(cmd.Dir) {
		cmd.Dir = s.Run.dir
	}
	cmd.Env = s.environment(threads)
	group(cmd)
	return cmd, nil
}

// blamesFork reports whether what a worker says of its end is what libraries
// say that do not bear a fork.
func blamesFork(message string) bool {
	return strings.Contains(message, "forked subprocess") || strings.Contains(message, "after fork")
}
