package magics

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

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

// list writes every magic with its one line.
func (d *Deps) list(c *Call) error {
	fmt.Fprintf(c.Stdout, "Outlast %s: training that outlives its runtime.\n\n", d.Version)
	w := tabwriter.NewWriter(c.Stdout, 0, 0, 2, ' ', 0)
	for _, each := range All(d) {
		prompts := strings.Join(each.notebookPrompts(), each.Name+", ")
		fmt.Fprintf(w, "  %s%s\t%s\n", prompts, each.Name, each.Short)
	}
	if err := w.Flush(); err != nil {
		return err
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
