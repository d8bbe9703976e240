package install

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"outlast/checkpoint/durable"
)

// Exe returns a path to the running program that will be there tomorrow. A
// link in PATH is preferred to what it points to, because upgrades move that. A
// program that was built into a temporary folder, as 'go run' does, is copied
// below dataDir.
func Exe(dataDir, tempDir string) (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	if linked, err := exec.LookPath(filepath.Base(exe)); err == nil && same(linked, exe) {
		if linked, err = filepath.Abs(linked); err == nil {
			exe = linked
		}
	}
	if !strings.HasPrefix(exe, filepath.Clean(tempDir)+string(filepath.Separator)) && !strings.Contains(exe, "go-build") {
		return exe, nil
	}
	name := "outlast"
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	lasting := filepath.Join(dataDir, "outlast", name)
	return lasting, copyProgram(exe, lasting)
}

func same(a, b string) bool {
	x, errA := os.Stat(a)
	y, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(x, y)
}

func copyProgram(from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	if err := durable.MkdirAll(filepath.Dir(to)); err != nil {
		return err
	}
	if _, err := durable.WriteFile(to, f, nil); err != nil {
		return err
	}
	return os.Chmod(to, fs.FileMode(0o755))
}
