//go:build unix

package kernel_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/kernel/jupyter"
	"outlast/kernel/kerneltest"
)

// A process is a kernel in a process of its own.
type process struct {
	*exec.Cmd
	connection jupyter.Connection
	dir        string
}

// spawn starts a kernel in a process of its own.
func spawn(t *testing.T, child kerneltest.Child, transport string) *process {
	t.Helper()
	dir, err := os.MkdirTemp("", "kt")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // a folder in the system's own
	p := &process{connection: kerneltest.NewConnection(t, transport), dir: dir}
	argv, err := json.Marshal(child.Argv(t))
	require.NoError(t, err)
	p.Cmd = exec.CommandContext(t.Context(), os.Args[0], proxyVerb, kerneltest.WriteConnection(t, p.connection), string(argv), dir)
	p.Stderr = os.Stderr
	require.NoError(t, p.Start())
	t.Cleanup(func() {
		p.Process.Kill() //nolint:errcheck // it may have ended
		p.Wait()         //nolint:errcheck // it was killed
	})
	return p
}

// memory returns a line of /proc/PID/status, in bytes.
func (p *process) memory(t *testing.T, name string) int64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(data), name+":")
	require.True(t, found)
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	require.NoError(t, err)
	return kib << 10
}

// subscribe connects a subscriber, and has front print until it hears that.
func (p *process) subscribe(t *testing.T, front *kerneltest.Frontend) *kerneltest.Conn {
	t.Helper()
	network, address := p.connection.Address(p.connection.IOPub)
	c, err := kerneltest.Dial(network, address, kerneltest.Sub, "")
	require.NoError(t, err)
	t.Cleanup(c.Close)
	require.NoError(t, c.Send([]byte{1}))
	heard := make(chan error, 1)
	go func() {
		_, err := c.Receive()
		heard <- err
	}()
	for {
		front.Run("print up")
		select {
		case err := <-heard:
			require.NoError(t, err)
			return c
		case <-time.After(time.Millisecond):
		}
	}
}

func TestAStalledSubscriberCostsTheOthersNothing(t *testing.T) {
	if !isLinux() {
		t.Skip("memory is read from /proc")
	}
	messages, size, limit := 200_000, 500, int64(300<<20)
	if raceEnabled { // everything is ten times slower, and larger
		messages, size, limit = 20_000, 5000, 900<<20
	}
	p := spawn(t, kerneltest.Child{}, jupyter.TCP)
	front := kerneltest.NewFrontend(t, p.connection)
	front.Nudge()
	stalled, healthy := p.subscribe(t, front), p.subscribe(t, front)
	signer, err := jupyter.NewSigner(p.connection.Scheme, p.connection.Key)
	require.NoError(t, err)

	request := front.NewMessage(jupyter.ExecuteRequest, jupyter.ExecuteRequestContent{Code: fmt.Sprintf("flood %d %d", messages, size)})
	texts := make(chan string, 1)
	go func() { texts <- collect(healthy, signer, request.Header.ID) }()
	front.Mute(request) // it reads, but need not keep 100 MB
	front.SendMessage(kerneltest.Shell, request)
	text := <-texts
	lines := strings.SplitAfter(text, "\n")
	require.Len(t, lines, messages+1, "%.200s", text)
	for i, line := range lines[:messages] {
		if !strings.HasPrefix(line, strconv.Itoa(i)+" ") || len(line) != size {
			t.Fatalf("line %d is %.50q", i, line)
		}
	}
	t.Logf("%d messages, at most %d MiB of memory", messages, p.memory(t, "VmHWM")>>20)
	assert.Less(t, p.memory(t, "VmHWM"), limit)

	// It takes what the network still holds for it, and no more.
	require.NoError(t, stalled.Raw.SetDeadline(time.Now().Add(kerneltest.Patience)))
	taken, err := io.Copy(io.Discard, stalled.Raw)
	assert.NoError(t, err, "cut off, rather than kept waiting")
	assert.Less(t, taken, int64(messages*size), "what was queued for it is gone")
	front.Run("print after")
}

// collect returns all text of a cell, up to its idle, or why it cannot.
func collect(c *kerneltest.Conn, signer jupyter.Signer, id string) string {
	var text bytes.Buffer
	for {
		frames, err := c.Receive()
		if err != nil {
			return err.Error()
		}
		m, err := signer.Decode(frames)
		if err != nil {
			return err.Error()
		}
		if m.ParentID() != id {
			continue
		}
		r := kerneltest.Received{Message: m}
		switch {
		case m.Header.Type == jupyter.TypeStream:
			text.WriteString(kerneltest.ContentOf[jupyter.StreamContent](r).Text)
		case kerneltest.StateOf(r) == jupyter.Idle:
			return text.String()
		}
	}
}

func TestTheChildDiesWithTheKernel(t *testing.T) {
	if !isLinux() {
		t.Skip("elsewhere the child must notice by itself: ipykernel does")
	}
	p := spawn(t, kerneltest.Child{IgnoreSignals: true}, jupyter.IPC)
	front := kerneltest.NewFrontend(t, p.connection)
	front.Nudge()
	pid := number(t, front.Run("pid").Text())
	running := front.Execute("hang")
	front.Await("the cell runs", published(jupyter.TypeExecuteInput, running))
	require.NoError(t, p.Process.Kill())
	eventually(t, "the child ends", func() bool { return !works(pid) })
}

func TestTheKernelEndsWithItsParent(t *testing.T) {
	connection := kerneltest.NewConnection(t, jupyter.IPC)
	argv, err := json.Marshal(kerneltest.Child{}.Argv(t))
	require.NoError(t, err)
	dir := t.TempDir()
	file := kerneltest.WriteConnection(t, connection)
	// The parent is a shell that waits for its kernel, and is killed.
	parent := exec.CommandContext(t.Context(), "sh", "-c", `"$@" & wait`, "sh", os.Args[0], proxyVerb, file, string(argv), dir)
	require.NoError(t, parent.Start())
	front := kerneltest.NewFrontend(t, connection)
	front.Nudge()
	front.Run("print up")
	require.NoError(t, parent.Process.Kill())
	parent.Wait() //nolint:errcheck // it was killed
	eventually(t, "kernel and child end", func() bool { return len(processesWith(t, dir)) == 0 })
}

func TestMemoryDoesNotGrowWithMessages(t *testing.T) {
	if !isLinux() || raceEnabled {
		t.Skip("memory is read from /proc, and the race detector has its own")
	}
	p := spawn(t, kerneltest.Child{}, jupyter.IPC)
	front := kerneltest.NewFrontend(t, p.connection)
	front.Nudge()
	flood := func() {
		request := front.NewMessage(jupyter.ExecuteRequest, jupyter.ExecuteRequestContent{Code: "flood 50000 100"})
		front.Mute(request)
		front.SendMessage(kerneltest.Shell, request)
		front.Finish(request)
	}
	flood()
	before := p.memory(t, "VmRSS")
	flood()
	flood()
	assert.Less(t, p.memory(t, "VmRSS")-before, int64(16<<20))
}
