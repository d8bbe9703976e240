package magics

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// Shared returns %%shared: code for the notebook and for every worker. The
// notebook's kernel runs the body itself; this magic only remembers it.
func Shared(d *Deps) *Magic {
	m := &Magic{
		Name:  "shared",
		Short: "Run a cell here and, first, in every worker of later %%train cells",
		Cell:  true,
	}
	m.Bind = func(fs *pflag.FlagSet) func(context.Context, *Call) error {
		reset := fs.Bool("reset", false, "forget the cells shared so far, then share this one")
		return func(_ context.Context, c *Call) error {
			if len(c.Args) > 0 {
				return &UsageError{m, "it takes no arguments"}
			}
			if *reset {
				d.Session.forgetShared()
			}
			if strings.TrimSpace(c.Body) == "" {
				return nil
			}
			n := d.Session.Share(c.CellID, c.Body)
			if n == 1 {
				return nil
			}
			text := fmt.Sprintf("Shared with every worker, as the last of %d cells.", n)
			if c.CellID == "" {
				text += " Here an edited cell does not replace what it said before: after a mistake, begin anew with %%shared --reset."
			}
			_, err := fmt.Fprintln(c.Stdout, text)
			return err
		}
	}
	return m
}
