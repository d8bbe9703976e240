package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"outlast/magics"
)

// version and commit are set by the linker: see the Makefile.
var (
	version = "0.1.0"
	commit  = "unknown" //nolint:gochecknoglobals // the linker can set only variables
)

// protocolVersion is that of the Jupyter messages Outlast itself writes.
const protocolVersion = "5.3"

func versionVerb() verb {
	return verb{name: "version", short: "Show version, commit, Go and protocol", run: func(_ context.Context, p *program, args []string) error {
		fs := pflag.NewFlagSet("version", pflag.ContinueOnError)
		if err := parse(p, fs, args); err != nil {
			return helped(err)
		}
		if fs.NArg() > 0 {
			return usage("version", "it takes no arguments")
		}
		_, err := fmt.Fprintf(p.stdout, "outlast %s\ncommit %s\n%s %s/%s\nJupyter protocol %s\n",
			version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH, protocolVersion)
		return err
	}}
}

// magicVerb makes a magic a command: the same value, writing to a terminal.
func magicVerb(m *magics.Magic) verb {
	return verb{name: m.Verb, args: m.Args, short: m.Short, run: func(ctx context.Context, p *program, args []string) error {
		ctx, interrupts, stop := interruptible(ctx)
		defer stop()
		return m.Run(ctx, args, &magics.Call{
			Stdout:     p.stdout,
			Stderr:     p.stderr,
			Screen:     newTerminal(p.stdout),
			Interrupts: interrupts,
		})
	}}
}

// interruptible returns a context that Ctrl-C or SIGTERM cancels, and a channel
// that has each such signal, the first included. stop ends the listening.
func interruptible(parent context.Context) (ctx context.Context, interrupts <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	each := make(chan struct{}, 2)
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case <-ended:
				return
			case <-signals:
			}
			select {
			case each <- struct{}{}:
			default: // nobody counts beyond two
			}
			cancel()
		}
	}()
	return ctx, each, func() {
		signal.Stop(signals)
		close(ended)
		cancel()
	}
}

// usage is a mistake in the arguments of a command that is no magic.
func usage(name, why string) error {
	return &magics.UsageError{Magic: &magics.Magic{Name: name, Verb: name}, Why: why}
}

// errHelped says that help was asked for and given.
var errHelped = errors.New("help was shown")

// parse reads the flags of a command that is no magic. A request for help is
// answered and reported as errHelped.
func parse(p *program, fs *pflag.FlagSet, args []string) error {
	fs.SetOutput(io.Discard)
	fs.SortFlags = false
	err := fs.Parse(args)
	if errors.Is(err, pflag.ErrHelp) {
		p.showHelp(fs.Name(), fs.FlagUsages())
		return errHelped
	}
	if err != nil {
		return usage(fs.Name(), err.Error())
	}
	return nil
}

// showHelp shows the help of the command that is called so. flags may be empty.
func (p *program) showHelp(name, flags string) {
	for _, v := range p.verbs() {
		if v.name != name {
			continue
		}
		fmt.Fprintf(p.stdout, "  %s\n\n%s.\n", strings.TrimSpace("outlast "+v.name+" "+v.args), v.short)
		if flags != "" {
			fmt.Fprintf(p.stdout, "\nFlags:\n%s", flags)
		}
	}
}

// helped takes a request for help for what it is: no error.
func helped(err error) error {
	if errors.Is(err, errHelped) {
		return nil
	}
	return err
}
