// Package notebooks holds the notebooks that ship with Outlast. It knows
// nothing of what is in them.
package notebooks

import (
	"embed"
	"fmt"
	"io/fs"
	"strings"
)

//go:embed *.ipynb
var files embed.FS

// Default is the notebook that a newcomer is given.
const Default = "quickstart"

// Names returns the names of the bundled notebooks, without ending.
func Names() []string {
	paths, err := fs.Glob(files, "*.ipynb")
	if err != nil { // the pattern is a constant
		panic(err)
	}
	for i, p := range paths {
		paths[i] = strings.TrimSuffix(p, ".ipynb")
	}
	return paths
}

// Read returns the notebook called name, in nbformat 4.
func Read(name string) ([]byte, error) {
	data, err := files.ReadFile(name + ".ipynb")
	if err != nil {
		return nil, fmt.Errorf("find notebook %s: there are %s", name, strings.Join(Names(), ", "))
	}
	return data, nil
}
