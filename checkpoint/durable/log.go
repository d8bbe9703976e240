package durable

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// A Log is a file of JSON lines that only grows. It is safe for concurrent use.
type Log struct {
	path string

	mu sync.Mutex
	f  *os.File // nil once closed
}

// OpenLog opens or makes the log at path. A last line that a crash tore is cut
// off.
func OpenLog(path string) (*Log, error) {
	if err := MkdirAll(filepath.Dir(path)); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	if whole := bytes.LastIndexByte(data, '\n') + 1; whole < len(data) {
		err = f.Truncate(int64(whole))
	}
	if err == nil {
		err = SyncDir(filepath.Dir(path))
	}
	if err != nil {
		f.Close() //nolint:errcheck // the first error counts
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &Log{path: path, f: f}, nil
}

// Append adds v as one line; it is in the file, though perhaps not yet on the
// medium: Sync sees to that.
func (l *Log) Append(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode a line for %s: %w", l.path, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.f.Write(append(line, '\n'))
	if err != nil && n > 0 { // a full disk: what is torn must not have a line behind it
		if info, statErr := l.f.Stat(); statErr == nil {
			err = errors.Join(err, l.f.Truncate(info.Size()-int64(n)))
		}
	}
	return err
}

// Sync makes everything appended so far durable.
func (l *Log) Sync() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := syncFile(l.f)
	return err
}

// Close syncs and closes the log. It may be called twice.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	_, err := syncFile(l.f)
	if closeErr := l.f.Close(); err == nil {
		err = closeErr
	}
	l.f = nil
	return err
}

// ReadLog calls fn with each whole line of the log at path; a torn last line is
// left out. A log that is not there has no lines.
func ReadLog(path string, fn func(line []byte) error) error {
	data, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for {
		line, rest, whole := bytes.Cut(data, []byte("\n"))
		if !whole {
			return nil
		}
		if err := fn(line); err != nil {
			return err
		}
		data = rest
	}
}
