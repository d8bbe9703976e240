package main

import (
	"context"

	"outlast/install"
	"outlast/magics"
)

// kernels returns the kernelspecs by which Jupyter finds Outlast in the Python
// environment in prefix; empty is that of the command line.
func (p *program) kernels(ctx context.Context, prefix string) []magics.Kernelspec {
	if prefix == "" {
		var err error
		if prefix, err = install.SysPrefix(p.env.python()); err != nil {
			p.logger().DebugContext(ctx, "environment not known", "error", err)
		}
	}
	var found []magics.Kernelspec
	for _, spec := range install.Installed(install.SearchPath(p.env.lookup, prefix)) {
		exe := spec.Argv[0]
		if exe == "python" || exe == "python3" {
			exe = p.env.python() // Jupyter takes its own, which is the environment's
		}
		found = append(found, magics.Kernelspec{Name: spec.Name, Dir: spec.Dir, Program: exe, Version: spec.Version()})
	}
	return found
}
