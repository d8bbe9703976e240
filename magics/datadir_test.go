//go:build unix

package magics_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/magics"
)

// mounted is a machine with a Drive: /content/drive of a notebook on Colab, and a
// link to it from elsewhere.
type mounted struct{ content, drive, link string }

func newMounted(t *testing.T) mounted {
	t.Helper()
	root := t.TempDir()
	m := mounted{filepath.Join(root, "content"), filepath.Join(root, "content", "drive"), filepath.Join(root, "link")}
	require.NoError(t, os.MkdirAll(filepath.Join(m.drive, "MyDrive"), 0o755))
	require.NoError(t, os.Symlink(filepath.Join(m.drive, "MyDrive"), m.link))
	return m
}

func TestNoRunsAreKeptOnTheMountedDrive(t *testing.T) {
	m := newMounted(t)
	t.Chdir(filepath.Join(m.drive, "MyDrive"))
	for name, c := range map[string]struct {
		dir     string
		refused bool
	}{
		"the mount":                  {m.drive, true},
		"my Drive":                   {filepath.Join(m.drive, "MyDrive"), true},
		"a folder not there yet":     {filepath.Join(m.drive, "MyDrive", "a", "b"), true},
		"a shared drive":             {filepath.Join(m.drive, "Shareddrives", "team"), true},
		"behind a link":              {filepath.Join(m.link, "runs"), true},
		"in the working directory":   {"runs", true},
		"by a way around":            {filepath.Join(m.content, "runs", "..", "drive", "runs"), true},
		"beside the mount":           {filepath.Join(m.content, "outlast-runs"), false},
		"with a name that begins so": {filepath.Join(m.content, "drive2"), false},
		"out of it again":            {filepath.Join(m.drive, "..", "runs"), false},
		"elsewhere":                  {t.TempDir(), false},
	} {
		t.Run(name, func(t *testing.T) {
			err := magics.CheckDir(c.dir, m.drive)
			if !c.refused {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, "keep runs in "+c.dir+": it is on the mounted Google Drive, which is a cache")
			assert.Contains(t, magics.CureOf(err), "--dir")
			assert.Contains(t, magics.CureOf(err), "--store "+filepath.Join(m.drive, "MyDrive", "Outlast"))
		})
	}
	require.NoError(t, magics.CheckDir(m.drive, ""), "where none is mounted")
}

func TestALinkToWhereTheDriveIsMountedIsSeenThrough(t *testing.T) {
	m := newMounted(t)
	mount := filepath.Join(t.TempDir(), "drive")
	require.NoError(t, os.Symlink(m.drive, mount))
	require.Error(t, magics.CheckDir(filepath.Join(m.drive, "MyDrive"), mount))
	require.Error(t, magics.CheckDir(filepath.Join(mount, "MyDrive"), mount))
}

func TestADataDirectoryThatCannotBeIsRefusedWithTheReason(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	for name, c := range map[string]struct{ dir, why string }{
		"a file":          {file, file + " is a file"},
		"below a file":    {filepath.Join(file, "runs"), file + " is a file"},
		"nothing goes in": {"/proc/runs", "nothing can be written to /proc: "},
	} {
		t.Run(name, func(t *testing.T) {
			err := magics.CheckDir(c.dir, "")
			require.ErrorContains(t, err, "keep runs in "+c.dir+": "+c.why)
			assert.NotContains(t, err.Error(), "probe")
			assert.Contains(t, magics.CureOf(err), "OUTLAST_HOME or --dir")
		})
	}
	require.NoError(t, magics.CheckDir(filepath.Join(folder, "runs", "here"), ""))
	left, err := os.ReadDir(folder)
	require.NoError(t, err)
	require.Len(t, left, 1, "nothing was made")
}

func TestOnlyWhatWritesRunsRefusesTheMountedDrive(t *testing.T) {
	m := newMounted(t)
	d := deps(t)
	d.Mounted = m.drive
	there := filepath.Join(m.link, "runs")
	for _, line := range []string{"train x --models a, --script x.py", "train x --models a, --script x.py --dry-run", "resume x", "resume x --store " + t.TempDir()} {
		_, err := try(t, d, line+" --dir "+there)
		require.ErrorContains(t, err, "on the mounted Google Drive", line)
		var worked *magics.WorkError
		require.NotErrorAs(t, err, &worked, line)
		require.NoDirExists(t, there, line)
	}
	d.Dir = there // as OUTLAST_HOME says
	_, err := try(t, d, "train x --models a, -- true")
	require.ErrorContains(t, err, "on the mounted Google Drive")
	for _, line := range []string{"status", "results", "logs x"} { // what was kept there once can be looked at
		_, err := try(t, d, line)
		require.ErrorContains(t, err, "there is no such run", line)
	}
}

func TestWhereRunsLieIsSaidIfItIsNotWhereOneWouldLook(t *testing.T) {
	d := deps(t)
	d.DirNote = "They are elsewhere."
	require.Contains(t, must(t, d, "train x --models a, --dry-run -- true"), "They are elsewhere.")
	require.NotContains(t, must(t, d, "train x --models a, --dry-run --dir "+t.TempDir()+" -- true"), "They are elsewhere.")
}

func TestAFileInThePlaceOfTheDataDirectoryIsToldWithWhatToDo(t *testing.T) {
	d := deps(t)
	file := filepath.Join(d.WorkDir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	for _, line := range []string{"train x --models a, --script x.py", "resume x", "status", "results", "attach", "stop", "logs x"} {
		_, err := try(t, d, line+" --dir "+file)
		require.ErrorContains(t, err, file, line)
		assert.NotEmpty(t, magics.CureOf(err), line)
	}
}
