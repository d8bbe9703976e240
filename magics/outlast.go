package magics

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// restart is the one thing that %outlast does beside listing.
const restart = "restart"

// Outlast returns %outlast: the list of the magics, and a way out of a Python
// that hangs.
func Outlast(d *Deps) *Magic {
	m := &Magic{
		Name:  "outlast",
		Args:  "[restart]",
		Short: "List the magics; restart: a fresh Python, even if this one hangs",
		Line:  true,
		Looks: true,
		Now:   func(args string) bool { return strings.TrimSpace(args) == restart },
	}
	m.Bind = func(fs *pflag.FlagSet) func(context.Context, *Call) error {
		dir := d.dirFlag(fs)
		return func(ctx context.Context, c *Call) error {
			word, err := optional(m, c)
			if err != nil {
				return err
			}
			switch word {
			case "":
				return d.list(c)
			case restart:
				return restartPython(ctx, c, *dir)
			}
			return &UsageError{m, fmt.Sprintf("it takes nothing, or restart, not %q", word)}
		}
	}
	return m
}

// listWidth is that of the list, in characters: every terminal shows it.
const listWidth = 80

// list writes every magic with its one line.
func (d *Deps) list(c *Call) error {
	type line struct{ names, short string }
	var lines []line
	indent := 0
	for _, each := range All(d) {
		names := strings.Join(each.notebookPrompts(), each.Name+", ") + each.Name
		lines = append(lines, line{names, each.Short})
		indent = max(indent, len(names)+4)
	}
	fmt.Fprintf(c.Stdout, "Outlast %s: training that outlives its runtime.\n\n", d.Version)
	for _, l := range lines {
		short := strings.Join(wrap(l.short, listWidth-indent, ""), "\n"+strings.Repeat(" ", indent))
		fmt.Fprintf(c.Stdout, "  %-*s%s\n", indent-2, l.names, short)
	}
	_, err := fmt.Fprintln(c.Stdout, "\nAny of them answers %NAME? and %NAME --help.")
	return err
}

// restartPython ends the notebook's Python and starts another. The runs in
// training are no part of it.
func restartPython(ctx context.Context, c *Call, dir string) error {
	if err := c.Notebook.RestartChild(ctx); err != nil {
		return &Problem{"restart Python", err, "restart the kernel from the notebook's menu; runs in training go on in any case"}
	}
	text := "A fresh Python has started; its variables are gone."
	if working := workingRuns(dir); len(working) > 0 {
		text += " Runs in training were not touched: " + strings.Join(working, ", ") + "."
	}
	_, err := fmt.Fprintln(c.Stdout, text)
	return err
}
