package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/pflag"

	"outlast/magics"
	"outlast/notebooks"
)

// notebookVerb writes a bundled notebook. It never overwrites one: people work
// in them.
func notebookVerb() verb {
	return verb{
		name: "notebook", args: "[NAME] [-o FILE]",
		short: "Write a bundled notebook to a file",
		run: func(_ context.Context, p *program, args []string) error {
			fs := pflag.NewFlagSet("notebook", pflag.ContinueOnError)
			file := fs.StringP("output", "o", "", "file to write (default NAME.ipynb)")
			if err := parse(p, fs, args); err != nil {
				return helped(err)
			}
			name := notebooks.Default
			switch fs.NArg() {
			case 0:
			case 1:
				name = fs.Arg(0)
			default:
				return usage("notebook", "it takes one name")
			}
			return p.writeNotebook(name, *file)
		},
	}
}

func (p *program) writeNotebook(name, file string) error {
	data, err := notebooks.Read(name)
	if err != nil {
		return usage("notebook", err.Error())
	}
	if file == "" {
		file = name + ".ipynb"
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return &magics.Problem{What: "write " + file, Err: errors.New("it is there already"), Hint: "give another name with -o FILE, or remove it"}
	}
	if err != nil {
		return &magics.Problem{What: "write " + file, Err: err, Hint: "give a file that can be written with -o FILE"}
	}
	if _, err := f.Write(data); err != nil {
		f.Close() //nolint:errcheck // the write's error is the one that counts
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "Written: %s\n", file)
	return err
}
