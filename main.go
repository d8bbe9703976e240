// Outlast is a Jupyter kernel that wraps the notebook's Python kernel and lets
// long training outlive the machine it runs on. This package connects the
// others; it is the only one that reads the environment and ends the process.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"outlast/magics"
)

// A verb is one command of the command line.
type verb struct {
	name, args, short string
	hidden            bool
	run               func(ctx context.Context, p *program, args []string) error
}

// program is what a command is given of the world.
type program struct {
	env    environment
	mount  string // where Google Drive is mounted, or would be; empty: nowhere
	stdout io.Writer
	stderr io.Writer
}

func main() {
	p := &program{env: environment{os.LookupEnv}, mount: colabMount, stdout: os.Stdout, stderr: os.Stderr}
	os.Exit(p.main(context.Background(), os.Args[1:]))
}

// main runs one command and returns the exit status.
func (p *program) main(ctx context.Context, args []string) int {
	verbs := p.verbs()
	if len(args) == 0 || args[0] == "help" || args[0] == "--help" || args[0] == "-h" {
		p.help(verbs)
		return exitOK
	}
	for _, v := range verbs {
		if v.name == args[0] {
			err := v.run(ctx, p, args[1:])
			p.report(err)
			return exitOf(v.name, err)
		}
	}
	fmt.Fprintf(p.stderr, "outlast: there is no command %q.\nTo do: 'outlast help' lists the commands.\n", args[0])
	return exitUsage
}

// verbs returns every command in the order of the help.
func (p *program) verbs() []verb {
	all := []verb{kernelVerb(), installVerb(), uninstallVerb()}
	deps := p.deps()
	deps.Kernels = func(ctx context.Context) []magics.Kernelspec { return p.kernels(ctx, "") }
	for _, m := range magics.All(deps) {
		if m.Verb != "" {
			all = append(all, magicVerb(m))
		}
	}
	return append(all, storeVerb(), notebookVerb(), emitVerb(), versionVerb(), superviseVerb())
}

func (p *program) help(verbs []verb) {
	fmt.Fprintf(p.stdout, "Outlast %s: training that outlives its runtime.\n\n", version)
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	for _, v := range verbs {
		if !v.hidden {
			fmt.Fprintf(w, "  outlast %s\t%s\n", v.name, v.short)
		}
	}
	w.Flush() //nolint:errcheck // a terminal that is gone cannot be told
	fmt.Fprintf(p.stdout, "\nEach answers --help. In a notebook, %%outlast lists the magics.\n")
}

// synopsis returns how a verb is typed. One that is no magic has its arguments
// in the list of verbs.
func (p *program) synopsis(m *magics.Magic) string {
	for _, v := range p.verbs() {
		if v.name == m.Verb && m.Args == "" {
			return strings.TrimSpace("outlast " + v.name + " " + v.args)
		}
	}
	return m.Usage("outlast ")
}

// report prints err in three parts, what failed, why and what to do.
func (p *program) report(err error) {
	if err == nil {
		return
	}
	if usage, ok := errors.AsType[*magics.UsageError](err); ok {
		fmt.Fprintf(p.stderr, "outlast %s: %s.\nUsage: %s\nTo do: outlast %s --help\n",
			usage.Magic.Verb, usage.Why, p.synopsis(usage.Magic), usage.Magic.Verb)
		return
	}
	fmt.Fprintf(p.stderr, "outlast: %v\n", err)
	if cure := magics.CureOf(err); cure != "" {
		fmt.Fprintf(p.stderr, "To do: %s\n", cure)
	}
}
