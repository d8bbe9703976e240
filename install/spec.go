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
	"runtime"
	"strings"
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
	var names []string
	for _, dir := range path {
		spec, err := read(filepath.Join(dir, "kernels", name))
		if err == nil && !spec.Ours() {
			return spec, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Spec{}, &SpecError{name, err, "repair or remove the file"}
		}
		names = append(names, available(dir)...)
	}
	hint := "install the kernel: python -m pip install ipykernel"
	if len(names) > 0 {
		hint = "choose one of: " + strings.Join(names, ", ")
	}
	return Spec{}, &SpecError{name, errNoSpec, hint}
}

// IsMissing reports whether err says that there is no such kernelspec, rather
// than a broken one.
func IsMissing(err error) bool { return errors.Is(err, errNoSpec) }

func available(dir string) []string {
	entries, err := os.ReadDir(filepath.Join(dir, "kernels"))
	if err != nil {
		return nil // most of the folders do not exist
	}
	var names []string
	for _, e := range entries {
		if spec, err := read(filepath.Join(dir, "kernels", e.Name())); err == nil && !spec.Ours() {
			names = append(names, e.Name())
		}
	}
	return names
}

func read(dir string) (Spec, error) {
	path := filepath.Join(dir, specFile)
	data, err := os.ReadFile(path)
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

// PrefixDir returns the Jupyter data folder of a Python environment.
func PrefixDir(prefix string) string { return filepath.Join(prefix, "share", "jupyter") }

// UserDir returns the user's Jupyter data folder, as jupyter_core finds it.
func UserDir(lookup func(string) (string, bool)) (string, error) {
	if dir, ok := lookup("JUPYTER_DATA_DIR"); ok && dir != "" {
		return dir, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find the user's Jupyter folder: %w", err)
	}
	switch runtime.GOOS {
	case "darwin":
		return filepath.Join(home, "Library", "Jupyter"), nil
	case "windows":
		if dir, ok := lookup("APPDATA"); ok && dir != "" {
			return filepath.Join(dir, "jupyter"), nil
		}
		return filepath.Join(home, ".jupyter", "data"), nil
	}
	if dir, ok := lookup("XDG_DATA_HOME"); ok && dir != "" {
		return filepath.Join(dir, "jupyter"), nil
	}
	return filepath.Join(home, ".local", "share", "jupyter"), nil
}

// SearchPath returns the Jupyter data folders in the order in which
// jupyter_core looks into them, for the Python environment in prefix.
func SearchPath(lookup func(string) (string, bool), prefix string) []string {
	var path []string
	if extra, ok := lookup("JUPYTER_PATH"); ok {
		path = append(path, filepath.SplitList(extra)...)
	}
	if prefix != "" { // before the user's, as in any virtual environment
		path = append(path, PrefixDir(prefix))
	}
	if user, err := UserDir(lookup); err == nil {
		path = append(path, user)
	}
	if runtime.GOOS == "windows" {
		if dir, ok := lookup("PROGRAMDATA"); ok {
			path = append(path, filepath.Join(dir, "jupyter"))
		}
		return path
	}
	return append(path, "/usr/local/share/jupyter", "/usr/share/jupyter")
}
