package magics

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// A place is where a call was typed: what relative paths are relative to, and
// which Python is meant.
type place struct {
	dir    string
	python string
	home   string
}

// place asks the notebook where it is: its Python may have changed the folder.
func (d *Deps) place(ctx context.Context, nb Notebook) (place, error) {
	here := place{d.WorkDir, d.Python, d.Home}
	if nb == nil {
		return here, nil
	}
	raw, err := nb.Eval(ctx, "[__import__('os').getcwd(), __import__('sys').executable]")
	if err != nil {
		return here, fmt.Errorf("ask the notebook for its folder and Python: %w", err)
	}
	var answer [2]string
	if err := json.Unmarshal(raw, &answer); err != nil {
		return here, fmt.Errorf("ask the notebook for its folder and Python: %w", err)
	}
	here.dir, here.python = answer[0], answer[1]
	return here, nil
}

// nearby is like place, and settles for where the kernel was started if the
// notebook's Python is busy.
func (d *Deps) nearby(ctx context.Context, nb Notebook) place {
	ctx, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	here, err := d.place(ctx, nb)
	if err != nil {
		return place{d.WorkDir, d.Python, d.Home}
	}
	return here
}

// path makes a path absolute.
func (p place) path(text string) string {
	if rest, ok := strings.CutPrefix(text, "~/"); ok && p.home != "" {
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
