package install

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// playOutlast makes the test binary play our program: its value says how.
const playOutlast = "OUTLAST_TEST_PLAY"

func TestMain(m *testing.M) {
	switch os.Getenv(playOutlast) {
	case "outlast":
		fmt.Println("outlast 1.2.3\ncommit abc")
	case "another":
		fmt.Println("GNU outlast (coreutils) 9.1")
	case "broken":
		os.Exit(1)
	default:
		os.Exit(m.Run())
	}
}

// play returns the path of the test binary, which plays what it is told.
func play(t *testing.T, how string) string {
	t.Helper()
	t.Setenv(playOutlast, how)
	t.Setenv("GORACE", "atexit_sleep_ms=0")
	self, err := os.Executable()
	require.NoError(t, err)
	return self
}

// write puts a file where folders may be missing.
func write(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
}

// theirs is another program's kernel.json.
const theirs = `{"argv": ["/usr/bin/python3", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
 "display_name": "Python 3 (ipykernel)", "language": "python", "metadata": {"debugger": true}}`

// tree returns what lies below dir: a line for each entry, with mode and content.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		content := ""
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = string(data)
		case info.Mode()&fs.ModeSymlink != 0:
			if content, err = os.Readlink(path); err != nil {
				return err
			}
		}
		name, err := filepath.Rel(dir, path)
		found[name] = info.Mode().String() + " " + content
		return err
	}))
	return found
}

// environment returns a lookup in vars only.
func environment(vars map[string]string) Lookup {
	return func(name string) (string, bool) {
		value, ok := vars[name]
		return value, ok
	}
}

// python returns an interpreter that has jupyter_client and ipykernel.
func python(t *testing.T) string {
	t.Helper()
	venv, err := filepath.Abs(filepath.Join("..", ".venv"))
	require.NoError(t, err)
	path := PrefixPython(venv)
	if path == "" {
		path = "python3"
	}
	if exec.CommandContext(t.Context(), path, "-c", "import jupyter_client, ipykernel").Run() != nil {
		t.Skip("there is no Python with jupyter_client and ipykernel: make setup")
	}
	return path
}

func onlyUnix(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("paths and links are those of Unix")
	}
}
