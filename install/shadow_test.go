package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// host is a machine as Colab's: python3 is the system's, and root's home.
type host struct {
	root   string // all of it
	shadow Shadow
	path   []string
	system string // folder of the system's python3
}

func newHost(t *testing.T) host {
	t.Helper()
	root := t.TempDir()
	system := filepath.Join(root, "usr", "share", "jupyter")
	write(t, filepath.Join(system, "kernels", "python3", "kernel.json"),
		strings.Replace(theirs, "ipykernel_launcher", "colab_kernel_launcher", 1))
	user := filepath.Join(root, "home", ".local", "share", "jupyter")
	require.NoError(t, os.Mkdir(filepath.Join(root, "home"), 0o755))
	return host{root, Shadow{user, "python3"}, []string{user, system}, filepath.Join(system, "kernels", "python3")}
}

// user is the user's folder of python3.
func (h host) user() string { return filepath.Join(h.shadow.DataDir, "kernels", "python3") }

func (h host) install(t *testing.T) error {
	t.Helper()
	child, err := h.shadow.Hidden(h.path)
	require.NoError(t, err)
	o := options("")
	o.Child = child
	_, err = h.shadow.Install(o)
	return err
}

// before are the states in which a user's python3 may be.
func before(h host) map[string]func(t *testing.T) {
	spec := filepath.Join(h.user(), "kernel.json")
	return map[string]func(t *testing.T){
		"nothing": func(*testing.T) {},
		"a data folder": func(t *testing.T) {
			require.NoError(t, os.MkdirAll(h.shadow.DataDir, 0o700))
		},
		"a spec of their own": func(t *testing.T) {
			write(t, spec, theirs)
			write(t, filepath.Join(h.user(), "logo-64x64.png"), "\x89PNG\x00")
			write(t, filepath.Join(h.user(), "deep", "empty"), "")
			require.NoError(t, os.Chmod(spec, 0o600))
		},
		"a folder without a spec": func(t *testing.T) { write(t, filepath.Join(h.user(), "notes.txt"), "mine") },
		"a link to a spec": func(t *testing.T) {
			write(t, filepath.Join(h.root, "elsewhere", "kernel.json"), theirs)
			require.NoError(t, os.MkdirAll(filepath.Dir(h.user()), 0o755))
			require.NoError(t, os.Symlink(filepath.Join(h.root, "elsewhere"), h.user()))
		},
		"a link to nowhere": func(t *testing.T) {
			require.NoError(t, os.MkdirAll(filepath.Dir(h.user()), 0o755))
			require.NoError(t, os.Symlink(filepath.Join(h.root, "nowhere"), h.user()))
		},
		"a file in the way": func(t *testing.T) { write(t, h.user(), "a file") },
	}
}

func TestUndoRestoresWhatWasThere(t *testing.T) {
	onlyUnix(t)
	for name := range before(host{}) {
		for _, times := range []int{1, 2} {
			t.Run(name, func(t *testing.T) {
				h := newHost(t)
				before(h)[name](t)
				was := tree(t, h.root)
				for range times {
					require.NoError(t, h.install(t))
				}
				ours, err := read(h.user())
				require.NoError(t, err)
				require.True(t, ours.Ours())
				assert.NotEqual(t, was, tree(t, h.root))

				_, err = h.shadow.Undo()
				require.NoError(t, err)
				assert.Equal(t, was, tree(t, h.root))
			})
		}
	}
}

func TestTheShadowWrapsWhatItHides(t *testing.T) {
	onlyUnix(t)
	for name, c := range map[string]struct{ display, module string }{
		"nothing":                 {"Python 3 (ipykernel)", "colab_kernel_launcher"},
		"a folder without a spec": {"Python 3 (ipykernel)", "colab_kernel_launcher"},
		"a spec of their own":     {"Python 3 (ipykernel)", "ipykernel_launcher"},
		"a link to a spec":        {"Python 3 (ipykernel)", "ipykernel_launcher"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			before(h)[name](t)
			for range 2 {
				require.NoError(t, h.install(t))
				ours, err := read(h.user())
				require.NoError(t, err)
				assert.Equal(t, c.display, ours.DisplayName, "nobody is to notice")
				assert.Equal(t, "python", ours.Language)
				require.Equal(t, "--child", ours.Argv[6])
				child, err := Read(ours.Argv[7])
				require.NoError(t, err, "it is where the kernel will look")
				assert.Contains(t, child.Argv, c.module)
			}
		})
	}
}

func TestAnInstallThatStoppedHalfWay(t *testing.T) {
	stopped := func(t *testing.T) (host, map[string]string) {
		t.Helper()
		h := newHost(t)
		write(t, filepath.Join(h.user(), "kernel.json"), theirs)
		was := tree(t, h.root)
		require.NoError(t, os.MkdirAll(filepath.Dir(h.shadow.kept()), 0o755))
		require.NoError(t, os.Rename(h.user(), h.shadow.kept()))
		return h, was
	}
	t.Run("is undone", func(t *testing.T) {
		h, was := stopped(t)
		_, err := h.shadow.Undo()
		require.NoError(t, err)
		assert.Equal(t, was, tree(t, h.root))
	})
	t.Run("is completed, and undone then", func(t *testing.T) {
		h, was := stopped(t)
		require.NoError(t, h.install(t))
		ours, err := read(h.user())
		require.NoError(t, err)
		assert.Equal(t, h.shadow.kept(), ours.Argv[7])
		_, err = h.shadow.Undo()
		require.NoError(t, err)
		assert.Equal(t, was, tree(t, h.root))
	})
	t.Run("with half of ours in place", func(t *testing.T) {
		h, was := stopped(t)
		write(t, filepath.Join(h.user(), "logo-32x32.png"), "")
		_, err := h.shadow.Undo()
		refused(t, err)
		require.NoError(t, os.RemoveAll(h.user())) // as the cure says
		_, err = h.shadow.Undo()
		require.NoError(t, err)
		assert.Equal(t, was, tree(t, h.root))
	})
}

func TestAnInstallThatFailsChangesNothing(t *testing.T) {
	for _, name := range []string{"nothing", "a spec of their own"} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			before(h)[name](t)
			was := tree(t, h.root)
			child, err := h.shadow.Hidden(h.path)
			require.NoError(t, err)
			o := options("")
			o.Child, o.Program = child, Program{filepath.Join(h.root, "gone"), false}
			_, err = h.shadow.Install(o)
			require.ErrorIs(t, err, os.ErrNotExist)
			refused(t, err)
			assert.Equal(t, was, tree(t, h.root))
		})
	}
}

func TestASpecThatWasWrittenOverOursIsNotTouched(t *testing.T) {
	h := newHost(t)
	write(t, filepath.Join(h.user(), "kernel.json"), theirs)
	require.NoError(t, h.install(t))
	require.NoError(t, os.RemoveAll(h.user()))
	write(t, filepath.Join(h.user(), "kernel.json"), strings.Replace(theirs, "Python 3", "Python 4", 1))
	was := tree(t, h.root)

	_, err := h.shadow.Undo()
	assert.Contains(t, refused(t, err), h.shadow.kept())
	assert.Contains(t, refused(t, h.install(t)), "another program has written")
	assert.Equal(t, was, tree(t, h.root))
}

func TestThereIsNothingToUndo(t *testing.T) {
	h := newHost(t)
	_, err := h.shadow.Undo()
	refused(t, err)
	write(t, filepath.Join(h.user(), "kernel.json"), theirs)
	was := tree(t, h.root)
	_, err = h.shadow.Undo()
	refused(t, err)
	assert.Equal(t, was, tree(t, h.root))
}

func TestShadowsAndPlainSpecsAreNotMixed(t *testing.T) {
	h := newHost(t)
	o := options(h.shadow.DataDir)
	o.Name = "python3"
	_, err := Install(o)
	require.NoError(t, err)
	refused(t, h.install(t))
	_, err = h.shadow.Undo()
	refused(t, err)
	_, err = Uninstall(o.Dir, o.Name)
	require.NoError(t, err)

	require.NoError(t, h.install(t))
	_, err = Install(o)
	refused(t, err)
	_, err = Uninstall(o.Dir, o.Name)
	refused(t, err)
	_, err = h.shadow.Undo()
	require.NoError(t, err)
}

func TestAShadowThatNobodyWouldSeeIsRefused(t *testing.T) {
	h := newHost(t)
	venv := t.TempDir()
	write(t, filepath.Join(venv, "kernels", "python3", "kernel.json"), theirs)
	_, err := h.shadow.Hidden(append([]string{venv}, h.path...))
	assert.Contains(t, refused(t, err), venv)

	_, err = h.shadow.Hidden([]string{h.shadow.DataDir})
	assert.True(t, IsMissing(err))
}
