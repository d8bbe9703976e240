package jupyter_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/kernel/jupyter"
)

// file is a connection file as jupyter_client writes it.
const file = `{
  "shell_port": 52317, "iopub_port": 44625, "stdin_port": 41261, "control_port": 39085, "hb_port": 58563,
  "ip": "127.0.0.1", "key": "c2a3-secret", "transport": "tcp", "signature_scheme": "hmac-sha256",
  "kernel_name": "outlast", "jupyter_session": "/x.ipynb"
}`

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kernel-1.json")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestAConnectionFileOfJupyterIsRead(t *testing.T) {
	c, err := jupyter.ReadConnection(write(t, file))
	require.NoError(t, err)
	assert.Equal(t, jupyter.Connection{
		Transport: "tcp", IP: "127.0.0.1", Shell: 52317, IOPub: 44625, Stdin: 41261, Control: 39085, Heartbeat: 58563,
		Scheme: "hmac-sha256", Key: "c2a3-secret", Name: "outlast",
	}, c)
}

func TestAddressesAreWhatTheNetworkTakes(t *testing.T) {
	for name, c := range map[string]struct {
		c                jupyter.Connection
		network, address string
	}{
		"IPv4":           {jupyter.Connection{Transport: "tcp", IP: "127.0.0.1"}, "tcp", "127.0.0.1:7"},
		"IPv6":           {jupyter.Connection{Transport: "tcp", IP: "::1"}, "tcp", "[::1]:7"},
		"every one":      {jupyter.Connection{Transport: "tcp", IP: "*"}, "tcp", ":7"},
		"by name":        {jupyter.Connection{Transport: "tcp", IP: "localhost"}, "tcp", "localhost:7"},
		"Unix":           {jupyter.Connection{Transport: "ipc", IP: "/run/k"}, "unix", "/run/k-7"},
		"Unix, relative": {jupyter.Connection{Transport: "ipc", IP: "k"}, "unix", "k-7"},
	} {
		t.Run(name, func(t *testing.T) {
			network, address := c.c.Address(7)
			assert.Equal(t, c.network, network)
			assert.Equal(t, c.address, address)
		})
	}
}

func TestAConnectionFileThatCannotBeUsedIsExplained(t *testing.T) {
	for name, c := range map[string]struct{ old, replacement, why string }{
		"empty":              {file, "", "JSON"},
		"no JSON":            {"{", "[", "invalid character"},
		"a list":             {file, "[]", "cannot unmarshal array"},
		"port is a text":     {"52317", `"52317"`, "shell_port"},
		"port is missing":    {`"hb_port"`, `"x"`, "hb_port 0 is no port"},
		"port is negative":   {"44625", "-1", "iopub_port -1 is no port"},
		"port is too large":  {"41261", "70000", "stdin_port 70000 is no port"},
		"unknown transport":  {`"tcp"`, `"udp"`, `transport "udp" is neither tcp nor ipc`},
		"no transport":       {`"tcp"`, `""`, "neither tcp nor ipc"},
		"no address":         {"127.0.0.1", "nowhere at all", "is no address"},
		"ipc without a path": {`"127.0.0.1", "key": "c2a3-secret", "transport": "tcp"`, `"", "transport": "ipc"`, "path of the sockets"},
		"unknown scheme":     {"hmac-sha256", "hmac-md5", "hmac-sha256 is the usual one"},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, strings.Replace(file, c.old, c.replacement, 1))
			_, err := jupyter.ReadConnection(path)
			var problem *jupyter.ConnectionError
			require.ErrorAs(t, err, &problem)
			assert.ErrorContains(t, err, path)
			assert.ErrorContains(t, err, c.why)
			assert.NotContains(t, err.Error(), "c2a3-secret")
			assert.NotEmpty(t, problem.Cure())
		})
	}
	_, err := jupyter.ReadConnection(filepath.Join(t.TempDir(), "none.json"))
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestEmptyKeysAndUnixPathsAreUsual(t *testing.T) {
	for name, text := range map[string]string{
		"empty key": strings.Replace(file, "c2a3-secret", "", 1),
		"ipc":       strings.NewReplacer("127.0.0.1", "/run/user/1/kernel-1-ipc", `"tcp"`, `"ipc"`, "52317", "1", "70000", "2").Replace(file),
	} {
		_, err := jupyter.ReadConnection(write(t, text))
		assert.NoError(t, err, name)
	}
}
