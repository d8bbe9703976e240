package magics

import (
	"context"

	"github.com/spf13/pflag"
)

// Stop returns %stop: pause a run cleanly.
func Stop(d *Deps) *Magic {
	m := &Magic{
		Name:  "stop",
		Verb:  "stop",
		Args:  "[RUN]",
		Short: "Pause a run: its workers save and end, the store is flushed",
		Line:  true,
		Looks: true,
	}
	m.Bind = func(fs *pflag.FlagSet) func(context.Context, *Call) error {
		dir := d.dirFlag(fs)
		return func(ctx context.Context, c *Call) error {
			run, err := d.oneRun(m, c, *dir)
			if err != nil {
				return err
			}
			status, err := run.Pause(ctx)
			if err != nil {
				return err
			}
			c.Screen.Show(d.reporter(run, c).report(status).view())
			return nil
		}
	}
	return m
}
