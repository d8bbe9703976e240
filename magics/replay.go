package magics

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/pflag"
)

// Replay returns %replay: what a cell printed, once more.
func Replay(*Deps) *Magic {
	m := &Magic{
		Name:  "replay",
		Args:  "[N | last]",
		Short: "Show again what a cell printed, also while the browser was away",
		Line:  true,
		Looks: true,
	}
	m.Bind = func(*pflag.FlagSet) func(context.Context, *Call) error {
		return func(ctx context.Context, c *Call) error {
			word, err := optional(m, c)
			if err != nil {
				return err
			}
			count := 0
			if word != "" && word != "last" {
				if count, err = strconv.Atoi(word); err != nil || count < 1 {
					return &UsageError{m, fmt.Sprintf("it takes the number of a cell, as in [12], or last, not %q", word)}
				}
			}
			lost, err := c.Notebook.Replay(ctx, count)
			if ctx.Err() != nil {
				return err
			}
			if err != nil {
				return &Problem{
					What: "replay " + cellName(count),
					Err:  err,
					Hint: "give the number that stands before a cell of this session: %replay 12. The output of runs in training is in %logs",
				}
			}
			if lost {
				fmt.Fprintf(c.Stderr, "A part of what %s printed is no longer kept: the journal holds the latest 256 MiB.\n", cellName(count))
			}
			return nil
		}
	}
	return m
}

func cellName(count int) string {
	if count == 0 {
		return "the last cell"
	}
	return fmt.Sprintf("cell [%d]", count)
}
