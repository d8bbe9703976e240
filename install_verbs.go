package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"outlast/install"
)

// destination declares the flags that say where a kernelspec goes.
type destination struct {
	user, sysPrefix, colab bool
	prefix, name           string
	flags                  *pflag.FlagSet
}

func (d *destination) bind(fs *pflag.FlagSet) {
	d.flags = fs
	fs.BoolVar(&d.user, "user", false, "for this user (the default)")
	fs.BoolVar(&d.sysPrefix, "sys-prefix", false, "into the active Python environment")
	fs.StringVar(&d.prefix, "prefix", "", "below this folder, in share/jupyter/kernels")
	fs.StringVar(&d.name, "name", install.DefaultName, "name of the kernelspec")
	fs.BoolVar(&d.colab, "colab", false, "in the place of python3, for hosts where notebooks cannot choose, as Colab")
}

// check refuses flags that contradict each other.
func (d *destination) check(verb string) error {
	if d.flags.NArg() > 0 {
		return usage(verb, "it takes flags only, not "+strings.Join(d.flags.Args(), " "))
	}
	chosen := 0
	for _, yes := range []bool{d.user, d.sysPrefix, d.flags.Changed("prefix")} {
		if yes {
			chosen++
		}
	}
	if chosen > 1 {
		return usage(verb, "--user, --sys-prefix and --prefix exclude each other")
	}
	if d.flags.Changed("prefix") && d.prefix == "" {
		return usage(verb, "--prefix needs a folder")
	}
	for _, other := range []string{"sys-prefix", "prefix", "name", "child"} {
		if d.colab && d.flags.Changed(other) {
			return usage(verb, "--colab is for this user and python3: it goes without --"+other)
		}
	}
	return nil
}

// environment returns the Python environment that the flags mean; "" for that
// of the server.
func (d *destination) environment(p *program) (string, error) {
	switch {
	case d.sysPrefix:
		return install.SysPrefix(p.env.python())
	case d.prefix != "":
		return filepath.Abs(d.prefix)
	}
	return "", nil
}

// dataDir returns the Jupyter data folder of an environment, or the user's.
func (p *program) dataDir(environment string) (string, error) {
	if environment != "" {
		return install.PrefixDir(environment), nil
	}
	return install.UserDir(p.env.lookup)
}

func installVerb() verb {
	return verb{
		name: "install", args: "[--user | --sys-prefix | --prefix P] [--name outlast] [--child python3] [--colab]",
		short: "Make the kernel selectable in Jupyter",
		run: func(ctx context.Context, p *program, args []string) error {
			fs := pflag.NewFlagSet("install", pflag.ContinueOnError)
			var d destination
			d.bind(fs)
			child := fs.String("child", install.DefaultChild, "kernelspec of the kernel to wrap")
			if err := parse(p, fs, args); err != nil {
				return helped(err)
			}
			if err := d.check("install"); err != nil {
				return err
			}
			if d.colab {
				return p.installColab(ctx)
			}
			return p.install(&d, *child)
		},
	}
}

// install looks for the child first: a kernel that cannot start is worse than
// none.
func (p *program) install(d *destination, child string) error {
	environment, err := d.environment(p)
	if err != nil {
		return err
	}
	dataDir, err := p.dataDir(environment)
	if err != nil {
		return err
	}
	if environment != "" && install.PrefixPython(environment) == "" {
		// A folder for kernelspecs only: the child is the active environment's, not
		// the one that the system happens to have.
		if environment, err = install.SysPrefix(p.env.python()); err != nil {
			return err
		}
	}
	spec, err := p.childSpec(child, environment)
	if err != nil {
		return err
	}
	exe, err := install.Exe(os.TempDir())
	if err != nil {
		return err
	}
	dir, err := install.Install(install.Options{
		Dir: dataDir, Name: d.name, Program: exe, Child: spec, Prefix: environment, Version: version,
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "Installed: %s\nIt wraps %s. Choose it in Jupyter, or: jupyter lab --MultiKernelManager.default_kernel_name=%s\n",
		dir, spec.DisplayName, d.name)
	return err
}

// installColab puts ours in the place of python3, once it has been seen to work.
func (p *program) installColab(ctx context.Context) error {
	prefix, err := install.SysPrefix(p.env.python())
	if err != nil {
		return err
	}
	dataDir, err := install.UserDir(p.env.lookup)
	if err != nil {
		return err
	}
	shadow := install.Shadow{DataDir: dataDir, Name: install.DefaultChild}
	spec, err := shadow.Hidden(install.SearchPath(p.env.lookup, prefix))
	if err = p.complete(&spec, install.DefaultChild, prefix, err); err != nil {
		return err
	}
	exe, err := install.Exe(os.TempDir())
	if err != nil {
		return err
	}
	o := install.Options{Program: exe, Child: spec, Version: version}
	fmt.Fprintf(p.stdout, "Trying the kernel with %s ...\n", spec.DisplayName)
	err = install.Preflight{
		Exe: exe.Path, Argv: o.Argv(exe.Path, spec.Address()), Child: spec, Python: p.env.python(), TempDir: os.TempDir(),
	}.Check(ctx)
	verdict := "it started, and answered over a local socket without a key, as Colab's do"
	if errors.Is(err, install.ErrNoClient) {
		verdict, err = "not started: "+err.Error(), nil
	}
	if err != nil {
		return err
	}
	dir, err := shadow.Install(o)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "Installed: %s\nIt wraps %s (%s).\nTried: %s.\n"+
		"To do: Runtime > Restart session. To undo: outlast uninstall --colab, and restart again.\n",
		dir, spec.DisplayName, strings.Join(spec.Argv, " "), verdict)
	return err
}

func uninstallVerb() verb {
	return verb{
		name: "uninstall", args: "[--user | --sys-prefix | --prefix P] [--name outlast] [--colab]",
		short: "Remove what install wrote",
		run: func(_ context.Context, p *program, args []string) error {
			fs := pflag.NewFlagSet("uninstall", pflag.ContinueOnError)
			var d destination
			d.bind(fs)
			if err := parse(p, fs, args); err != nil {
				return helped(err)
			}
			if err := d.check("uninstall"); err != nil {
				return err
			}
			return p.uninstall(&d)
		},
	}
}

func (p *program) uninstall(d *destination) error {
	environment, err := d.environment(p)
	if err != nil {
		return err
	}
	dataDir, err := p.dataDir(environment)
	if err != nil {
		return err
	}
	if !d.colab {
		dir, err := install.Uninstall(dataDir, d.name)
		if err == nil {
			_, err = fmt.Fprintf(p.stdout, "Removed: %s\n", dir)
		}
		return err
	}
	dir, err := install.Shadow{DataDir: dataDir, Name: install.DefaultChild}.Undo()
	if err == nil {
		_, err = fmt.Fprintf(p.stdout, "Undone: %s is as it was. To do: Runtime > Restart session.\n", dir)
	}
	return err
}

// childSpec returns the kernel to wrap: the kernelspec of that name as seen from
// the Python environment in prefix, or the one in the folder of that name. An
// empty prefix is the environment of the command line.
func (p *program) childSpec(name, prefix string) (install.Spec, error) {
	if prefix == "" {
		var err error
		if prefix, err = install.SysPrefix(p.env.python()); err != nil {
			return install.Spec{}, err
		}
	}
	var spec install.Spec
	var err error
	if filepath.Base(name) != name {
		spec, err = install.Read(name)
	} else {
		spec, err = install.Find(name, install.SearchPath(p.env.lookup, prefix))
	}
	err = p.complete(&spec, name, prefix, err)
	p.quiet(&spec)
	return spec, err
}

// debuggerWarning is how ipykernel's own installer silences what its debugger
// says at start-up about frozen modules.
const debuggerWarning = "PYDEVD_DISABLE_FILE_VALIDATION"

// quiet silences that warning. Without us nobody is there yet to hear it; with
// us the front end is, and shows it in the first cell.
func (p *program) quiet(spec *install.Spec) {
	launcher := slices.ContainsFunc(spec.Argv, func(arg string) bool { return strings.HasSuffix(arg, "kernel_launcher") })
	_, ours := p.env.lookup(debuggerWarning)
	_, theirs := spec.Env[debuggerWarning]
	if !launcher || ours || theirs {
		return
	}
	env := map[string]string{debuggerWarning: "1"}
	maps.Copy(env, spec.Env)
	spec.Env = env
}

// complete does what Jupyter does with the result of a search: an environment
// whose ipykernel has no kernelspec is served too, and a bare python is the
// environment's own.
func (p *program) complete(spec *install.Spec, name, prefix string, err error) error {
	python := install.PrefixPython(prefix)
	if python == "" {
		python = p.env.python()
	}
	if install.IsMissing(err) && name == install.DefaultChild && hasIpykernel(python) {
		*spec = install.Ipykernel(python)
		return nil
	}
	if err != nil {
		return err
	}
	if bare := spec.Argv[0]; bare == "python" || bare == "python3" {
		spec.Argv = append([]string{python}, spec.Argv[1:]...)
	}
	return nil
}

func hasIpykernel(python string) bool {
	check := "import importlib.util as u, sys; sys.exit(u.find_spec('ipykernel') is None)"
	return exec.Command(python, "-c", check).Run() == nil //nolint:noctx // it ends at once
}
