package kernel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"outlast/kernel/jupyter"
)

// Spec says how a child is started: the part of its kernelspec that matters.
type Spec struct {
	Argv          []string // with {connection_file}, {resource_dir} and {prefix}
	Env           map[string]string
	InterruptMode string // "signal" (the default) or "message"
	ResourceDir   string
	Prefix        string
}

// The stages of stopping a child that was asked to shut down, after it has
// answered or let shutdownGrace pass. Jupyter gives us 2.5 s before its own
// SIGTERM.
const (
	exitGrace = time.Second            // then SIGTERM
	termGrace = 300 * time.Millisecond // then SIGKILL
)

// patience is how gently a child is stopped.
type patience int

const (
	none            patience = iota // killed at once
	untilTerminated                 // SIGTERM first
	untilItEnds                     // it has said that it will end by itself
)

// A child is the kernel that we wrap, as a process in a group of its own.
type child struct {
	folder     *folder // its sockets and connection file
	connection jupyter.Connection
	signer     jupyter.Signer
	stderr     *tail
	pid        int
	exited     chan struct{} // closed when it has ended
	state      *os.ProcessState
	oom        oomCounter
	kills      kills
	ours       int64       // the most memory that we had used when it started
	ended      atomic.Bool // because that was asked for
	abandoned  atomic.Pointer[death]
}

// startChild starts the child. Its end is announced on exited; stop it with
// stop, in any case.
func startChild(c Config, tcp bool) (*child, error) {
	own, err := socketFolder(c.TempDir)
	if err != nil {
		return nil, fmt.Errorf("make a folder for the child: %w", err)
	}
	ch := &child{folder: own, exited: make(chan struct{})}
	if err := ch.launch(c, tcp); err != nil {
		own.remove()
		return nil, err
	}
	return ch, nil
}

func (ch *child) launch(c Config, tcp bool) error {
	if err := ch.writeConnection(c.Connection, tcp); err != nil {
		return fmt.Errorf("write the child's connection file: %w", err)
	}
	argv := c.Spec.expand(ch.file())
	cmd := exec.Command(argv[0], append(argv[1:], c.ChildArgs...)...) //nolint:noctx // stop ends it
	ch.stderr = &tail{to: c.Stderr}
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.Dir, ch.stderr, ch.stderr
	cmd.WaitDelay = lastWords // who the child leaves behind may hold its stderr
	cmd.Env = c.Spec.environ(c.Env)
	ownGroup(cmd)
	started := make(chan error)
	go func() {
		// The parent-death signal comes when the thread ends that started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		ch.ours = ownPeak()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		ch.watchMemory(cmd.Process.Pid)
		started <- nil
		cmd.Wait() //nolint:errcheck // the state says how it ended
		ch.kills.after, _ = ch.oom.read()
		ch.state = cmd.ProcessState
		close(ch.exited)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start the child kernel: %w", err)
	}
	ch.pid = cmd.Process.Pid
	return nil
}

func (ch *child) file() string { return filepath.Join(ch.folder.path, "connection.json") }

// writeConnection makes the child's connection file: local sockets where the
// child knows them, so that nobody else on the machine can reach it, and with
// the front end's key, so that signatures pass through too. Others listen on
// the loopback, with a key of their own.
func (ch *child) writeConnection(front jupyter.Connection, tcp bool) error {
	ch.connection = jupyter.Connection{
		Transport: jupyter.IPC, IP: filepath.Join(ch.folder.path, "s"),
		Shell: 1, IOPub: 2, Stdin: 3, Control: 4, Heartbeat: 5,
		Scheme: front.Scheme, Key: front.Key,
	}
	if tcp {
		if err := ch.choosePorts(); err != nil {
			return err
		}
	}
	var err error
	if ch.signer, err = jupyter.NewSigner(ch.connection.Scheme, ch.connection.Key); err != nil {
		return err
	}
	data, err := json.Marshal(ch.connection)
	if err != nil {
		return err
	}
	return os.WriteFile(ch.file(), data, 0o600)
}

// choosePorts chooses ports that are free, for the moment. A child that finds
// one taken ends, and the next one gets others.
func (ch *child) choosePorts() error {
	c := &ch.connection
	c.Transport, c.IP = jupyter.TCP, "127.0.0.1"
	c.Scheme, c.Key = "hmac-sha256", uuid.NewString()
	for _, port := range []*int{&c.Shell, &c.IOPub, &c.Stdin, &c.Control, &c.Heartbeat} {
		l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // local
		if err != nil {
			return fmt.Errorf("choose a port: %w", err)
		}
		defer l.Close() //nolint:errcheck // all are held until all are chosen
		*port = l.Addr().(*net.TCPAddr).Port
	}
	return nil
}

// decode reads a message of the child. Where nobody else can reach its sockets
// there is nothing to check.
func (ch *child) decode(frames [][]byte) (*jupyter.Message, error) {
	if ch.connection.Transport == jupyter.IPC {
		return jupyter.Signer{}.Decode(frames)
	}
	return ch.signer.Decode(frames)
}

// lastStderr returns the last lines of what the child printed to its terminal.
func (ch *child) lastStderr() string { return ch.stderr.String() }

// watchMemory notes how often the system has killed for lack of memory before
// the child could have been meant.
func (ch *child) watchMemory(pid int) {
	ch.oom = oomCounterOf(procFolder, cgroupFolder, pid)
	ch.kills.before, ch.kills.known = ch.oom.read()
}

// death returns how the child ended. It is called after exited.
func (ch *child) death() death {
	d := death{state: ch.state, memory: peakMemory(ch.state, ch.ours), kills: ch.kills}
	if a := ch.abandoned.Load(); a != nil {
		d.instead, d.cure = a.instead, a.cure
	}
	if ch.ended.Load() {
		d.instead, d.cure = "it was restarted", ""
	}
	return d
}

// interrupt sends the child what Ctrl-C would.
func (ch *child) interrupt() error {
	select {
	case <-ch.exited:
		return nil
	default:
		return interruptGroup(ch.pid)
	}
}

// kill ends the child, whatever it does; stop is still to be called.
func (ch *child) kill() error {
	select {
	case <-ch.exited:
		return nil
	default:
		ch.ended.Store(true)
		return killGroup(ch.pid)
	}
}

// abandon ends a child that is of no more use, and notes why; stop is still to be
// called.
func (ch *child) abandon(why death) error {
	select {
	case <-ch.exited:
		return nil
	default:
		ch.abandoned.Store(&why)
		return killGroup(ch.pid)
	}
}

// stop ends the child and everything in its group, and removes its folder. It
// is idempotent, and returns when the child is gone.
func (ch *child) stop(p patience) {
	if p == untilTerminated || p == untilItEnds && !ch.gone(exitGrace) {
		terminateGroup(ch.pid) //nolint:errcheck // the next step does it
		ch.gone(termGrace)
	}
	killGroup(ch.pid) //nolint:errcheck // mostly nobody is left
	<-ch.exited
	ch.folder.remove()
}

func (ch *child) gone(within time.Duration) bool {
	select {
	case <-ch.exited:
		return true
	case <-time.After(within):
		return false
	}
}

// expand fills in the placeholders of argv.
func (s Spec) expand(file string) []string {
	r := strings.NewReplacer("{connection_file}", file, "{resource_dir}", s.ResourceDir, "{prefix}", s.Prefix)
	argv := make([]string, len(s.Argv))
	for i, arg := range s.Argv {
		argv[i] = r.Replace(arg)
	}
	return argv
}

// environ returns the child's environment: ours, the kernelspec's with
// ${VARIABLES} filled in, and our number, so that the child ends when we do.
func (s Spec) environ(env []string) []string {
	known := map[string]string{}
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		known[name] = value
	}
	all := append([]string(nil), env...)
	for name, value := range s.Env {
		all = append(all, name+"="+os.Expand(value, func(v string) string {
			if found, ok := known[v]; ok {
				return found
			}
			return "${" + v + "}"
		}))
	}
	// On Windows the latter is an event of our own parent's.
	all = slices.DeleteFunc(all, func(kv string) bool { return strings.HasPrefix(kv, "JPY_INTERRUPT_EVENT=") })
	return append(all, "JPY_PARENT_PID="+strconv.Itoa(os.Getpid()))
}

var errChildGone = errors.New("the Python kernel has ended")

// whileAlive returns a context that ends, with errChildGone, when the child does.
func (ch *child) whileAlive(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-ch.exited:
			cancel(errChildGone)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}
