package magics

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"outlast/training"
)

// followInterval is how often a followed log is looked at.
const followInterval = 200 * time.Millisecond

// logBlock bounds what is read of one log at a time, in bytes.
const logBlock = 256 << 10

// Logs returns %logs: what a model's workers printed.
func Logs(d *Deps) *Magic {
	m := &Magic{
		Name:  "logs",
		Verb:  "logs",
		Args:  "RUN [MODEL]",
		Short: "Show what the workers of a run printed",
		Line:  true,
		Looks: true,
	}
	m.Bind = func(fs *pflag.FlagSet) func(context.Context, *Call) error {
		dir := d.dirFlag(fs)
		last := fs.IntP("lines", "n", 100, "how many of the last lines of each model; 0 for all")
		follow := fs.BoolP("follow", "f", false, "go on with what is printed, until the run ends or you interrupt")
		return func(ctx context.Context, c *Call) error {
			if len(c.Args) == 0 || len(c.Args) > 2 {
				return &UsageError{m, "it takes the name of a run, and of one model if you like"}
			}
			if *last < 0 {
				return &UsageError{m, "--lines is a number of lines, or 0 for all"}
			}
			run, err := findRun(*dir, c.Args[0])
			if err != nil {
				return err
			}
			l, err := newLogReader(run, c.Args[1:], c.Stdout)
			if err != nil {
				return err
			}
			if err := l.begin(*last); err != nil || !*follow {
				return err
			}
			return l.follow(ctx)
		}
	}
	return m
}

// A logReader writes the logs of a run's models one below the other, each piece
// under its model's name.
type logReader struct {
	run   *training.Run
	out   io.Writer
	names []string
	at    map[string]int64 // how far each log has been read
	shown string           // whose text was written last
}

// newLogReader reads the logs of one model, or without a name of all.
func newLogReader(run *training.Run, model []string, out io.Writer) (*logReader, error) {
	l := &logReader{run: run, out: out, at: map[string]int64{}}
	for _, m := range run.Plan().Models {
		l.names = append(l.names, m.Name)
	}
	if len(model) == 0 {
		return l, nil
	}
	if !slices.Contains(l.names, model[0]) {
		return nil, &Problem{
			What: "show the log of " + model[0],
			Err:  fmt.Errorf("run %s has no such model", run.Name()),
			Hint: "it has: " + strings.Join(l.names, ", "),
		}
	}
	l.names = model
	return l, nil
}

// begin writes the last lines of each log; 0 is all of it.
func (l *logReader) begin(last int) error {
	for _, name := range l.names {
		text, end, err := logEnd(l.run.ModelPath(name, "log.txt"), last)
		if err != nil {
			return &Problem{"read the log of " + name, err, "it is the file " + l.run.ModelPath(name, "log.txt")}
		}
		l.at[name] = end
		if err := l.write(name, text); err != nil {
			return err
		}
	}
	return nil
}

// write writes a piece of a model's log. Of several models it says whose.
func (l *logReader) write(name string, text string) error {
	if text == "" {
		return nil
	}
	if len(l.names) > 1 && l.shown != name {
		l.shown = name
		if _, err := fmt.Fprintf(l.out, "──── %s ────\n", name); err != nil {
			return err
		}
	}
	_, err := io.WriteString(l.out, text)
	return err
}

// follow writes what is added to the logs, until nobody works on the run. An
// interrupt ends it too: looking is not the run's business.
func (l *logReader) follow(ctx context.Context) error {
	_, err := l.run.Follow(ctx, followInterval, func(training.Status) {
		l.next(ctx) //nolint:errcheck // told at the end, below
	})
	if err == nil {
		err = l.next(ctx) // what came between the last look and the end
	}
	if ctx.Err() != nil {
		return nil //nolint:nilerr // see above
	}
	return err
}

// next writes what is new since the last look, whole lines where there are any. A
// worker may print faster than this is read.
func (l *logReader) next(ctx context.Context) error {
	for _, name := range l.names {
		for {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			text, err := l.read(name)
			if err != nil {
				return err
			}
			if text == "" {
				break
			}
			if err := l.write(name, text); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *logReader) read(name string) (string, error) {
	f, err := os.Open(l.run.ModelPath(name, "log.txt"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil // its first attempt is still to come
	}
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // it was only read
	block := make([]byte, logBlock)
	n, err := f.ReadAt(block, l.at[name])
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	text := block[:n]
	if end := bytes.LastIndexByte(text, '\n') + 1; end > 0 {
		text = text[:end] // a line is not torn, by another model's text or in a character
	}
	l.at[name] += int64(len(text))
	return string(text), nil
}
