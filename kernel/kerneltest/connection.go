package kerneltest

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"outlast/kernel/jupyter"
)

// A Channel is one of the five connections between a front end and a kernel.
type Channel string

// The channels.
const (
	Shell     Channel = "shell"
	Control   Channel = "control"
	Stdin     Channel = "stdin"
	IOPub     Channel = "iopub"
	Heartbeat Channel = "hb"
)

// Port returns the port of a channel.
func (c Channel) Port(conn jupyter.Connection) int {
	return map[Channel]int{
		Shell: conn.Shell, Control: conn.Control, Stdin: conn.Stdin, IOPub: conn.IOPub, Heartbeat: conn.Heartbeat,
	}[c]
}

// NewConnection returns a connection that nobody uses yet, with a fresh key.
func NewConnection(t testing.TB, transport string) jupyter.Connection {
	t.Helper()
	c := jupyter.Connection{Transport: transport, Scheme: "hmac-sha256", Key: uuid.NewString()}
	ports := []*int{&c.Shell, &c.IOPub, &c.Stdin, &c.Control, &c.Heartbeat}
	if transport == jupyter.IPC {
		dir, err := os.MkdirTemp("", "kt") // t.TempDir is too long a path for a socket
		require.NoError(t, err)
		t.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // a folder in the system's own
		c.IP = filepath.Join(dir, "f")
		for i, p := range ports {
			*p = i + 1
		}
		return c
	}
	c.IP = "127.0.0.1"
	for _, p := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer l.Close() //nolint:errcheck // all are held until all are chosen
		*p = l.Addr().(*net.TCPAddr).Port
	}
	return c
}

// WriteConnection writes a connection file and returns its path.
func WriteConnection(t testing.TB, c jupyter.Connection) string {
	t.Helper()
	data, err := json.Marshal(c)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "connection.json")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}
