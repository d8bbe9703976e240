package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/google/uuid"

	"outlast/install"
	"outlast/kernel"
	"outlast/kernel/jupyter"
	"outlast/magics"
)

// kernelVerb runs the kernel on a Jupyter connection file. What it does not
// know of its arguments is the child's: nbclient and others append some.
func kernelVerb() verb {
	return verb{
		name: "kernel", args: "-f FILE [--child NAME] [--prefix DIR] [ARGS...]",
		short: "Run the kernel on a Jupyter connection file",
		run: func(ctx context.Context, p *program, args []string) error {
			o, err := kernelOptions(args)
			if errors.Is(err, errHelped) {
				p.showHelp("kernel", kernelHelp)
				return nil
			}
			if err != nil {
				return err
			}
			return p.runKernel(ctx, o)
		},
	}
}

type kernelFlags struct {
	file   string
	child  string
	prefix string // of the Python environment in which the child is looked for
	rest   []string
}

// kernelHelp lists the flags as a flag parser would.
const kernelHelp = `  -f FILE             the connection file
      --child NAME    kernelspec of the kernel that is started as child (default "python3")
      --prefix DIR    Python environment in which that kernelspec is looked for first

Everything else goes on to the child. Jupyter starts this; people run
'outlast install' and choose the kernel in the notebook.
`

// kernelOptions reads the arguments by hand: a flag parser would refuse those
// that are meant for the child. A request for help is errHelped.
func kernelOptions(args []string) (kernelFlags, error) {
	o := kernelFlags{child: install.DefaultChild}
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; arg {
		case "-f", "--child", "--prefix":
			i++
			if i == len(args) {
				return o, usage("kernel", arg+" needs a value")
			}
			*map[string]*string{"-f": &o.file, "--child": &o.child, "--prefix": &o.prefix}[arg] = args[i]
		case "--help", "-h":
			return o, errHelped
		default:
			o.rest = append(o.rest, arg)
		}
	}
	if o.file == "" {
		return o, usage("kernel", "-f FILE, the connection file, is missing; Jupyter starts the kernel with it")
	}
	if strings.Contains(o.prefix, "{") { // some front ends do not fill it in
		o.prefix = ""
	}
	return o, nil
}

// kernelID returns how a Jupyter server names the kernel that it started with a
// connection file; empty if the file is somebody else's.
func kernelID(file string) string {
	id, ok := strings.CutPrefix(strings.TrimSuffix(filepath.Base(file), ".json"), "kernel-")
	if !ok || uuid.Validate(id) != nil {
		return ""
	}
	return id
}

// isConsole reports whether the kernel was started by one of Jupyter's consoles,
// which name connection files after their process.
func isConsole(file string) bool {
	id, ok := strings.CutPrefix(strings.TrimSuffix(filepath.Base(file), ".json"), "kernel-")
	_, err := strconv.ParseUint(id, 10, 32)
	return ok && err == nil
}

func (p *program) runKernel(ctx context.Context, o kernelFlags) error {
	connection, err := jupyter.ReadConnection(o.file)
	if err != nil {
		return err
	}
	spec, err := p.childSpec(o.child, o.prefix)
	if err != nil {
		return err
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	deps := p.deps()
	deps.Kernels = func(ctx context.Context) []magics.Kernelspec { return p.kernels(ctx, o.prefix) }
	deps.KernelID = kernelID(o.file)
	if deps.KernelID != "" { // else it has no name that outlives a restart
		deps.KeepNote = filepath.Join(p.env.cacheDir(), "keepalive", deps.KernelID+".json")
	}
	var console *os.File
	if isConsole(o.file) {
		console = os.Stdout // which it has from the console
		deps.Host = deps.Host.InConsole()
	}
	set := magics.All(deps)
	proxy := kernel.New(kernel.Config{
		Connection: connection,
		Spec: kernel.Spec{
			Argv: spec.Argv, Env: spec.Env, InterruptMode: spec.InterruptMode, ResourceDir: spec.Dir, Prefix: o.prefix,
		},
		ChildArgs:   o.rest,
		Env:         os.Environ(),
		Dir:         dir,
		TempDir:     os.TempDir(),
		CacheDir:    p.env.cacheDir(),
		JournalDir:  filepath.Join(p.env.cacheDir(), "journal"),
		ParentPID:   p.env.parentPID(),
		Interceptor: &interceptor{set: set, console: console},
		Started:     set.Wake,
		Aftermath:   deps.Untouched,
		Log:         p.logger(),
		Stderr:      p.stderr,
	})
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt)
	defer signal.Stop(interrupts)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-interrupts:
				proxy.Interrupt()
			}
		}
	}()
	return proxy.Run(ctx)
}
