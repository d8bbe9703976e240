package install

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func options(dir string) Options {
	return Options{
		Dir: dir, Name: "outlast", Version: "1.2.3", Program: Program{"/opt/bin/outlast", true},
		Child: Spec{Name: "python3", DisplayName: "Python 3 (ipykernel)", Language: "python", Metadata: map[string]any{"debugger": true}},
	}
}

func TestInstallWritesAKernelspec(t *testing.T) {
	dir, err := Install(options(filepath.Join(t.TempDir(), "share", "jupyter")))
	require.NoError(t, err)
	got, err := os.ReadFile(filepath.Join(dir, "kernel.json"))
	require.NoError(t, err)
	var spec struct {
		Argv     []string
		Display  string         `json:"display_name"`
		Language string         `json:"language"`
		Mode     string         `json:"interrupt_mode"`
		Protocol string         `json:"kernel_protocol_version"`
		Metadata map[string]any `json:"metadata"`
	}
	require.NoError(t, json.Unmarshal(got, &spec))
	assert.Equal(t, []string{
		"/opt/bin/outlast", "kernel", "-f", "{connection_file}", "--prefix", "{prefix}", "--child", "python3",
	}, spec.Argv)
	assert.Equal(t, "Python 3 (Outlast)", spec.Display)
	assert.Equal(t, "python", spec.Language)
	assert.Equal(t, "message", spec.Mode)
	assert.Equal(t, "5.5", spec.Protocol, "from 5.6 on, servers expect a handshake")
	assert.Equal(t, true, spec.Metadata["debugger"])
	assert.NotContains(t, spec.Metadata, "supported_encryption", "we do not speak CURVE")
	for _, logo := range []string{"logo-32x32.png", "logo-64x64.png", "logo-svg.svg"} {
		assert.FileExists(t, filepath.Join(dir, logo))
	}
}

func TestInstallSaysWhatItWraps(t *testing.T) {
	for name, c := range map[string]struct {
		child    Spec
		display  string
		debugger bool
	}{
		"another kernel":          {Spec{Name: "ir", DisplayName: "R", Language: "R"}, "R (Outlast)", false},
		"python without debugger": {Spec{Name: "python3", DisplayName: "Python 3", Language: "python"}, "Python 3 (Outlast)", false},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t.TempDir())
			o.Child, o.Prefix = c.child, "/opt/conda"
			dir, err := Install(o)
			require.NoError(t, err)
			spec, err := read(dir)
			require.NoError(t, err)
			assert.Equal(t, c.display, spec.DisplayName)
			assert.Equal(t, c.child.Language, spec.Language)
			assert.Equal(t, c.debugger, spec.Metadata["debugger"] == true)
			assert.Equal(t, []string{"--prefix", "/opt/conda", "--child", c.child.Name}, spec.Argv[4:])
		})
	}
}

func TestInstallTwiceIsInstallOnce(t *testing.T) {
	root := t.TempDir()
	o := options(filepath.Join(root, "share", "jupyter"))
	_, err := Install(o)
	require.NoError(t, err)
	once := tree(t, root)
	_, err = Install(o)
	require.NoError(t, err)
	assert.Equal(t, once, tree(t, root))
}

func TestUninstallLeavesNothing(t *testing.T) {
	for name, there := range map[string]string{
		"nothing was there":       "other.txt",
		"a data folder was there": "share/jupyter/lab/settings.json",
		"a kernel was there":      "share/jupyter/kernels/ir/kernel.json",
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			write(t, filepath.Join(root, there), theirs)
			before := tree(t, root)
			o := options(filepath.Join(root, "share", "jupyter"))
			o.Program = Program{play(t, "outlast"), false} // has a copy, too
			for range 2 {
				_, err := Install(o)
				require.NoError(t, err)
			}
			_, err := Uninstall(o.Dir, o.Name)
			require.NoError(t, err)
			assert.Equal(t, before, tree(t, root))
		})
	}
}

func TestUninstallKeepsTheProgramThatAnotherSpecStarts(t *testing.T) {
	o := options(t.TempDir())
	o.Program = Program{play(t, "outlast"), false}
	for _, name := range []string{"outlast", "outlast-r"} {
		o.Name = name
		_, err := Install(o)
		require.NoError(t, err)
	}
	_, err := Uninstall(o.Dir, "outlast")
	require.NoError(t, err)
	assert.FileExists(t, lastingCopy(o.Dir))
	_, err = Uninstall(o.Dir, "outlast-r")
	require.NoError(t, err)
	assert.NoFileExists(t, lastingCopy(o.Dir))
}

func TestAnotherProgramsSpecIsNotTouched(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "kernels", "outlast", "kernel.json"), theirs)
	before := tree(t, root)
	_, err := Install(options(root))
	refused(t, err)
	_, err = Uninstall(root, "outlast")
	refused(t, err)
	_, err = Uninstall(root, "OUTLAST") // Jupyter takes it for the same
	refused(t, err)
	assert.Equal(t, before, tree(t, root))
}

func TestWhatIsBrokenIsNotTouched(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "kernels", "outlast", "kernel.json"), "{")
	_, err := Install(options(root))
	refused(t, err)
	_, err = Uninstall(root, "outlast")
	refused(t, err)
}

func TestNamesThatJupyterWouldNotFindAreRefused(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "share", "precious.txt"), "")
	for _, name := range []string{"", ".", "..", "../outlast", "a b", "säge", `a\b`} {
		o := options(filepath.Join(root, "share"))
		o.Name = name
		_, err := Install(o)
		refused(t, err)
		_, err = Uninstall(o.Dir, name)
		refused(t, err)
	}
	assert.FileExists(t, filepath.Join(root, "share", "precious.txt"))
}

func TestAKernelThatIsNotThereIsAnsweredWithTheNamesThatAreEachOnce(t *testing.T) {
	var path []string
	for _, names := range [][]string{{"python3", "ir"}, {"Python3", "julia"}, {"python3"}} {
		path = append(path, t.TempDir())
		for _, name := range names {
			write(t, filepath.Join(path[len(path)-1], "kernels", name, "kernel.json"), theirs)
		}
	}
	_, err := Find("nope", path)
	assert.Equal(t, "kernelspec nope: it is not there\nchoose one of: ir, python3, julia", refused(t, err))
}

func TestUninstallOfWhatIsNotThereSaysWhereToLook(t *testing.T) {
	_, err := Uninstall(t.TempDir(), "outlast")
	assert.Contains(t, refused(t, err), "--sys-prefix")
}

func TestAFolderThatCannotBeWrittenHasACure(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "kernels"), "a file")
	_, err := Install(options(root))
	refused(t, err)

	if runtime.GOOS != "linux" {
		t.Skip("/sys, where not even root may write, is Linux's")
	}
	_, err = Install(options("/sys/share/jupyter"))
	assert.Contains(t, refused(t, err), "--user")
}

func TestJupyterFindsWhatWasInstalled(t *testing.T) {
	python, root := python(t), t.TempDir()
	dir, err := Install(options(root))
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), python, "-c",
		"from jupyter_client.kernelspec import get_kernel_spec as get; s = get('outlast'); print(s.resource_dir, s.interrupt_mode, end='')")
	cmd.Env = append(os.Environ(), "JUPYTER_DATA_DIR="+root)
	out, err := cmd.Output()
	require.NoError(t, err)
	assert.Equal(t, dir+" message", string(out))
}

// refused checks that err is a refusal with a cure, and returns both texts.
func refused(t *testing.T, err error) string {
	t.Helper()
	var spec *SpecError
	require.ErrorAs(t, err, &spec)
	require.NotEmpty(t, spec.Cure())
	return spec.Error() + "\n" + spec.Cure()
}

func TestInstalledAreOurKernelspecsThatJupyterFinds(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	o := options(second)
	dir, err := Install(o)
	require.NoError(t, err)
	o.Name = "hidden"
	_, err = Install(o)
	require.NoError(t, err)
	for name, text := range map[string]string{
		"Hidden": `{"argv": ["ir"], "display_name": "another of that name", "language": "R"}`,
		"broken": "{",
	} {
		require.NoError(t, os.MkdirAll(filepath.Join(first, "kernels", name), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(first, "kernels", name, "kernel.json"), []byte(text), 0o644))
	}
	found := Installed([]string{filepath.Join(first, "none"), first, second})
	require.Len(t, found, 1)
	assert.Equal(t, dir, found[0].Dir)
	assert.Equal(t, "1.2.3", found[0].Version())
	assert.Empty(t, Spec{}.Version())
}
