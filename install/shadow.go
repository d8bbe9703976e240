package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"outlast/checkpoint/durable"
)

// A Shadow is our kernelspec under the name of another, which it hides and
// wraps. Where notebooks cannot choose their kernel, as in Colab, that is the way
// in: notebooks say python3, and the user's kernelspecs come before the machine's.
//
// What lay in the user's folder under that name is moved aside, and is back where
// it was after Undo.
type Shadow struct {
	DataDir string // the user's Jupyter data folder
	Name    string
}

// dir is where Jupyter looks.
func (s Shadow) dir() string { return specDir(s.DataDir, s.Name) }

// kept is where what was there before is kept. Jupyter does not look there.
func (s Shadow) kept() string { return filepath.Join(ownDir(s.DataDir), "shadowed", s.Name) }

// Hidden returns the kernelspec that is, or would be, hidden. path are the
// Jupyter data folders in their order. Its error is a *SpecError.
func (s Shadow) Hidden(path []string) (Spec, error) {
	if spec, err := read(s.kept()); err == nil {
		return spec, nil
	}
	for _, dir := range path {
		if dir == s.DataDir {
			break
		}
		if spec, err := read(specDir(dir, s.Name)); err == nil && !spec.Ours() {
			return Spec{}, &SpecError{
				s.Name, fmt.Errorf("that in %s comes before the user's, and would be started instead", spec.Dir),
				"leave the environment, or install beside it: outlast install --sys-prefix",
			}
		}
	}
	return Find(s.Name, path)
}

// Install puts the shadow in place and returns its folder. o.Child is what
// Hidden returned. Doing it twice is doing it once; stopped half-way, it has
// changed nothing, or is completed or undone by the next Install or Undo.
func (s Shadow) Install(o Options) (string, error) {
	o.Dir, o.Name = s.DataDir, s.Name
	dir := s.dir()
	m := mark{Version: o.Version, Child: o.Child.Name, Shadow: true, Created: firstMissing(dir)}
	current, err := read(dir)
	switch {
	case err == nil && current.Ours() && !current.mark().Shadow:
		return "", &SpecError{s.Name, fmt.Errorf("%s is ours, but hides nothing", dir), "remove it first: outlast uninstall --name " + s.Name}
	case err == nil && current.Ours():
		m.Created = current.mark().Created
		return dir, o.write(dir, m, o.Child.Address())
	case there(dir) && there(s.kept()):
		return "", s.twice()
	case there(dir):
		return dir, s.replace(o, m)
	}
	if err := o.write(dir, m, o.Child.Address()); err != nil {
		os.RemoveAll(dir) //nolint:errcheck // the first error counts
		sweep(o.Dir, filepath.Dir(dir), m.Created)
		return "", err
	}
	return dir, nil
}

// replace moves what is in the way aside. If ours cannot be written, it is put
// back.
func (s Shadow) replace(o Options, m mark) error {
	dir := s.dir()
	if err := durable.Rename(dir, s.kept()); err != nil {
		return denied(s.Name, err)
	}
	if o.Child.Dir == dir {
		o.Child.Dir = s.kept()
	}
	err := o.write(dir, m, o.Child.Address())
	if err == nil {
		return nil
	}
	if back := s.putBack(); back != nil {
		return errors.Join(err, back)
	}
	sweep(s.DataDir, filepath.Dir(dir), m.Created)
	return err
}

// Undo takes the shadow away, puts back what it had replaced, and returns the
// folder.
func (s Shadow) Undo() (string, error) {
	dir := s.dir()
	current, err := read(dir)
	switch ours := err == nil && current.Ours() && current.mark().Shadow; {
	case !ours && there(dir) && there(s.kept()):
		return "", s.twice()
	case !ours && !there(s.kept()):
		return "", &SpecError{s.Name, fmt.Errorf("%s hides nothing", dir), "there is nothing to undo"}
	case !ours: // stopped half-way
		return dir, s.putBack()
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", denied(s.Name, err)
	}
	if err := s.putBack(); err != nil {
		return "", err
	}
	sweep(s.DataDir, filepath.Dir(dir), current.mark().Created)
	return dir, nil
}

// putBack moves what is kept, if there is something, to where it was.
func (s Shadow) putBack() error {
	if there(s.kept()) {
		if err := os.RemoveAll(s.dir()); err != nil {
			return denied(s.Name, err)
		}
		if err := durable.Rename(s.kept(), s.dir()); err != nil {
			return denied(s.Name, err)
		}
	}
	os.Remove(filepath.Dir(s.kept())) //nolint:errcheck // not if something is in it
	os.Remove(ownDir(s.DataDir))      //nolint:errcheck // likewise
	return nil
}

// twice says that somebody wrote a kernelspec over ours. Which of the two is
// wanted only the user knows.
func (s Shadow) twice() error {
	return &SpecError{
		s.Name,
		fmt.Errorf("another program has written %s since; what was there before is in %s", s.dir(), s.kept()),
		"remove one of the two folders, and try again",
	}
}

// there reports whether something is at path, if only a broken link.
func there(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
