package install

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestTheSearchPathIsJupyters asks Jupyter itself.
func TestTheSearchPathIsJupyters(t *testing.T) {
	onlyUnix(t)
	interpreter := python(t)
	home := t.TempDir()
	for name, vars := range map[string]map[string]string{
		"nothing set":                 {},
		"the user first":              {"JUPYTER_PREFER_ENV_PATH": "0"},
		"the environment first":       {"JUPYTER_PREFER_ENV_PATH": "yes"},
		"the user's folder named":     {"JUPYTER_DATA_DIR": home + "/data"},
		"the desktop's folder named":  {"XDG_DATA_HOME": home + "/xdg"},
		"more folders":                {"JUPYTER_PATH": home + "/one/:" + home + "/two"},
		"all of it":                   {"JUPYTER_PATH": home + "/one", "JUPYTER_DATA_DIR": home + "/data", "JUPYTER_PREFER_ENV_PATH": "False"},
		"IPython's folder named":      {"IPYTHONDIR": home},
		"switches that are not there": {"JUPYTER_PATH": "", "JUPYTER_DATA_DIR": "", "XDG_DATA_HOME": ""},
	} {
		t.Run(name, func(t *testing.T) {
			vars["HOME"] = home
			cmd := exec.CommandContext(t.Context(), interpreter, "-c", "import json, sys\n"+
				"from jupyter_client.kernelspec import KernelSpecManager as M\nprint(json.dumps([sys.prefix, *M().kernel_dirs]))")
			cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
			for k, v := range vars {
				cmd.Env = append(cmd.Env, k+"="+v)
			}
			out, err := cmd.Output()
			require.NoError(t, err)
			var want []string
			require.NoError(t, json.Unmarshal(out, &want))
			prefix, want := want[0], want[1:]

			var got []string
			for _, dir := range SearchPath(environment(vars), prefix) {
				got = append(got, filepath.Join(dir, "kernels"))
			}
			// Without pip's --user, Jupyter leaves out the folder that belongs to it.
			if base := home + "/.local/share/jupyter/kernels"; !slices.Contains(want, base) {
				got = slices.DeleteFunc(got, func(dir string) bool { return dir == base })
			}
			assert.Equal(t, want, got)
		})
	}
}

func TestTheSystemsEnvironmentComesLast(t *testing.T) {
	onlyUnix(t)
	path := SearchPath(environment(map[string]string{"HOME": "/root"}), "/usr")
	assert.Equal(t, []string{
		"/root/.local/share/jupyter", "/usr/local/share/jupyter", "/usr/share/jupyter", "/root/.ipython",
	}, path, "as on Colab")
}

func TestWhoseEnvironmentComesFirst(t *testing.T) {
	onlyUnix(t)
	venv, conda, plain := t.TempDir(), t.TempDir(), t.TempDir()
	write(t, filepath.Join(venv, "pyvenv.cfg"), "")
	for name, c := range map[string]struct {
		prefix string
		vars   map[string]string
		first  bool
	}{
		"a virtual environment":         {venv, nil, true},
		"somebody's Python":             {plain, nil, false},
		"an environment of conda":       {conda, map[string]string{"CONDA_PREFIX": conda, "CONDA_DEFAULT_ENV": "torch"}, true},
		"conda itself":                  {conda, map[string]string{"CONDA_PREFIX": conda, "CONDA_DEFAULT_ENV": "base"}, false},
		"beside conda":                  {plain, map[string]string{"CONDA_PREFIX": conda, "CONDA_DEFAULT_ENV": "torch"}, false},
		"a virtual environment, but no": {venv, map[string]string{"JUPYTER_PREFER_ENV_PATH": "off"}, false},
		"an environment that is gone":   {filepath.Join(plain, "gone"), nil, false},
		"no environment":                {"", nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.first, prefersEnvironment(environment(c.vars), c.prefix))
		})
	}
}

func TestAnEnvironmentOfSomebodyElseDoesNotComeFirst(t *testing.T) {
	onlyUnix(t)
	if os.Geteuid() != 0 {
		t.Skip("only root can give a folder away")
	}
	venv := t.TempDir()
	write(t, filepath.Join(venv, "pyvenv.cfg"), "")
	require.NoError(t, os.Chown(venv, 12345, 12345))
	assert.False(t, prefersEnvironment(environment(nil), venv))
}

func TestWithoutAHomeThereIsNoUsersFolder(t *testing.T) {
	onlyUnix(t)
	_, err := UserDir(environment(nil))
	assert.Contains(t, refused(t, err), "HOME")
	assert.NotEmpty(t, SearchPath(environment(nil), ""))
}

func TestFindTakesTheFirstThatIsNotOurs(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	o := options(one)
	o.Name = "python3"
	_, err := Install(o)
	require.NoError(t, err)
	write(t, filepath.Join(two, "kernels", "Python3", "kernel.json"), theirs)
	write(t, filepath.Join(two, "kernels", "ir", "kernel.json"), strings.Replace(theirs, "Python 3 (ipykernel)", "R", 1))
	path := []string{filepath.Join(one, "not there"), one, two}

	spec, err := Find("python3", path)
	require.NoError(t, err)
	assert.Equal(t, filepath.Join(two, "kernels", "Python3"), spec.Dir, "Jupyter does not mind the case")

	_, err = Find("julia", path)
	assert.True(t, IsMissing(err))
	assert.Contains(t, refused(t, err), "ir")
	assert.NotContains(t, refused(t, err), "outlast", "one of ours cannot be wrapped")

	_, err = Find("python3", nil)
	assert.Contains(t, refused(t, err), "ipykernel")
}

func TestABrokenSpecIsNotPassedOver(t *testing.T) {
	for name, content := range map[string]string{
		"torn": `{"argv": ["pyth`, "without a command": `{"display_name": "Python"}`, "a command in words": `{"argv": "python"}`,
	} {
		t.Run(name, func(t *testing.T) {
			one, two := t.TempDir(), t.TempDir()
			write(t, filepath.Join(one, "kernels", "python3", "kernel.json"), content)
			write(t, filepath.Join(two, "kernels", "python3", "kernel.json"), theirs)
			_, err := Find("python3", []string{one, two})
			refused(t, err)
			assert.False(t, IsMissing(err))
		})
	}
}

func TestReadTakesAFolder(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "mine", "kernel.json"), theirs)
	spec, err := Read(filepath.Join(root, "mine"))
	require.NoError(t, err)
	assert.Equal(t, spec.Dir, spec.Address())

	_, err = Read(filepath.Join(root, "gone"))
	refused(t, err)
	assert.True(t, IsMissing(err))

	dir, err := Install(options(root))
	require.NoError(t, err)
	_, err = Read(dir)
	refused(t, err)
}

func TestThePythonOfAnEnvironment(t *testing.T) {
	onlyUnix(t)
	prefix := t.TempDir()
	assert.Empty(t, PrefixPython(prefix))
	write(t, filepath.Join(prefix, "bin", "python"), "#!/bin/sh\necho "+prefix+"\n")
	require.NoError(t, os.Chmod(filepath.Join(prefix, "bin", "python"), 0o755))
	assert.Equal(t, filepath.Join(prefix, "bin", "python"), PrefixPython(prefix))

	got, err := SysPrefix(PrefixPython(prefix))
	require.NoError(t, err)
	assert.Equal(t, prefix, got)
	_, err = SysPrefix(filepath.Join(prefix, "gone"))
	refused(t, err)
}
