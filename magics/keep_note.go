package magics

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// staleNote is after how long a note is taken for one of a kernel that is gone.
const staleNote = 30 * 24 * time.Hour

// A keepNote remembers that the keep-alive of a kernel is on. A restart is a new
// process, which knows nothing; but who asked for the keep-alive has not asked for
// its end.
type keepNote struct {
	Dir   string        `json:"dir"`   // whose runs it watches
	Every time.Duration `json:"every"` // between two signs of life
	Until time.Time     `json:"until"` // zero: no limit
}

// write makes the note at path, and sweeps what kernels that are gone have left
// beside it.
func (n keepNote) write(path string) error {
	if path == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("remember the keep-alive: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*.json"))
	if err != nil {
		return fmt.Errorf("remember the keep-alive: %w", err)
	}
	for _, other := range left {
		if info, err := os.Stat(other); err == nil && time.Since(info.ModTime()) > staleNote {
			os.Remove(other) //nolint:errcheck // the next sweep tries again
		}
	}
	err = replaceFile(path, func(w io.Writer) error { return json.NewEncoder(w).Encode(n) })
	if err != nil {
		return fmt.Errorf("remember the keep-alive: %w", err)
	}
	return nil
}

// readNote returns the note at path, and whether there is one that still holds.
func readNote(path string) (keepNote, bool) {
	var n keepNote
	data, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(data, &n) != nil {
		return n, false
	}
	return n, n.Every >= minBeatInterval && (n.Until.IsZero() || time.Now().Before(n.Until))
}

// forgetNote takes the note at path away.
func forgetNote(path string) error {
	if path == "" {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the keep-alive: %w", err)
	}
	return nil
}
