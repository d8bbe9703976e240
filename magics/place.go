package magics

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"outlast/gpu"
)

// A place is where a call was typed: what relative paths are relative to, which
// Python is meant, and which GPUs it may use.
type place struct {
	dir     string
	python  string
	home    string
	visible *string // CUDA_VISIBLE_DEVICES, where a notebook has set it; nil: as this process was given it
}

// visibleDevices is the variable that hides GPUs from CUDA.
const visibleDevices = "CUDA_VISIBLE_DEVICES"

// whereabouts asks Python for its place.
const whereabouts = "(lambda os, sys: {'dir': os.getcwd(), 'python': sys.executable, 'visible': os.environ.get('" + visibleDevices + "')})" +
	"(__import__('os'), __import__('sys'))"

// place asks the notebook where it is: its Python may have changed the folder
// and its environment.
func (d *Deps) place(ctx context.Context, nb Notebook) (place, error) {
	here := d.outside()
	if nb == nil {
		return here, nil
	}
	raw, err := nb.Eval(ctx, whereabouts)
	if err != nil {
		return here, fmt.Errorf("ask the notebook for its folder and Python: %w", err)
	}
	var answer struct {
		Dir, Python string
		Visible     *string
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return here, fmt.Errorf("ask the notebook for its folder and Python: %w", err)
	}
	here.dir, here.python, here.visible = answer.Dir, answer.Python, answer.Visible
	return here, nil
}

// outside is the place of the process itself.
func (d *Deps) outside() place { return place{dir: d.WorkDir, python: d.Python, home: d.Home} }

// devices returns the GPUs that workers will see that are started from here.
func (d *Deps) devices(ctx context.Context, here place) (gpu.Inventory, error) {
	if here.visible == nil {
		return d.Devices(ctx)
	}
	return d.DevicesAmong(ctx, *here.visible)
}

// nearby is like place, and settles for where the kernel was started if the
// notebook's Python is busy.
func (d *Deps) nearby(ctx context.Context, nb Notebook) place {
	ctx, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	here, err := d.place(ctx, nb)
	if err != nil {
		return d.outside()
	}
	return here
}

// path makes a path absolute.
func (p place) path(text string) string {
	if rest, ok := strings.CutPrefix(text, "~"); ok && p.home != "" && (rest == "" || rest[0] == '/') {
		return filepath.Join(p.home, rest)
	}
	if filepath.IsAbs(text) {
		return filepath.Clean(text)
	}
	return filepath.Join(p.dir, text)
}

// interpreter returns the Python that --python names: a path, or a name to be
// found in PATH.
func (p place) interpreter(text string) (string, error) {
	python := text
	if strings.ContainsRune(text, filepath.Separator) {
		python = p.path(text)
	}
	if !executable(python) {
		return "", &Problem{"use the Python " + text, errors.New("there is no such program"), "give --python the path of an interpreter, such as " + p.python}
	}
	return python, nil
}

// scheme is what a URL begins with; a single letter is a Windows drive.
var scheme = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]+:`)

// store makes a store absolute that is a folder: the supervisor, which opens it
// again, runs elsewhere.
func (p place) store(url string) string {
	if rest, ok := strings.CutPrefix(url, "file:"); ok {
		return p.path(strings.TrimPrefix(rest, "//"))
	}
	if url == "" || scheme.MatchString(url) {
		return url
	}
	return p.path(url)
}
