// Package checkpointtest helps to test what keeps or copies checkpoints: a suite
// that every store passes, and a store in memory that fails when it is told to.
package checkpointtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"outlast/checkpoint"
	"outlast/checkpoint/durable"
)

// An Op is one call of a store's method.
type Op struct {
	Method string // Put, Get, List or Delete
	Name   string // or the prefix
}

// A Memory is a store in memory. The zero value is empty and usable. It passes
// TestStore, and is safe for concurrent use.
type Memory struct {
	// Says is what Put answers; empty means checkpoint.Mirrored.
	Says checkpoint.Durability

	state memoryState
}

// memoryState is what Memory's callers share; it is touched under mu only.
type memoryState struct {
	mu      sync.Mutex
	files   map[string][]byte
	ops     []Op
	fail    func(context.Context, Op) error
	changed func(map[string][]byte)
}

var _ checkpoint.Store = (*Memory)(nil)

// Fail has when asked before each call, which does nothing but return its error
// unless that is nil. The function may block, and may use the store. Nil ends
// the failing.
func (s *Memory) Fail(when func(ctx context.Context, op Op) error) {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	s.state.fail = when
}

// Watch has f called with all files after each change. It must not use the
// store, nor keep or change what it is given.
func (s *Memory) Watch(f func(files map[string][]byte)) {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	s.state.changed = f
}

// Corrupt replaces a file by what change makes of it, as a bad disk would. Nil
// removes the file.
func (s *Memory) Corrupt(name string, change func([]byte) []byte) {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	content, ok := s.state.files[name]
	if !ok {
		panic("nothing to corrupt: " + name)
	}
	if content = change(slices.Clone(content)); content == nil {
		delete(s.state.files, name)
		return
	}
	s.state.files[name] = content
}

// Names returns the names of all files, sorted.
func (s *Memory) Names() []string {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	names := []string{}
	for name := range s.state.files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Ops returns what was asked of the store so far, also what failed.
func (s *Memory) Ops() []Op {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	return slices.Clone(s.state.ops)
}

// Put implements checkpoint.Store.
func (s *Memory) Put(ctx context.Context, name string, r io.Reader, want durable.Digest) (checkpoint.Durability, error) {
	if err := s.begin(ctx, Op{"Put", name}); err != nil {
		return "", err
	}
	content, err := io.ReadAll(reader{ctx, r})
	if err != nil {
		return "", err
	}
	if got := digestOf(content); !got.Matches(want) {
		return "", fmt.Errorf("put %s: %w", name, durable.ErrContent)
	}
	s.change(func(files map[string][]byte) { files[name] = content })
	if s.Says != "" {
		return s.Says, nil
	}
	return checkpoint.Mirrored, nil
}

// Get implements checkpoint.Store.
func (s *Memory) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if err := s.begin(ctx, Op{"Get", name}); err != nil {
		return nil, err
	}
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	content, ok := s.state.files[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, checkpoint.ErrNotFound)
	}
	return io.NopCloser(reader{ctx, bytes.NewReader(content)}), nil
}

// List implements checkpoint.Store.
func (s *Memory) List(ctx context.Context, prefix string) ([]checkpoint.Entry, error) {
	if err := s.begin(ctx, Op{"List", prefix}); err != nil {
		return nil, err
	}
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	var entries []checkpoint.Entry
	for name, content := range s.state.files {
		if strings.HasPrefix(name, prefix) {
			entries = append(entries, checkpoint.Entry{Name: name, Size: int64(len(content))})
		}
	}
	return entries, nil
}

// Delete implements checkpoint.Store.
func (s *Memory) Delete(ctx context.Context, name string) error {
	if err := s.begin(ctx, Op{"Delete", name}); err != nil {
		return err
	}
	s.change(func(files map[string][]byte) { delete(files, name) })
	return nil
}

// begin notes a call and says whether it is to fail.
func (s *Memory) begin(ctx context.Context, op Op) error {
	s.state.mu.Lock()
	s.state.ops = append(s.state.ops, op)
	fail := s.state.fail
	s.state.mu.Unlock()
	if fail != nil {
		if err := fail(ctx, op); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (s *Memory) change(f func(files map[string][]byte)) {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	if s.state.files == nil {
		s.state.files = map[string][]byte{}
	}
	f(s.state.files)
	if s.state.changed != nil {
		s.state.changed(s.state.files)
	}
}

// reader ends with its context.
type reader struct {
	ctx context.Context //nolint:containedctx // it lives for one copy
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
