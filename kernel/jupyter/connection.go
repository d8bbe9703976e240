package jupyter

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
)

// The transports that kernels speak.
const (
	TCP = "tcp"
	IPC = "ipc" // Unix domain sockets
)

// A Connection is a kernel's connection file:
// https://jupyter-client.readthedocs.io/en/stable/kernels.html#connection-files.
type Connection struct {
	Transport string `json:"transport"`
	IP        string `json:"ip"` // a path, for ipc
	Shell     int    `json:"shell_port"`
	IOPub     int    `json:"iopub_port"`
	Stdin     int    `json:"stdin_port"`
	Control   int    `json:"control_port"`
	Heartbeat int    `json:"hb_port"`
	Scheme    string `json:"signature_scheme"`
	Key       string `json:"key"`
	Name      string `json:"kernel_name,omitempty"`
}

// A ConnectionError is a connection file that cannot be used.
type ConnectionError struct {
	File string
	Err  error
}

func (e *ConnectionError) Error() string {
	return fmt.Sprintf("read connection file %s: %v", e.File, e.Err)
}

// Unwrap returns the reason.
func (e *ConnectionError) Unwrap() error { return e.Err }

// Cure returns what to do.
func (e *ConnectionError) Cure() string {
	return "let Jupyter write the file and start the kernel: choose the kernel in the notebook"
}

// ReadConnection reads a connection file. Its error is a *ConnectionError.
func ReadConnection(path string) (Connection, error) {
	var c Connection
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err == nil {
		err = c.check()
	}
	if err != nil {
		return Connection{}, &ConnectionError{path, err}
	}
	return c, nil
}

func (c Connection) check() error {
	switch c.Transport {
	case TCP:
		if net.ParseIP(c.IP) == nil && c.IP != "*" && c.IP != "localhost" {
			return fmt.Errorf("ip %q is no address", c.IP)
		}
	case IPC:
		if c.IP == "" {
			return fmt.Errorf("ip, the path of the sockets, is missing")
		}
	default:
		return fmt.Errorf("transport %q is neither tcp nor ipc", c.Transport)
	}
	for name, port := range map[string]int{
		"shell": c.Shell, "iopub": c.IOPub, "stdin": c.Stdin, "control": c.Control, "hb": c.Heartbeat,
	} {
		if port < 1 || c.Transport == TCP && port > 65535 {
			return fmt.Errorf("%s_port %d is no port", name, port)
		}
	}
	_, err := NewSigner(c.Scheme, c.Key)
	return err
}

// Address returns what net.Dial and net.Listen take for one of c's ports.
func (c Connection) Address(port int) (network, address string) {
	if c.Transport == IPC {
		return "unix", c.IP + "-" + strconv.Itoa(port)
	}
	ip := c.IP
	if ip == "*" {
		ip = ""
	}
	return "tcp", net.JoinHostPort(ip, strconv.Itoa(port))
}
