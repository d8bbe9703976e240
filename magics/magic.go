// Package magics holds what users type: one file per magic, each a value that
// parses its own flags and writes to its own call.
//
// A magic does not know who called it. In a notebook the kernel calls it with a
// display; on the command line main calls the same value with a terminal. It
// knows nothing of sockets, message ids or exit codes.
package magics

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

// A Magic is one %command. It is a value: a Magic holds no state of its own, which
// is the Session's, and may be called concurrently.
type Magic struct {
	Name  string // without the %
	Verb  string // its name on the command line; empty if it has none
	Args  string // synopsis of the positional arguments
	Short string // one line, no full stop
	Cell  bool   // %%name takes the cell's body
	Line  bool   // %name is a line magic

	// Body says that the text below %%name is the magic's own. A cell magic
	// without it leaves the rest of its cell to the notebook's kernel.
	Body bool

	// Looks says that it depends on nothing in the notebook's Python and changes
	// nothing there, so that it may be answered beside a cell that runs.
	Looks bool

	// Hands reports whether a call with these arguments may hand code to the
	// notebook's Python, to run as a part of the cell; nil: none.
	Hands func(args string) bool

	// Now reports whether a call with these arguments must not wait for the
	// notebook's Python; nil: none.
	Now func(args string) bool

	// Wake is called once when a kernel begins: what another process of the same
	// kernel has left goes on. working says that something works which no cell of
	// this process began. It may be nil.
	Wake func(working func(on bool))

	// Bind declares the flags of one call on fs and returns the function to run
	// once they are parsed. It is called anew for each cell, so that no option
	// leaks from one cell into the next.
	Bind func(fs *pflag.FlagSet) func(ctx context.Context, c *Call) error
}

// A Call is one use of a magic: what it was given and where it writes.
type Call struct {
	Args     []string // positional arguments
	Dash     []string // what followed --
	Body     string   // the cell's text below %%name
	CellID   string   // the front end's name for the cell; may be empty
	Stdout   io.Writer
	Stderr   io.Writer
	Screen   Screen
	Notebook Notebook // nil on the command line

	// Result takes the value that the magic has for Python, in
	// x = %name; nil on the command line.
	Result func(value json.RawMessage)

	// Interrupts delivers each interrupt that arrives while the magic runs; the
	// first one also cancels the magic's context.
	Interrupts <-chan struct{}

	// Gone is closed when nobody is there any more for whom the magic works: the
	// kernel ends, or the Python that called has died. That cancels its context,
	// too. It is nil on the command line.
	Gone <-chan struct{}
}

// A Notebook is the Python that the calling cell lives in.
type Notebook interface {
	// Eval returns the value of a Python expression as JSON.
	Eval(ctx context.Context, expr string) (json.RawMessage, error)
	// Exec runs Python code without a trace in the history.
	Exec(ctx context.Context, code string) error
	// Hand has the Python run one line of code as a part of the calling cell,
	// with output, questions and interrupts. Only a magic that Hands may do so.
	Hand(ctx context.Context, code string) error
	// RestartChild ends the Python, even one that hangs, and returns when a new
	// one answers. The runs in training are not touched.
	RestartChild(ctx context.Context) error
	// Working says whether something that the cell began goes on behind it: the
	// notebook is busy then, also when the cell has ended.
	Working(on bool)
	// Replay shows again what the cell with an execution count has shown; 0: the
	// latest. lost reports that a part is no longer kept.
	Replay(ctx context.Context, count int) (lost bool, err error)
}

// A View is one thing to look at, in the forms that front ends understand.
type View struct {
	Text       string // always there: terminals and saved notebooks show it
	HTML       string
	JavaScript string
	Picture    *Picture

	// Fit draws the text for a screen of so many characters and lines; 0 is no
	// limit. It is nil where Text is the only form.
	Fit func(width, height int) string

	// Log tells a live view as lines of a log, for where nothing can be redrawn:
	// a line that was not there before is news. It may be nil.
	Log func() []string

	// Final says that a live view changes no more.
	Final bool
}

// A Picture is a view that is more than text.
type Picture struct {
	PNG   []byte
	Width int    // in pixels of the page; a narrower page scales it
	Words string // what it shows, for those who cannot see it
}

// A Screen shows views. Implementations may be called from several goroutines.
type Screen interface {
	// Show shows v once.
	Show(v View)
	// Live returns a place that shows one view at a time, the latest.
	Live() Live
}

// Live is a view that is replaced in place.
type Live interface {
	Update(v View)
}

// A UsageError is a mistake in how a magic was called. It is answered with the
// synopsis, never with a traceback.
type UsageError struct {
	Magic *Magic
	Why   string
}

func (e *UsageError) Error() string {
	return fmt.Sprintf("%s: %s", e.Magic.Name, e.Why)
}

// A Problem is an error for the person at the keyboard: what failed, why, and
// what to do about it.
type Problem struct { //nolint:errname // a word for people
	What string // what failed
	Err  error  // why
	Hint string // what to do
}

func (p *Problem) Error() string {
	if p.Err == nil {
		return p.What
	}
	return p.What + ": " + p.Err.Error()
}

// Unwrap returns the reason.
func (p *Problem) Unwrap() error { return p.Err }

// Hinter is an error that knows what to do about itself.
type Hinter interface{ Cure() string }

// Cure returns what to do.
func (p *Problem) Cure() string { return p.Hint }

// CureOf returns the hint of the outermost error in err's chain that has one.
func CureOf(err error) string {
	var h Hinter
	if errors.As(err, &h) {
		return h.Cure()
	}
	return ""
}

// Errors that say how a followed run ended. The command line turns them into
// exit statuses, the notebook into Jupyter errors.
var (
	ErrModelsFailed = errors.New("not every model could be trained")
	ErrPaused       = errors.New("it is paused, and what it saved is kept")
)

// Usage returns the synopsis of m as it is typed at the given prompt: "%" for a
// line magic, "%%" for a cell magic, "outlast " for the command line.
func (m *Magic) Usage(prompt string) string {
	name := m.Name
	if !strings.HasPrefix(prompt, "%") {
		name = m.Verb
	}
	return strings.TrimSpace(fmt.Sprintf("%s%s %s", prompt, name, m.Args))
}

// Prompt returns how m is typed in a notebook: %name or %%name.
func (m *Magic) Prompt() string {
	if m.Line {
		return "%"
	}
	return "%%"
}

// Run parses args and runs m. A request for help is answered on c.Stdout; what
// cannot be parsed is a *UsageError.
func (m *Magic) Run(ctx context.Context, args []string, c *Call) error {
	fs := pflag.NewFlagSet(m.Name, pflag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	fs.SortFlags = false
	run := m.Bind(fs)
	err := fs.Parse(args)
	if errors.Is(err, pflag.ErrHelp) {
		_, err = io.WriteString(c.Stdout, m.Help())
		return err
	}
	if err != nil {
		return &UsageError{m, err.Error()}
	}
	fs.VisitAll(func(f *pflag.Flag) {
		if folder, ok := f.Value.(*folderValue); ok && err == nil {
			err = folder.settle(ctx, c)
		}
	})
	if err != nil {
		return err
	}
	c.Args = fs.Args()
	if n := fs.ArgsLenAtDash(); n >= 0 {
		c.Args, c.Dash = fs.Args()[:n], fs.Args()[n:]
	}
	if len(c.Dash) > 0 && !strings.Contains(m.Args, "--") {
		return &UsageError{m, "it takes nothing after --"}
	}
	return run(ctx, c)
}

// prompt returns what goes before a magic's name where this call was typed.
func (c *Call) prompt() string {
	if c.Notebook != nil {
		return "%"
	}
	return "outlast "
}
