package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"

	"github.com/spf13/pflag"

	"outlast/install"
	"outlast/kernel"
	"outlast/magics"
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
