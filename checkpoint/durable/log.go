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

	mu   sync.Mutex
	f    *os.File // nil once closed
	held []byte   // lines to be written
}

// mostHeld is how much is held at most, in bytes.
const mostHeld = 64 << 10

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
	l.mu.Lock()
	defer l.mu.Unlock()
	before := len(l.held)
	if err := l.hold(v); err != nil {
		return err
	}
	if err := l.flush(); err != nil {
		l.held = l.held[:before] // the caller may try again
		return err
	}
	return nil
}

// Hold adds v as one line that is written with the next ones, or by Flush, Sync
// or Close. It returns an error of Flush, and v is held nevertheless.
func (l *Log) Hold(v any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.hold(v); err != nil {
		return err
	}
	if len(l.held) < mostHeld {
		return nil
	}
	return l.flush()
}

// Flush writes what is held. After an error it is held still.
func (l *Log) Flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.flush()
}

func (l *Log) hold(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode a line for %s: %w", l.path, err)
	}
	l.held = append(append(l.held, line...), '\n')
	return nil
}

func (l *Log) flush() error {
	if len(l.held) == 0 {
		return nil
	}
	n, err := l.f.Write(l.held)
	if err == nil {
		l.held = l.held[:0]
		return nil
	}
	if n > 0 { // a full disk: what is torn must not have a line behind it
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
	if err := l.flush(); err != nil {
		return err
	}
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
	err := l.flush()
	if _, syncErr := syncFile(l.f); err == nil {
		err = syncErr
	}
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
