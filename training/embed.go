package training

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// The pattern names the files: a folder's name alone would leave out those that
// begin with an underscore.
//
//go:embed worker/outlast/*.py
var workerFiles embed.FS

// UnpackWorker writes the workers' Python module below cacheDir, in a folder
// named by its content, and returns what to put on PYTHONPATH. Two processes
// may do so at once: the first rename wins.
func UnpackWorker(cacheDir string) (string, error) {
	files, err := fs.Glob(workerFiles, "worker/outlast/*.py")
	if err != nil { // the pattern is a constant
		panic(err)
	}
	h := sha256.New()
	content := map[string][]byte{}
	for _, name := range files {
		data, err := workerFiles.ReadFile(name)
		if err != nil {
			return "", err
		}
		content[filepath.Base(name)] = data
		fmt.Fprintf(h, "%s %d\n%s", name, len(data), data)
	}
	target := filepath.Join(cacheDir, "worker-"+hex.EncodeToString(h.Sum(nil))[:16])
	if _, err := os.Stat(filepath.Join(target, "outlast", "__init__.py")); err == nil {
		return target, nil
	}
	if err := os.MkdirAll(cacheDir, 0o755); err != nil {
		return "", fmt.Errorf("unpack the workers' module: %w", err)
	}
	temp, err := os.MkdirTemp(cacheDir, "worker-new-")
	if err != nil {
		return "", fmt.Errorf("unpack the workers' module: %w", err)
	}
	defer os.RemoveAll(temp) //nolint:errcheck // it has been renamed, or is a leftover in a cache
	if err := os.Mkdir(filepath.Join(temp, "outlast"), 0o755); err != nil {
		return "", err
	}
	for name, data := range content {
		if err := os.WriteFile(filepath.Join(temp, "outlast", name), data, 0o644); err != nil {
			return "", fmt.Errorf("unpack the workers' module: %w", err)
		}
	}
	if err := os.Rename(temp, target); err != nil {
		if _, there := os.Stat(filepath.Join(target, "outlast", "__init__.py")); there != nil {
			return "", fmt.Errorf("unpack the workers' module: %w", err)
		}
	}
	return target, nil
}
