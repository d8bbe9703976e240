package magics

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/pflag"
)

// Outlast returns %outlast: the list of the magics.
func Outlast(d *Deps) *Magic {
	m := &Magic{
		Name:  "outlast",
		Short: "List the magics",
		Line:  true,
	}
	m.Bind = func(*pflag.FlagSet) func(context.Context, *Call) error {
		return func(_ context.Context, c *Call) error {
			if len(c.Args) > 0 {
				return &UsageError{m, "it takes no arguments"}
			}
			fmt.Fprintf(c.Stdout, "Outlast %s: training that outlives its runtime.\n\n", d.Version)
			w := tabwriter.NewWriter(c.Stdout, 0, 0, 2, ' ', 0)
			for _, each := range All(d) {
				prompt := each.Prompt()
				if each.Cell {
					prompt = "%%"
				}
				fmt.Fprintf(w, "  %s%s\t%s\n", prompt, each.Name, each.Short)
			}
			if err := w.Flush(); err != nil {
				return err
			}
			_, err := fmt.Fprintln(c.Stdout, "\nAny of them answers %NAME? and %NAME --help.")
			return err
		}
	}
	return m
}
