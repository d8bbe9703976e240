package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/google/uuid"

	"outlast/kernel"
	"outlast/kernel/jupyter"
	"outlast/magics"
)

// interceptor lets the kernel's cells reach the magics.
type interceptor struct {
	set     magics.Set
	console *os.File // the terminal of a front end that is a console; nil: it is a page, as most are
}

var _ kernel.Interceptor = (*interceptor)(nil)

// Claim implements kernel.Interceptor.
func (i *interceptor) Claim(code string) kernel.Claim {
	calls, lines := i.set.Split(code)
	if lines == 0 {
		return kernel.Claim{}
	}
	claim := kernel.Claim{Lines: lines, Whole: strings.TrimSpace(afterLines(code, lines)) == "", Looks: true, Now: true}
	for _, inv := range calls {
		m := i.set.Lookup(inv.Name)
		claim.Looks = claim.Looks && (m.Looks || inv.Help)
		claim.Whole = claim.Whole && (m.Hands == nil || inv.Help || !m.Hands(inv.Args))
		claim.Now = claim.Now && m.Now != nil && m.Now(inv.Args)
	}
	return claim
}

// afterLines returns what follows the first n lines of code.
func afterLines(code string, n int) string {
	for range n {
		_, rest, _ := strings.Cut(code, "\n")
		code = rest
	}
	return code
}

// Names implements kernel.Interceptor.
func (i *interceptor) Names() []kernel.Name {
	var names []kernel.Name
	for _, m := range i.set {
		names = append(names, kernel.Name{Name: m.Name, Line: m.Line, Cell: m.Cell, Body: m.Body, Help: m.Help()})
	}
	return names
}

// Run implements kernel.Interceptor: the magics that lead the cell, one after
// the other, until one fails.
func (i *interceptor) Run(ctx context.Context, cell *kernel.Cell) error {
	calls, _ := i.set.Split(cell.Code)
	for _, inv := range calls {
		if err := i.call(ctx, cell, inv); err != nil {
			return i.explain(ctx, err)
		}
	}
	return nil
}

func (i *interceptor) call(ctx context.Context, cell *kernel.Cell, inv magics.Invocation) error {
	m := i.set.Lookup(inv.Name)
	if inv.Help {
		cell.Stream(jupyter.Stdout, m.Help())
		return nil
	}
	if len(cell.Request().Content) > 0 { // else Python calls, and has expanded it
		if err := inv.Expand(func(pieces []string) ([]string, error) { return expand(ctx, cell, pieces) }); err != nil {
			return fmt.Errorf("expand %%%s: %w", inv.Name, err)
		}
	}
	words, err := inv.Words()
	if err != nil {
		return &magics.UsageError{Magic: m, Why: err.Error()}
	}
	out, errs := &stream{cell: cell, name: jupyter.Stdout}, &stream{cell: cell, name: jupyter.Stderr}
	defer out.flush()
	defer errs.flush()
	return m.Run(ctx, words, &magics.Call{
		Body:       inv.Body,
		CellID:     cellID(cell.Request()),
		Stdout:     out,
		Stderr:     errs,
		Screen:     i.screen(cell, out),
		Notebook:   cell,
		Interrupts: cell.Interrupts(),
		Gone:       cell.Gone(),
		Result:     cell.SetResult,
	})
}

// screen returns where a cell shows views.
func (i *interceptor) screen(cell *kernel.Cell, out io.Writer) magics.Screen {
	if i.console == nil {
		return page{cell}
	}
	t := newTerminal(i.console)
	t.out, t.once = out, true
	return consoleScreen{page{cell}, t}
}

// expand asks the notebook for what IPython makes of each piece.
func expand(ctx context.Context, cell *kernel.Cell, pieces []string) ([]string, error) {
	list, err := json.Marshal(pieces)
	if err != nil {
		return nil, err
	}
	raw, err := cell.Eval(ctx, fmt.Sprintf("list(map(get_ipython().var_expand, %s))", list))
	if err != nil {
		return nil, err
	}
	var expanded []string
	if err := json.Unmarshal(raw, &expanded); err != nil {
		return nil, err
	}
	return expanded, nil
}

// explain turns err into what the notebook shows: the synopsis for a mistake in
// the call, a KeyboardInterrupt for an interrupt, and in any case what to do.
func (i *interceptor) explain(ctx context.Context, err error) error {
	e := &jupyter.ExecutionError{Name: "OutlastError", Value: err.Error()}
	var usage *magics.UsageError
	switch {
	case errors.As(err, &usage):
		prompt := usage.Magic.Prompt()
		e.Name = "UsageError"
		e.Traceback = []string{
			fmt.Sprintf("UsageError: %s%s: %s", prompt, usage.Magic.Name, usage.Why),
			"Usage: " + usage.Magic.Usage(prompt),
			fmt.Sprintf("To do: %s%s --help", prompt, usage.Magic.Name),
		}
		return e
	case errors.Is(context.Cause(ctx), kernel.ErrInterrupted):
		e.Name = "KeyboardInterrupt"
	case errors.Is(err, magics.ErrModelsFailed):
		e.Name = "TrainingFailed"
	case errors.Is(err, magics.ErrPaused):
		e.Name = "TrainingPaused"
	}
	e.Traceback = []string{e.Name + ": " + e.Value}
	if cure := magics.CureOf(err); cure != "" {
		e.Traceback = append(e.Traceback, "To do: "+cure)
	}
	return e
}

// cellID returns the front end's name for the cell that a request runs:
// JupyterLab and VS Code say cellId, Colab colab.cell_id.
func cellID(request *jupyter.Message) string {
	var metadata struct {
		CellID string `json:"cellId"`
		Colab  struct {
			CellID string `json:"cell_id"`
		} `json:"colab"`
	}
	if err := json.Unmarshal(request.Metadata, &metadata); err != nil {
		return "" // other front ends may put there what they like
	}
	if metadata.CellID != "" {
		return metadata.CellID
	}
	return metadata.Colab.CellID
}

// stream writes to a cell's stdout or stderr, whole lines at a time: each piece
// of its own would be a message.
type stream struct {
	cell *kernel.Cell
	name jupyter.StreamName

	mu   sync.Mutex
	line []byte // the beginning of one
}

var _ io.Writer = (*stream)(nil)

// Write implements io.Writer.
func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line = append(s.line, p...)
	if end := bytes.LastIndexByte(s.line, '\n') + 1; end > 0 {
		s.cell.Stream(s.name, string(s.line[:end]))
		s.line = s.line[end:]
	}
	return len(p), nil
}

// flush shows a last line without an end.
func (s *stream) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cell.Stream(s.name, string(s.line))
	s.line = nil
}

// page shows views in a cell's output.
type page struct{ cell *kernel.Cell }

// Show implements magics.Screen.
func (p page) Show(v magics.View) { p.cell.DisplayWith(bundle(v), metadata(v)) }

// A consoleScreen shows views in a console of Jupyter's. It shows what fits its
// terminal, and never draws over what it has shown: it ignores updates.
type consoleScreen struct {
	page     page
	terminal *terminal
}

// Show implements magics.Screen.
func (s consoleScreen) Show(v magics.View) {
	width, _ := s.terminal.size()
	v.Text, v.Picture = fit(v, width), nil // a picture would open a window, or try to
	s.page.Show(v)
}

// Live implements magics.Screen.
func (s consoleScreen) Live() magics.Live { return &consoleLive{screen: s, log: s.terminal.Live()} }

// A consoleLive tells a live view as the lines of its log. A card without one is
// shown as it was at first.
type consoleLive struct {
	screen consoleScreen
	log    magics.Live

	mu    sync.Mutex
	shown bool
}

// Update implements magics.Live.
func (l *consoleLive) Update(v magics.View) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case v.Log != nil:
		l.log.Update(v)
	case !l.shown:
		l.screen.Show(v)
	}
	l.shown = true
}

// Live implements magics.Screen.
func (p page) Live() magics.Live { return &liveOutput{cell: p.cell, id: uuid.NewString()} }

// liveOutput is one output that is updated in place.
type liveOutput struct {
	cell *kernel.Cell
	id   string

	mu    sync.Mutex
	last  magics.View
	shown bool
}

// Update implements magics.Live. What did not change is not sent again.
func (l *liveOutput) Update(v magics.View) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !l.shown:
		l.cell.Display(bundle(v), l.id)
	case v.Text != l.last.Text || v.HTML != l.last.HTML:
		l.cell.Update(bundle(v), l.id)
	}
	l.last, l.shown = v, true
}

// bundle gives each form of v its media type.
func bundle(v magics.View) jupyter.Bundle {
	b := jupyter.Bundle{"text/plain": strings.TrimRight(v.Text, "\n")}
	for mime, text := range map[string]string{
		"text/html":              v.HTML,
		"application/javascript": v.JavaScript,
	} {
		if text != "" {
			b[mime] = text
		}
	}
	if v.Picture != nil {
		b["image/png"] = base64.StdEncoding.EncodeToString(v.Picture.PNG)
	}
	return b
}

// metadata says how pages show v's picture, and what they say of it.
func metadata(v magics.View) map[string]any {
	if v.Picture == nil {
		return map[string]any{}
	}
	return map[string]any{"image/png": map[string]any{"width": v.Picture.Width, "alt": v.Picture.Words}}
}
