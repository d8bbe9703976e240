package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"

	"github.com/spf13/pflag"

	"outlast/install"
)

// destination declares the flags that say where a kernelspec goes.
type destination struct {
	user, sysPrefix bool
	prefix, name    string
}

func (d *destination) bind(fs *pflag.FlagSet) {
	fs.BoolVar(&d.user, "user", false, "for this user (the default)")
	fs.BoolVar(&d.sysPrefix, "sys-prefix", false, "into the active Python environment")
	fs.StringVar(&d.prefix, "prefix", "", "below this folder, in share/jupyter/kernels")
	fs.StringVar(&d.name, "name", install.DefaultName, "name of the kernelspec")
}

// dataDir returns the Jupyter data folder that the flags mean.
func (d *destination) dataDir(p *program, verb string) (string, error) {
	chosen := 0
	for _, yes := range []bool{d.user, d.sysPrefix, d.prefix != ""} {
		if yes {
			chosen++
		}
	}
	switch {
	case chosen > 1:
		return "", usage(verb, "--user, --sys-prefix and --prefix exclude each other")
	case d.prefix != "":
		return install.PrefixDir(d.prefix), nil
	case d.sysPrefix:
		prefix, err := install.SysPrefix(p.env.python())
		if err != nil {
			return "", err
		}
		return install.PrefixDir(prefix), nil
	}
	return install.UserDir(p.env.lookup)
}

func installVerb() verb {
	return verb{
		name: "install", args: "[--user | --sys-prefix | --prefix P]",
		short: "Make the kernel selectable in Jupyter",
		run: func(_ context.Context, p *program, args []string) error {
			fs := pflag.NewFlagSet("install", pflag.ContinueOnError)
			var d destination
			d.bind(fs)
			child := fs.String("child", install.DefaultChild, "kernelspec of the kernel to wrap")
			if err := parse(p, fs, args); err != nil {
				return helped(err)
			}
			if fs.NArg() > 0 {
				return usage("install", "it takes flags only")
			}
			return p.install(&d, *child)
		},
	}
}

// install looks for the child first: a kernel that cannot start is worse than
// none.
func (p *program) install(d *destination, child string) error {
	dataDir, err := d.dataDir(p, "install")
	if err != nil {
		return err
	}
	prefix := d.prefix
	if prefix == "" {
		if prefix, err = install.SysPrefix(p.env.python()); err != nil {
			return err
		}
	}
	spec, err := p.childSpec(child, prefix)
	if err != nil {
		return err
	}
	exe, err := install.Exe(dataDir, os.TempDir())
	if err != nil {
		return err
	}
	dir, err := install.Install(install.Options{Dir: dataDir, Name: d.name, Exe: exe, Child: spec, Version: version})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "Installed: %s\nIt wraps %s. Choose it in Jupyter, or: jupyter lab --MultiKernelManager.default_kernel_name=%s\n",
		dir, spec.DisplayName, d.name)
	return err
}

func uninstallVerb() verb {
	return verb{
		name: "uninstall", args: "[--user | --sys-prefix | --prefix P]",
		short: "Remove what install wrote",
		run: func(_ context.Context, p *program, args []string) error {
			fs := pflag.NewFlagSet("uninstall", pflag.ContinueOnError)
			var d destination
			d.bind(fs)
			if err := parse(p, fs, args); err != nil {
				return helped(err)
			}
			if fs.NArg() > 0 {
				return usage("uninstall", "it takes flags only")
			}
			dataDir, err := d.dataDir(p, "uninstall")
			if err != nil {
				return err
			}
			dir, err := install.Uninstall(dataDir, d.name)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(p.stdout, "Removed: %s\n", dir)
			return err
		},
	}
}

// childSpec returns the kernel to wrap, as seen from the Python environment in
// prefix. An environment whose ipykernel has no kernelspec is served too.
func (p *program) childSpec(name, prefix string) (install.Spec, error) {
	python := install.PrefixPython(prefix)
	if python == "" {
		python = p.env.python()
	}
	spec, err := install.Find(name, install.SearchPath(p.env.lookup, prefix))
	if install.IsMissing(err) && name == install.DefaultChild && hasIpykernel(python) {
		return install.Ipykernel(python), nil
	}
	if err != nil {
		return spec, err
	}
	// As jupyter_client does it: a bare python is the environment's own.
	if bare := spec.Argv[0]; bare == "python" || bare == "python3" {
		spec.Argv = append([]string{python}, spec.Argv[1:]...)
	}
	return spec, nil
}

func hasIpykernel(python string) bool {
	check := "import importlib.util as u, sys; sys.exit(u.find_spec('ipykernel') is None)"
	return exec.Command(python, "-c", check).Run() == nil //nolint:noctx // it ends at once
}
