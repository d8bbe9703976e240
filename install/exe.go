package install

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"outlast/checkpoint/durable"
)

// A Program is our own executable.
type Program struct {
	Path string
	// Lasts says that Path will be there tomorrow. What 'go run' builds is not:
	// Install copies it.
	Lasts bool
}

// Exe returns the running program. A link in PATH is preferred to what it points
// to, because upgrades move that.
func Exe(tempDir string) (Program, error) {
	exe, err := os.Executable()
	if err != nil {
		return Program{}, err
	}
	return program(exe, tempDir), nil
}

func program(exe, tempDir string) Program {
	if linked, err := exec.LookPath(filepath.Base(exe)); err == nil && same(linked, exe) {
		if linked, err = filepath.Abs(linked); err == nil {
			exe = linked
		}
	}
	return Program{Path: exe, Lasts: !within(exe, tempDir) && !strings.Contains(exe, "go-build")}
}

// within reports whether path lies below dir, whichever links lead there.
func within(path, dir string) bool {
	for _, p := range []string{path, resolved(path)} {
		for _, d := range []string{filepath.Clean(dir), resolved(dir)} {
			if strings.HasPrefix(p, d+string(filepath.Separator)) {
				return true
			}
		}
	}
	return false
}

func resolved(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return filepath.Clean(path)
}

func same(a, b string) bool {
	x, errA := os.Stat(a)
	y, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(x, y)
}

// ownDir is our folder in a Jupyter data folder.
func ownDir(dataDir string) string { return filepath.Join(dataDir, "outlast") }

// lastingCopy is where a program that does not last is copied to.
func lastingCopy(dataDir string) string {
	name := "outlast"
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	return filepath.Join(ownDir(dataDir), name)
}

// lasting returns a path to p that lasts, and makes the copy it needs.
func (p Program) lasting(dataDir string) (string, error) {
	if p.Lasts {
		return p.Path, nil
	}
	to := lastingCopy(dataDir)
	if same(p.Path, to) {
		return to, nil
	}
	f, err := os.Open(p.Path)
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // it was only read
	if _, err := durable.WriteFile(to, f, nil); err != nil {
		return "", err
	}
	return to, os.Chmod(to, 0o755)
}
