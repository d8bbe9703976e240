package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"outlast/checkpoint"
	"outlast/checkpoint/folder"
	"outlast/magics"
	"outlast/training"
)

// defaultKeep is how many checkpoints of a model prune keeps unless it is told:
// the newest may be damaged, and the one before it with it.
const defaultKeep = 3

// storeVerb looks at a store, and after it, without a run that works on it.
func storeVerb() verb {
	return verb{
		name: "store", args: "ls|verify|pull|prune URL [RUN]",
		short: "Look at a store, verify it, fetch from it, clean it",
		run: func(ctx context.Context, p *program, args []string) error {
			ctx, _, stop := interruptible(ctx)
			defer stop()
			fs := pflag.NewFlagSet("store", pflag.ContinueOnError)
			c := storeCall{program: p}
			fs.BoolVar(&c.json, "json", false, "print JSON (ls, verify, prune)")
			runs, note := p.runsDir()
			fs.StringVar(&c.dir, "dir", runs, "data directory to fetch into (pull)")
			fs.IntVar(&c.prune.Keep, "keep", defaultKeep, "good checkpoints of each model to keep (prune)")
			fs.StringVar(&c.best, "keep-best", "", "keep besides the one whose `METRIC` is the lowest, METRIC:max for the highest (prune; default: as the run was trained)")
			fs.BoolVar(&c.prune.Superseded, "superseded", false, "remove also what was set aside (prune)")
			fs.BoolVar(&c.prune.DryRun, "dry-run", false, "remove nothing, and say what would be (prune)")
			if err := parse(p, fs, args); err != nil {
				return helped(err)
			}
			if !fs.Changed("dir") {
				c.note = note
			}
			return c.run(ctx, fs)
		},
	}
}

// storeCall is one call of the store verb.
type storeCall struct {
	*program
	json  bool
	dir   string
	note  string // about dir; may be empty
	prune checkpoint.PruneOptions
	best  string // as it was given; empty for what the run's plan says

	url   string
	name  string // of the run; empty if none was given
	store checkpoint.Store
}

func (c *storeCall) run(ctx context.Context, flags *pflag.FlagSet) error {
	action, err := c.parse(flags)
	if err != nil {
		return err
	}
	if c.store, err = c.openExisting(ctx, c.url); err != nil {
		return err
	}
	defer c.closeStore(c.store)
	if err := action(ctx); err != nil {
		return c.problem(flags.Arg(0), err)
	}
	return nil
}

// parse reads what is to be done with which store. A flag that does not belong
// to it is a mistake: who gives --keep to ls has meant something else.
func (c *storeCall) parse(flags *pflag.FlagSet) (func(context.Context) error, error) {
	actions := map[string]struct {
		run   func(context.Context) error
		flags string
	}{
		"ls":     {c.ls, "json"},
		"verify": {c.verify, "json"},
		"pull":   {c.pull, "dir"},
		"prune":  {c.clean, "json keep keep-best superseded dry-run"},
	}
	a, ok := actions[flags.Arg(0)]
	switch {
	case flags.NArg() == 0 || !ok:
		return nil, usage("store", "say what to do: ls, verify, pull or prune")
	case flags.NArg() == 1:
		return nil, usage("store", "say which store: a folder, or drive:Folder")
	case flags.NArg() > 3:
		return nil, usage("store", "it takes one store and one run")
	case c.prune.Keep < 1:
		return nil, usage("store", "--keep takes a number from 1 on: the last good checkpoint always stays")
	}
	var foreign []string
	flags.Visit(func(f *pflag.Flag) {
		if !strings.Contains(" "+a.flags+" ", " "+f.Name+" ") {
			foreign = append(foreign, "--"+f.Name)
		}
	})
	if len(foreign) > 0 {
		return nil, usage("store", fmt.Sprintf("%s does not take %s", flags.Arg(0), strings.Join(foreign, ", ")))
	}
	c.url, c.name = flags.Arg(1), flags.Arg(2)
	return a.run, nil
}

// openExisting opens a store that is there: a folder's name that was mistyped
// must not make a new and empty store.
func (p *program) openExisting(ctx context.Context, url string) (checkpoint.Store, error) {
	if dir, ok := folder.Parse(url); ok {
		info, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
			return nil, &magics.Problem{What: "open the store " + url, Err: errors.New("there is no such folder"), Hint: "check its address; train --store makes a store"}
		}
	}
	return p.openStore(ctx, url)
}

// problem gives an error that has no advice some.
func (c *storeCall) problem(action string, err error) error {
	if errors.Is(err, context.Canceled) {
		return &storeError{"store " + action + " " + c.url, errors.New("it was interrupted"), "start it again: nothing is half done"}
	}
	if magics.CureOf(err) != "" {
		return err
	}
	return &storeError{"store " + action + " " + c.url, err, "check that the store can be reached, and try again: nothing is half done"}
}

// A storeError says what could not be done with a store, or what is wrong with
// it. The call itself was right.
type storeError struct {
	what string
	err  error
	hint string
}

func (e *storeError) Error() string { return e.what + ": " + e.err.Error() }

// Unwrap returns the reason.
func (e *storeError) Unwrap() error { return e.err }

// Cure says what to do.
func (e *storeError) Cure() string { return e.hint }

// runs returns the runs that are meant: the one that was named, else all.
func (c *storeCall) runs(ctx context.Context) ([]string, error) {
	if c.name != "" {
		return []string{c.name}, nil
	}
	return checkpoint.Runs(ctx, c.store)
}

// oneRun returns the run that is meant: the one that was named, else the only
// one.
func (c *storeCall) oneRun(ctx context.Context, action string) (string, error) {
	names, err := c.runs(ctx)
	if err != nil {
		return "", err
	}
	switch len(names) {
	case 0:
		return "", &magics.Problem{What: "store " + action + " " + c.url, Err: errors.New("no run is in it"), Hint: "check its address"}
	case 1:
		return names[0], nil
	}
	return "", &magics.Problem{
		What: fmt.Sprintf("%d runs are in %s", len(names), c.url),
		Err:  errors.New("it is not clear which one is meant: " + strings.Join(names, ", ")),
		Hint: fmt.Sprintf("name it: outlast store %s %s RUN", action, c.url),
	}
}

// pull fetches a run without starting it.
func (c *storeCall) pull(ctx context.Context) error {
	if c.note != "" {
		fmt.Fprintln(c.stderr, c.note)
	}
	if err := magics.CheckDir(c.dir, c.mount); err != nil {
		return err
	}
	run, err := c.oneRun(ctx, "pull")
	if err != nil {
		return err
	}
	if running(c.dir, run) {
		return &magics.Problem{
			What: "store pull " + run, Err: errors.New("it runs here: what it saves must not change under it"),
			Hint: fmt.Sprintf("outlast stop %s first, or fetch into another folder with --dir", run),
		}
	}
	report, err := checkpoint.Restore(ctx, c.store, run, c.dir)
	for _, note := range report.Notes {
		fmt.Fprintln(c.stdout, note)
	}
	if err != nil {
		return err
	}
	if len(report.Restored) == 0 {
		fmt.Fprintln(c.stdout, "The store has no checkpoint of it that is good: it begins anew.")
	}
	_, err = fmt.Fprintf(c.stdout, "%s is in %s. To go on with it: outlast resume %s --dir %s\n", run, c.dir, run, c.dir)
	return err
}

// running reports whether a supervisor works on the run in dir.
func running(dir, name string) bool {
	run, err := training.Find(dir, name)
	if err != nil {
		return false // it is not here
	}
	status, err := run.Status()
	return err == nil && status.State == training.RunRunning
}

func (c *storeCall) printJSON(v any) error {
	w := json.NewEncoder(c.stdout)
	w.SetIndent("", "  ")
	return w.Encode(v)
}
