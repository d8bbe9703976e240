package training

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"outlast/checkpoint/durable"
)

// The pattern names the files: a folder's name alone would leave out those that
// begin with an underscore.
//
//go:embed worker/outlast/*.py
var workerFiles embed.FS

// UnpackWorker writes the workers' Python module below cacheDir, in a folder
// named by its content, and returns what to put on PYTHONPATH. What is there is
// compared first: a folder that has its name may have lost files, or what is in
// them. Two processes may do so at once: each file is whole at any time.
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
	for name, data := range content {
		path := filepath.Join(target, "outlast", name)
		if there, err := os.ReadFile(path); err == nil && bytes.Equal(there, data) {
			continue
		}
		if _, err := durable.WriteFile(path, bytes.NewReader(data), nil); err != nil {
			return "", fmt.Errorf("unpack the workers' module: %w", err)
		}
	}
	return target, nil
}
