// Package install writes, finds and removes kernelspecs: the folders with a
// kernel.json by which Jupyter knows its kernels.
//
// It does not start kernels and knows nothing of messages. The format is that of
// https://jupyter-client.readthedocs.io/en/stable/kernels.html#kernel-specs.
package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

const (
	// DefaultName is the name of our kernelspec.
	DefaultName = "outlast"
	// DefaultChild is the kernelspec that is wrapped unless told otherwise.
	DefaultChild = "python3"

	specFile = "kernel.json"
	markName = "outlast" // the key of metadata that makes a spec ours
)

// A Spec is one kernelspec.
type Spec struct {
	Name          string            `json:"-"`
	Dir           string            `json:"-"` // its folder; empty for one that lies nowhere
	Argv          []string          `json:"argv"`
	DisplayName   string            `json:"display_name"`
	Language      string            `json:"language"`
	InterruptMode string            `json:"interrupt_mode,omitempty"`
	Protocol      string            `json:"kernel_protocol_version,omitempty"`
	Env           map[string]string `json:"env,omitempty"`
	Metadata      map[string]any    `json:"metadata,omitempty"`
}

// Ours reports whether s starts Outlast.
func (s Spec) Ours() bool { return s.Metadata[markName] != nil }

// Address is how a kernel is told to wrap s and no other of its name: its folder,
// or its name if it lies nowhere.
func (s Spec) Address() string {
	if s.Dir == "" {
		return s.Name
	}
	return s.Dir
}

// A mark is what we write into the metadata of our own specs.
type mark struct {
	Version string `json:"version"`
	Child   string `json:"child"`
	// Shadow says that the spec hides another of its name: see Shadow.
	Shadow bool `json:"shadow,omitempty"`
	// Created is the topmost folder that was made for the spec.
	Created string `json:"created,omitempty"`
}

// mark returns the mark of s; the zero value if s is not ours, or from a version
// that wrote less.
func (s Spec) mark() mark {
	data, err := json.Marshal(s.Metadata[markName])
	if err != nil {
		return mark{}
	}
	var m mark
	if json.Unmarshal(data, &m) != nil {
		return mark{}
	}
	return m
}

// A SpecError is a kernelspec that cannot be used.
type SpecError struct {
	Name string
	Err  error
	Hint string // what to do
}

func (e *SpecError) Error() string { return fmt.Sprintf("kernelspec %s: %v", e.Name, e.Err) }

// Unwrap returns the reason.
func (e *SpecError) Unwrap() error { return e.Err }

// Cure returns what to do.
func (e *SpecError) Cure() string { return e.Hint }

var errNoSpec = errors.New("it is not there")

// Find returns the kernelspec called name from the first of the Jupyter data
// folders in path that has one which is not ours: wrapping ourselves would
// never end. Its error is a *SpecError.
func Find(name string, path []string) (Spec, error) {
	var others []string
	for _, dir := range path {
		spec, err := read(specDir(dir, name))
		if err == nil && !spec.Ours() {
			return spec, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Spec{}, &SpecError{name, err, "repair or remove the file"}
		}
		for _, other := range available(dir) {
			if !slices.ContainsFunc(others, func(name string) bool { return strings.EqualFold(name, other) }) {
				others = append(others, other) // the first hides those of its name in later folders
			}
		}
	}
	hint := "install the kernel: python -m pip install ipykernel"
	if len(others) > 0 {
		hint = "choose one of: " + strings.Join(others, ", ")
	}
	return Spec{}, &SpecError{name, errNoSpec, hint}
}

// IsMissing reports whether err says that there is no such kernelspec, rather
// than a broken one.
func IsMissing(err error) bool { return errors.Is(err, errNoSpec) }

// specDir returns the folder of the kernelspec called name: Jupyter does not
// mind the case of names.
func specDir(dataDir, name string) string {
	kernels := filepath.Join(dataDir, "kernels")
	entries, err := os.ReadDir(kernels)
	if err != nil {
		return filepath.Join(kernels, name) // most of the folders do not exist
	}
	for _, e := range entries {
		if strings.EqualFold(e.Name(), name) {
			name = e.Name()
		}
	}
	return filepath.Join(kernels, name)
}

func available(dir string) []string {
	entries, err := os.ReadDir(filepath.Join(dir, "kernels"))
	if err != nil {
		return nil // most of the folders do not exist
	}
	var found []string
	for _, e := range entries {
		if spec, err := read(filepath.Join(dir, "kernels", e.Name())); err == nil && !spec.Ours() {
			found = append(found, e.Name())
		}
	}
	return found
}

// Read returns the kernelspec in the folder dir. Its error is a *SpecError.
func Read(dir string) (Spec, error) {
	spec, err := read(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Spec{}, &SpecError{dir, errNoSpec, "run 'outlast install' again, as it was run before"}
	case err != nil:
		return Spec{}, &SpecError{dir, err, "repair or remove the file"}
	case spec.Ours():
		return Spec{}, &SpecError{dir, errors.New("it starts Outlast itself"), "name the kernel that is to be wrapped"}
	}
	if spec.Dir, err = filepath.Abs(dir); err != nil {
		return Spec{}, err
	}
	spec.Name = spec.Dir // found again by that only
	return spec, nil
}

// names are those that Jupyter accepts.
var names = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

// checkName refuses what Jupyter would not find, or what is another folder.
func checkName(name string) error {
	if !names.MatchString(name) || strings.Trim(name, ".") == "" {
		return &SpecError{name, errors.New("it cannot be a name"), "use letters, digits, '.', '_' and '-'"}
	}
	return nil
}

func read(dir string) (Spec, error) {
	path := filepath.Join(dir, specFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, syscall.ENOTDIR) { // Jupyter, too, takes a file for no kernelspec
		err = fs.ErrNotExist
	}
	if err != nil {
		return Spec{}, err
	}
	s := Spec{Name: filepath.Base(dir), Dir: dir}
	if err := json.Unmarshal(data, &s); err != nil {
		return Spec{}, fmt.Errorf("read %s: %w", path, err)
	}
	if len(s.Argv) == 0 {
		return Spec{}, fmt.Errorf("read %s: it has no argv", path)
	}
	return s, nil
}

// Ipykernel is the spec of the ipykernel that python has, for an environment
// without a kernelspec of its own.
func Ipykernel(python string) Spec {
	return Spec{
		Name:        DefaultChild,
		Argv:        []string{python, "-m", "ipykernel_launcher", "-f", "{connection_file}"},
		DisplayName: "Python 3 (ipykernel)",
		Language:    "python",
		Metadata:    map[string]any{"debugger": true},
	}
}
