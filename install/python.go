package install

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// SysPrefix asks python for the environment that it belongs to.
func SysPrefix(python string) (string, error) {
	out, err := exec.Command(python, "-c", "import sys; print(sys.prefix)").Output() //nolint:noctx // it prints one line
	if err != nil {
		return "", &SpecError{"environment", fmt.Errorf("ask %s for its prefix: %w", python, err), "activate a Python environment, or give --prefix"}
	}
	prefix := strings.TrimSpace(string(out))
	if prefix == "" {
		return "", &SpecError{"environment", errors.New(python + " has no prefix"), "give --prefix"}
	}
	return prefix, nil
}

// PrefixPython returns the interpreter of the Python environment in prefix, or
// "" if there is none.
func PrefixPython(prefix string) string {
	names := []string{filepath.Join("bin", "python3"), filepath.Join("bin", "python")}
	if runtime.GOOS == "windows" {
		names = []string{"python.exe", filepath.Join("Scripts", "python.exe")}
	}
	for _, name := range names {
		if path, err := exec.LookPath(filepath.Join(prefix, name)); err == nil {
			return path
		}
	}
	return ""
}
