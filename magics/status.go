package magics

import (
	"context"
	"encoding/json"

	"github.com/spf13/pflag"
)

// Status returns %status: the table of a run's models.
func Status(d *Deps) *Magic {
	m := &Magic{
		Name:  "status",
		Verb:  "status",
		Args:  "[RUN]",
		Short: "Show a run's models with state, step, loss and time left",
		Line:  true,
	}
	m.Bind = func(fs *pflag.FlagSet) func(context.Context, *Call) error {
		dir := d.dirFlag(fs)
		asJSON := fs.Bool("json", false, "print one JSON object")
		return func(_ context.Context, c *Call) error {
			run, err := d.oneRun(m, c, *dir)
			if err != nil {
				return err
			}
			status, err := run.Status()
			if err != nil {
				return err
			}
			if *asJSON {
				return writeJSON(c, status)
			}
			c.Screen.Show(statusView(status, c.prompt()))
			return nil
		}
	}
	return m
}

func writeJSON(c *Call, v any) error {
	enc := json.NewEncoder(c.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
