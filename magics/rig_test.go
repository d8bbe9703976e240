//go:build unix

package magics_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/folder"
	"outlast/gpu"
	"outlast/magics"
	"outlast/training"
	"outlast/training/trainingtest"
)

// TestMain lets this binary play supervisors and workers too.
func TestMain(m *testing.M) { trainingtest.Main(m) }

// patience bounds what a test waits for.
const patience = 60 * time.Second

// deps connects the magics to a machine without a GPU and to supervisors that
// this test binary plays.
func deps(t testing.TB) *magics.Deps {
	t.Helper()
	work := t.TempDir()
	open := func(_ context.Context, url string) (checkpoint.Store, error) {
		if strings.HasPrefix(url, "drive:") {
			return nil, errors.New("no Drive here")
		}
		return folder.New(url)
	}
	d := &magics.Deps{
		Version: "1.2.3", Dir: filepath.Join(work, "runs"), RunName: "notebook", Python: "python3", WorkDir: work,
		Home: filepath.Join(work, "home"), Host: magics.HostJupyter, Session: &magics.Session{},
		Supervisor: func(dir, run string) training.Command {
			r, err := training.Find(dir, run)
			if err != nil {
				panic(err) // it was created just before
			}
			return trainingtest.Supervisor(r)
		},
		Devices:   func(context.Context) (gpu.Inventory, error) { return gpu.Inventory{Source: gpu.SourceNone}, nil },
		OpenStore: open, OpenExisting: open,
		CloseStore:   func(checkpoint.Store) {},
		DefaultStore: func(context.Context) string { return "" },
		Space: func(context.Context, checkpoint.Store) (magics.Space, error) {
			return magics.Space{}, errors.ErrUnsupported
		},
		Kernels:  func(context.Context) []magics.Kernelspec { return nil },
		FreeDisk: func(string) (uint64, error) { return 100 << 30, nil },
	}
	d.DevicesAmong = func(ctx context.Context, list string) (gpu.Inventory, error) {
		found, err := d.Devices(ctx)
		found.Devices = gpu.Visible(found.Devices, list)
		return found, err
	}
	return d
}

// A typed call records what it shows.
type typed struct {
	out, errs bytes.Buffer
	screen    screen
	notebook  *notebook // nil on the command line
	result    json.RawMessage
	interrupt chan struct{}
	cellID    string
}

// run runs one line as a notebook or a shell would, without its prompt.
func (c *typed) run(ctx context.Context, d *magics.Deps, line string, body ...string) error {
	return c.runTo(ctx, &c.out, d, line, body...)
}

// runTo is like run, with another standard output.
func (c *typed) runTo(ctx context.Context, out io.Writer, d *magics.Deps, line string, body ...string) error {
	name, args, _ := strings.Cut(line, " ")
	m := magics.All(d).Lookup(name)
	if m == nil {
		return errors.New("no magic " + name)
	}
	words, err := magics.Invocation{Args: args}.Words()
	if err != nil {
		return err
	}
	call := &magics.Call{
		Body: strings.Join(body, "\n"), Stdout: out, Stderr: &c.errs, Screen: &c.screen, Interrupts: c.interrupt, CellID: c.cellID,
	}
	if c.notebook != nil {
		call.Notebook = c.notebook
		call.Result = func(v json.RawMessage) { c.result = v }
	}
	return m.Run(ctx, words, call)
}

// try runs a line on the command line and returns all that it showed.
func try(t *testing.T, d *magics.Deps, line string) (string, error) {
	t.Helper()
	var c typed
	err := c.run(t.Context(), d, line)
	return c.out.String() + c.screen.text() + c.errs.String(), err
}

// must runs a line that works.
func must(t *testing.T, d *magics.Deps, line string) string {
	t.Helper()
	shown, err := try(t, d, line)
	require.NoError(t, err, line)
	return shown
}

// A seenWriter is written to while somebody reads.
type seenWriter struct {
	mu sync.Mutex
	b  strings.Builder
}

func (w *seenWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *seenWriter) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// A screen remembers what was shown on it. A live view calls watch.
type screen struct {
	mu    sync.Mutex
	shown []magics.View
	watch func(magics.View)
}

func (s *screen) Show(v magics.View) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shown = append(s.shown, v)
}

func (s *screen) Live() magics.Live {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shown = append(s.shown, magics.View{})
	return &live{s, len(s.shown) - 1}
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, v := range s.shown {
		b.WriteString(v.Text + "\n")
	}
	return b.String()
}

type live struct {
	screen *screen
	index  int
}

func (l *live) Update(v magics.View) {
	l.screen.mu.Lock()
	l.screen.shown[l.index] = v
	watch := l.screen.watch
	l.screen.mu.Unlock()
	if watch != nil {
		watch(v)
	}
}

// A notebook answers expressions from a table.
type notebook struct {
	magics.Notebook // nil: what no test asks for

	values    map[string]string // JSON by expression
	ran       []string
	handed    []string
	restarted bool
	busy      bool    // answers nothing until the asker gives up
	folder    string  // in which it is
	python    string  // its own
	visible   *string // CUDA_VISIBLE_DEVICES there
	packages  string  // JSON: what it says of its packages; empty: it fails
}

func (n *notebook) Eval(ctx context.Context, expr string) (json.RawMessage, error) {
	if n.busy {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if v, ok := n.values[expr]; ok {
		return json.RawMessage(v), nil
	}
	if strings.Contains(expr, "importlib.metadata") && n.packages != "" {
		return json.RawMessage(n.packages), nil
	}
	if strings.Contains(expr, "getcwd") {
		return json.Marshal(map[string]any{
			"dir": cmp.Or(n.folder, "/notebook/folder"), "python": cmp.Or(n.python, "/notebook/python"), "visible": n.visible,
		})
	}
	return nil, errors.New("NameError: name '" + expr + "' is not defined")
}

func (n *notebook) Exec(_ context.Context, code string) error {
	n.ran = append(n.ran, code)
	return nil
}

func (n *notebook) RestartChild(context.Context) error {
	n.restarted = true
	return nil
}

// worker is the command that lets this binary play workers.
func worker(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	return "-- env TRAININGTEST_ROLE=worker " + exe
}

// scripts writes a file with a list of models, each with what its worker does.
func scripts(t *testing.T, d *magics.Deps, list map[string][]string, order ...string) string {
	t.Helper()
	var models []map[string]any
	for _, name := range order {
		models = append(models, map[string]any{"name": name, "params": map[string]any{"script": list[name]}})
	}
	data, err := json.Marshal(models)
	require.NoError(t, err)
	path := filepath.Join(d.WorkDir, "models.json")
	require.NoError(t, os.WriteFile(path, data, 0o644))
	return "--models " + path
}
