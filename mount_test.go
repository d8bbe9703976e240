//go:build unix

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A colab is a machine with a mounted Drive, and without a sign-in.
type colab struct{ content, mine string }

func newColab(t *testing.T) colab {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	c := colab{root, filepath.Join(root, "drive", "MyDrive")}
	require.NoError(t, os.MkdirAll(c.mine, 0o755))
	t.Setenv("HOME", filepath.Join(root, "home"))
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(root, "config"))
	t.Setenv("XDG_CACHE_HOME", filepath.Join(root, "cache"))
	return c
}

// program is Outlast there, with these variables and no others.
func (c colab) program(set map[string]string) (p *program, out, errs *bytes.Buffer) {
	out, errs = &bytes.Buffer{}, &bytes.Buffer{}
	return &program{env: among(set), mount: filepath.Join(c.content, "drive"), stdout: out, stderr: errs}, out, errs
}

func TestRunsOfAWorkingDirectoryOnTheMountedDriveLieBesideIt(t *testing.T) {
	c := newColab(t)
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(c.mine, link))
	for name, at := range map[string]string{"there": c.mine, "behind a link": link} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(at)
			p, _, _ := c.program(nil)
			dir, note := p.runsDir()
			assert.Equal(t, filepath.Join(c.content, "outlast-runs"), dir)
			assert.Contains(t, note, dir)
		})
	}
	t.Chdir(c.content)
	p, _, _ := c.program(nil)
	dir, note := p.runsDir()
	assert.Equal(t, filepath.Join(c.content, "outlast-runs"), dir)
	assert.Empty(t, note, "that is where one would look for them")
	p, _, _ = c.program(map[string]string{"OUTLAST_HOME": filepath.Join(c.mine, "runs")})
	dir, note = p.runsDir()
	assert.Equal(t, filepath.Join(c.mine, "runs"), dir, "what was asked for is refused, and not put elsewhere")
	assert.Empty(t, note)
}

func TestTrainOnTheMountedDriveSaysWhereItsRunsAre(t *testing.T) {
	c := newColab(t)
	t.Chdir(c.mine)
	p, out, errs := c.program(map[string]string{"CUDA_VISIBLE_DEVICES": ""})
	require.Equal(t, exitOK, p.main(t.Context(), []string{"train", "x", "--models", "a,", "--dry-run", "--", "true"}), errs.String())
	assert.Contains(t, errs.String(), "where no runs are kept: they are in "+filepath.Join(c.content, "outlast-runs"))
	assert.Contains(t, out.String(), filepath.Join(c.mine, "Outlast"), "and its copies are on the Drive")
}

func TestADataDirectoryOnTheMountedDriveIsRefused(t *testing.T) {
	c := newColab(t)
	t.Chdir(c.content)
	stored := newStocked(t)
	there := filepath.Join(c.mine, "runs")
	commands := map[string][]string{
		"train":  {"train", "x", "--models", "a,", "--", "true"},
		"resume": {"resume", "digits", "--store", stored.dir},
		"pull":   {"store", "pull", stored.dir, "digits"},
	}
	for name, args := range commands {
		t.Run(name, func(t *testing.T) {
			byFlag, _, errs := c.program(nil)
			flags := []string{"--dir", there}
			if name == "train" { // the rest is the command's
				flags, args = nil, []string{"train", "x", "--dir", there, "--models", "a,", "--", "true"}
			}
			assert.Equal(t, exitUsage, byFlag.main(t.Context(), append(args, flags...)))
			assert.Regexp(t, `(?s)^outlast: keep runs in .*: it is on the mounted Google Drive, .*\nTo do: .*--store drive:Outlast`, errs.String())
			byVariable, _, errs := c.program(map[string]string{"OUTLAST_HOME": there})
			assert.Equal(t, exitUsage, byVariable.main(t.Context(), commands[name]))
			assert.Contains(t, errs.String(), "on the mounted Google Drive")
			assert.NoDirExists(t, there)
		})
	}
}

func TestAPullFromTheMountedDriveFetchesBesideIt(t *testing.T) {
	c := newColab(t)
	stored := newStocked(t)
	t.Chdir(c.mine)
	p, out, errs := c.program(nil)
	require.Equal(t, exitOK, p.main(t.Context(), []string{"store", "pull", stored.dir, "digits"}), errs.String())
	assert.Contains(t, errs.String(), "where no runs are kept")
	assert.Contains(t, out.String(), "digits is in "+filepath.Join(c.content, "outlast-runs"))
	assert.DirExists(t, filepath.Join(c.content, "outlast-runs", "digits"))
}

func TestTheStoreOfRunsThatNameNone(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "key.json")
	require.NoError(t, os.WriteFile(broken, []byte("no key"), 0o600))
	for name, test := range map[string]struct {
		set      map[string]string
		unmount  bool
		want     string // below the Drive, or an address
		problems []string
	}{
		"nobody is signed in":      {nil, true, "", nil},
		"a mounted Drive":          {nil, false, "MyDrive/Outlast", nil},
		"Colab, and nobody signed": {map[string]string{"COLAB_RELEASE_TAG": "r", "GCE_METADATA_HOST": "127.0.0.1:1"}, false, "MyDrive/Outlast", nil},
		"an endpoint for tests":    {map[string]string{"OUTLAST_DRIVE_ENDPOINT": "http://127.0.0.1:1"}, false, defaultDrive, nil},
		"an endpoint elsewhere": {
			map[string]string{"OUTLAST_DRIVE_ENDPOINT": "http://example.com"},
			false, defaultDrive,
			[]string{"use OUTLAST_DRIVE_ENDPOINT=http://example.com: it is for tests", "\nTo do: unset it, "},
		},
		"credentials that are not there": {
			map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": "/nope.json"},
			false, defaultDrive,
			[]string{"GOOGLE_APPLICATION_CREDENTIALS=/nope.json: open /nope.json: ", "\nTo do: name a file of credentials that is there, or unset the variable"},
		},
		"credentials that are none": {
			map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": broken},
			true, defaultDrive,
			[]string{"it is no credentials file", "or unset the variable"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newColab(t)
			t.Chdir(t.TempDir())
			if test.unmount {
				require.NoError(t, os.RemoveAll(c.mine))
			}
			if test.set == nil {
				test.set = map[string]string{}
			}
			test.set["CUDA_VISIBLE_DEVICES"] = ""
			want := test.want
			if want == "MyDrive/Outlast" {
				want = filepath.Join(c.mine, "Outlast")
			}
			p, _, errs := c.program(test.set)
			assert.Equal(t, want, p.defaultStore(t.Context()))
			if test.problems == nil {
				return
			}
			for _, args := range [][]string{{"train", "x", "--models", "a,", "--", "true"}, {"resume", "x"}} {
				errs.Reset()
				assert.Equal(t, exitUsage, p.main(t.Context(), args), args)
				for _, text := range append(test.problems, "--store none trains without copies") {
					assert.Contains(t, errs.String(), text, args)
				}
				assert.NoDirExists(t, "outlast-runs", args)
			}
			errs.Reset()
			assert.Equal(t, exitOK, p.main(t.Context(), []string{"train", "x", "--models", "a,", "--store", "none", "--dry-run", "--", "true"}), errs.String())
		})
	}
}
