package install

import (
	"os"
	"path/filepath"
	"strings"
)

// Version returns the version of Outlast that wrote s; empty if s is not ours.
func (s Spec) Version() string { return s.mark().Version }

// Installed returns our kernelspecs that Jupyter finds in the data folders of path:
// of one name the first is taken, whosever it is. What cannot be read is left out.
func Installed(path []string) []Spec {
	var ours []Spec
	seen := map[string]bool{}
	for _, dir := range path {
		entries, err := os.ReadDir(filepath.Join(dir, "kernels"))
		if err != nil {
			continue // most of the folders do not exist
		}
		for _, e := range entries {
			spec, err := read(filepath.Join(dir, "kernels", e.Name()))
			name := strings.ToLower(e.Name())
			if err != nil || seen[name] {
				continue
			}
			seen[name] = true
			if spec.Ours() {
				ours = append(ours, spec)
			}
		}
	}
	return ours
}
