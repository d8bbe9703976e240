package magics

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/pflag"
)

// Logs returns %logs: what a model's workers printed.
func Logs(d *Deps) *Magic {
	m := &Magic{
		Name:  "logs",
		Verb:  "logs",
		Args:  "RUN [MODEL]",
		Short: "Show what the workers of a run printed",
		Line:  true,
	}
	m.Bind = func(fs *pflag.FlagSet) func(context.Context, *Call) error {
		dir := d.dirFlag(fs)
		last := fs.IntP("lines", "n", 100, "how many of the last lines of each model; 0 for all")
		return func(_ context.Context, c *Call) error {
			if len(c.Args) == 0 || len(c.Args) > 2 {
				return &UsageError{m, "it takes the name of a run, and of one model if you like"}
			}
			one := &Call{Args: c.Args[:1]}
			run, err := d.oneRun(m, one, *dir)
			if err != nil {
				return err
			}
			if len(c.Args) == 2 {
				text, err := run.Log(c.Args[1], *last)
				if err != nil {
					return err
				}
				_, err = io.WriteString(c.Stdout, text)
				return err
			}
			for _, model := range run.Plan().Models {
				text, err := run.Log(model.Name, *last)
				if err != nil {
					return err
				}
				if text == "" {
					continue
				}
				if _, err := fmt.Fprintf(c.Stdout, "── %s\n%s", model.Name, text); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return m
}
