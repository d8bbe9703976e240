//go:build unix

package kernel_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/kernel"
	"outlast/kernel/jupyter"
	"outlast/kernel/kerneltest"
)

// TestMain lets the test binary play the wrapped kernel, and a kernel in a
// process of its own.
func TestMain(m *testing.M) {
	kerneltest.Play(os.Args)
	playProxy(os.Args)
	os.Exit(m.Run())
}

// A rig is a proxy at work, with one front end.
type rig struct {
	*kerneltest.Frontend
	proxy  *kernel.Proxy
	config kernel.Config
	record string
	log    *safeBuffer
	stop   context.CancelFunc
	ended  chan struct{}
	err    error
}

// start runs a proxy over child. It is stopped when the test ends, and must
// leave nothing behind.
func start(t testing.TB, child kerneltest.Child, changes ...func(*kernel.Config)) *rig {
	t.Helper()
	r := begin(t, child, changes...)
	r.Frontend = kerneltest.NewFrontend(t, r.config.Connection)
	r.Nudge()
	return r
}

// begin is start without a front end.
func begin(t testing.TB, child kerneltest.Child, changes ...func(*kernel.Config)) *rig {
	t.Helper()
	temp, err := os.MkdirTemp("", "kt") // a short path, for sockets
	require.NoError(t, err)
	r := &rig{record: filepath.Join(temp, "record"), log: &safeBuffer{}, ended: make(chan struct{})}
	child.Record = r.record
	r.config = kernel.Config{
		Connection:  kerneltest.NewConnection(t, jupyter.IPC),
		Spec:        kernel.Spec{Argv: child.Argv(t)},
		Env:         os.Environ(),
		Dir:         temp,
		TempDir:     temp,
		Interceptor: &magics{},
		Log:         slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Stderr:      r.log,
	}
	if child.ByMessage {
		r.config.Spec.InterruptMode = "message"
	}
	for _, change := range changes {
		change(&r.config)
	}
	r.proxy = kernel.New(r.config)
	var ctx context.Context
	ctx, r.stop = context.WithCancel(context.Background())
	go func() {
		defer close(r.ended)
		r.err = r.proxy.Run(ctx)
	}()
	t.Cleanup(func() {
		r.stop()
		r.wait(t)
		left, err := filepath.Glob(filepath.Join(temp, "outlast-*"))
		require.NoError(t, err)
		assert.Empty(t, left, "the kernel cleans up behind itself")
		if t.Failed() {
			t.Logf("what the kernel logged:\n%s", r.log)
		}
		require.NoError(t, os.RemoveAll(temp))
	})
	return r
}

// wait waits for the end of the kernel.
func (r *rig) wait(t testing.TB) {
	t.Helper()
	select {
	case <-r.ended:
		assert.NoError(t, r.err)
	case <-time.After(kerneltest.Patience):
		buf := make([]byte, 1<<20)
		t.Fatalf("the kernel does not end\n%s\n%s", r.log, buf[:stack(buf)])
	}
}

// join connects another front end, which hears what is published. Nothing must
// run.
func (r *rig) join(t *testing.T) *kerneltest.Frontend {
	t.Helper()
	front := kerneltest.NewFrontend(t, r.config.Connection)
	front.Nudge()
	return front
}

// assertWithin fails if what began then took longer than limit, on a machine
// that had the time: what it takes to start some processes is added.
func assertWithin(t *testing.T, limit time.Duration, began time.Time) {
	t.Helper()
	took := time.Since(began)
	if took <= limit {
		return
	}
	began = time.Now()
	for range 4 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^$")
		require.NoError(t, cmd.Run())
	}
	assert.LessOrEqual(t, took, limit+time.Since(began))
}

// records returns what the child has received on a channel, without what the
// kernel asks on its own behalf.
func (r *rig) records(t *testing.T, ch kerneltest.Channel, typ jupyter.Type) [][][]byte {
	t.Helper()
	var found [][][]byte
	for _, rec := range kerneltest.ReadRecords(t, r.record) {
		m, err := jupyter.Signer{}.Decode(rec.Frames)
		require.NoError(t, err)
		if rec.Channel == ch && m.Header.Type == typ && len(m.Identities) > 0 { // its own have no return path
			found = append(found, rec.Frames)
		}
	}
	return found
}

// eventually waits for what no message tells.
func eventually(t *testing.T, what string, probe func() bool) {
	t.Helper()
	for end := time.Now().Add(kerneltest.Patience); !probe(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: did not come true", what)
		}
	}
}

// safeBuffer is a buffer for several goroutines.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// magics is an interceptor whose magics do what the tests need.
type magics struct{ held *kernel.Cell }

var _ kernel.Interceptor = &magics{}

func (*magics) Claim(code string) kernel.Claim {
	lines := strings.Split(strings.TrimRight(code, "\n"), "\n")
	n := 0
	for n < len(lines) && strings.HasPrefix(lines[n], "%") {
		n++
	}
	return kernel.Claim{
		Lines: n, Whole: n == len(lines),
		Looks: strings.HasPrefix(code, "%look"), Now: strings.HasPrefix(code, "%now"),
	}
}

func (*magics) Names() []kernel.Name { return []kernel.Name{{Name: "look", Line: true}} }

var errMagic = errors.New("the magic failed")

func (m *magics) Run(ctx context.Context, cell *kernel.Cell) error {
	for line := range strings.Lines(cell.Code) {
		verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !strings.HasPrefix(verb, "%") {
			return nil
		}
		if err := m.run(ctx, cell, verb, rest); err != nil {
			return err
		}
	}
	return nil
}

func (m *magics) run(ctx context.Context, cell *kernel.Cell, verb, rest string) error {
	switch verb {
	case "%print", "%look":
		cell.Stream(jupyter.Stdout, rest)
	case "%fail":
		return errMagic
	case "%panic":
		var none []string
		cell.Stream(jupyter.Stdout, none[len(rest)])
	case "%wait": // until it is interrupted
		cell.Stream(jupyter.Stdout, "waiting")
		<-ctx.Done()
		return context.Cause(ctx)
	case "%waittwice":
		cell.Stream(jupyter.Stdout, "waiting")
		<-cell.Interrupts()
		cell.Stream(jupyter.Stdout, "once")
		<-cell.Interrupts()
		return kernel.ErrInterrupted
	case "%eval":
		value, err := cell.Eval(ctx, rest)
		if err != nil {
			return err
		}
		cell.Stream(jupyter.Stdout, string(value))
	case "%exec":
		return cell.Exec(ctx, rest)
	case "%replay":
		if rest == "interrupted" {
			stopped, stop := context.WithCancelCause(ctx)
			stop(kernel.ErrInterrupted)
			ctx = stopped
		}
		_, err := cell.Replay(ctx, 0)
		return err
	case "%nowrestart":
		return cell.RestartChild(ctx)
	case "%hold":
		cell.Working(true)
		m.held = cell
	case "%release":
		m.held.Working(false)
	}
	return nil
}

// proxyVerb is the first argument by which a test binary knows that it is to
// play a kernel.
const proxyVerb = "kernel-test-proxy"

// playProxy runs a kernel in this process, if the command line says so.
func playProxy(args []string) {
	if len(args) < 5 || args[1] != proxyVerb {
		return
	}
	connection, err := jupyter.ReadConnection(args[2])
	var argv []string
	if err == nil {
		err = json.Unmarshal([]byte(args[3]), &argv)
	}
	if err == nil {
		err = kernel.New(kernel.Config{
			Connection: connection, Spec: kernel.Spec{Argv: argv}, Env: os.Environ(), Dir: args[4], TempDir: args[4],
			ParentPID: os.Getppid(), Interceptor: &magics{}, Log: slog.New(slog.DiscardHandler), Stderr: os.Stderr,
		}).Run(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "proxy:", err)
		os.Exit(1)
	}
	os.Exit(0)
}
