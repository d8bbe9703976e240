package magics

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"outlast/training"
)

// anotherDir is what to do about a data directory that does not serve.
const anotherDir = "choose another data directory: OUTLAST_HOME or --dir"

// dirFlag declares --dir. What was given is made absolute before the magic runs:
// the supervisor runs in a folder of its own.
func (d *Deps) dirFlag(fs *pflag.FlagSet) *string {
	return &d.declareDir(fs).path
}

// workDirFlag is dirFlag for what writes there: a data directory that cannot be
// used is refused before the magic runs.
func (d *Deps) workDirFlag(fs *pflag.FlagSet) *string {
	v := d.declareDir(fs)
	v.works = true
	return &v.path
}

func (d *Deps) declareDir(fs *pflag.FlagSet) *folderValue {
	v := &folderValue{deps: d, path: d.Dir}
	fs.Var(v, "dir", "data directory")
	return v
}

// A folderValue is the flag that names the data directory.
type folderValue struct {
	deps  *Deps
	path  string
	given bool
	works bool // runs will be written there
}

var _ pflag.Value = (*folderValue)(nil)

// settle makes what was given absolute, as seen from where it was typed, and
// looks whether runs can be written there if they will be.
func (v *folderValue) settle(ctx context.Context, c *Call) error {
	if v.given && !filepath.IsAbs(v.path) {
		v.path = v.deps.nearby(ctx, c.Notebook).path(v.path)
	}
	if !v.works {
		return nil
	}
	if !v.given && v.deps.DirNote != "" {
		fmt.Fprintln(c.Stderr, v.deps.DirNote)
	}
	return CheckDir(v.path, v.deps.Mounted)
}

// Set implements pflag.Value.
func (v *folderValue) Set(text string) error {
	v.path, v.given = text, true
	return nil
}

// String implements pflag.Value.
func (v *folderValue) String() string { return v.path }

// Type implements pflag.Value.
func (v *folderValue) Type() string { return "DIR" }

// CheckDir returns why runs cannot be kept in dir, as a *Problem, or nil. mounted
// is where Google Drive is mounted, or would be; empty: nowhere. It leaves nothing
// behind, and does not make dir. A disk that is full is not its business.
func CheckDir(dir, mounted string) error {
	what := "keep runs in " + dir
	if Below(mounted, dir) {
		return &Problem{
			What: what,
			Err: errors.New("it is on the mounted Google Drive, which is a cache: what was written there and is not uploaded yet " +
				"is gone when the machine goes"),
			Hint: "name a folder on the machine's own disk with --dir, or leave --dir and OUTLAST_HOME out; for copies in Drive: " +
				"--store drive:Outlast, or --store " + filepath.Join(mounted, "MyDrive", "Outlast"),
		}
	}
	there, _ := resolve(dir)
	probe, err := os.MkdirTemp(there, ".outlast-probe-*")
	if err == nil {
		os.Remove(probe) //nolint:errcheck // it is empty, and named as what it is
		return nil
	}
	if errors.Is(err, syscall.ENOSPC) {
		return nil
	}
	if errors.Is(err, syscall.ENOTDIR) {
		return &Problem{what, fmt.Errorf("%s is a file", there), anotherDir}
	}
	why := err
	if inner, ok := errors.AsType[*fs.PathError](err); ok { // without the name of the probe
		why = inner.Err
	}
	return dataDirProblem(what, fmt.Errorf("nothing can be written to %s: %w", there, why))
}

// Below reports whether path is dir or lies below it, whatever links lead there.
// Neither need be there. Below an empty dir is nothing.
func Below(dir, path string) bool {
	if dir == "" {
		return false
	}
	root, rest := resolve(dir)
	leaf, missing := resolve(path)
	rel, err := filepath.Rel(filepath.Join(root, rest), filepath.Join(leaf, missing))
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// resolve returns what is there of a path, absolute and without links, and the
// rest.
func resolve(path string) (there, missing string) {
	there = path
	if abs, err := filepath.Abs(path); err == nil {
		there = abs
	}
	for {
		real, err := filepath.EvalSymlinks(there)
		if err == nil {
			return real, missing
		}
		up := filepath.Dir(there)
		if up == there {
			return there, missing
		}
		there, missing = up, filepath.Join(filepath.Base(there), missing)
	}
}

// dataDirProblem gives an error that has no advice, of something in a data
// directory, some.
func dataDirProblem(what string, err error) error {
	if CureOf(err) != "" {
		return err
	}
	return &Problem{what, err, "see that it is a folder that you may write to, on a disk with room, or " + anotherDir}
}

// oneRun returns the run that c names, or the latest.
func (d *Deps) oneRun(m *Magic, c *Call, dir string) (*training.Run, error) {
	name, err := optional(m, c)
	if err != nil {
		return nil, err
	}
	return findRun(dir, name)
}

// findRun returns the run called name in dir; without a name, the latest.
func findRun(dir, name string) (*training.Run, error) {
	run, err := training.Find(dir, name)
	if err != nil && CureOf(err) == "" {
		return nil, &Problem{"look for runs in " + dir, err, anotherDir}
	}
	return run, err
}
