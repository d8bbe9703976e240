package checkpointtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
)

const (
	goroutines = 8
	rounds     = 12
)

// testHalfPut looks at the store while a put has read half of its content.
func testHalfPut(t *testing.T, s checkpoint.Store) {
	content := bytes.Repeat([]byte("half"), 1<<16)
	half, finish := halfPut(t, s, "a/file", content)
	half()
	requireNotFound(t, s, "a/file")
	require.Empty(t, list(t, s, ""))
	require.NoError(t, finish())
	require.Equal(t, content, get(t, s, "a/file"))
}

func testHalfReplacement(t *testing.T, s checkpoint.Store) {
	content := bytes.Repeat([]byte("half"), 1<<16)
	require.NoError(t, put(t, s, "a/file", []byte("old")))
	half, finish := halfPut(t, s, "a/file", content)
	half()
	require.Equal(t, "old", string(get(t, s, "a/file")))
	require.Equal(t, map[string]int64{"a/file": 3}, list(t, s, ""))
	require.NoError(t, finish())
	require.Equal(t, content, get(t, s, "a/file"))
}

// halfPut starts a put. The first function waits until the store has read half
// of the content, the second gives it the rest and returns the put's error.
func halfPut(t *testing.T, s checkpoint.Store, name string, content []byte) (half func(), finish func() error) {
	t.Helper()
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := s.Put(t.Context(), name, r, digestOf(content))
		r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
		ended <- err
	}()
	t.Cleanup(func() { w.Close() }) //nolint:errcheck // it returns nil always
	write := func(part []byte) {
		t.Helper()
		_, err := w.Write(part) // returns once it has been read
		require.NoError(t, err)
	}
	finish = func() error {
		write(content[len(content)/2:])
		w.Close() //nolint:errcheck // it returns nil always
		return <-ended
	}
	return func() { write(content[:len(content)/2]) }, finish
}

func testEnded(t *testing.T, s checkpoint.Store) {
	require.NoError(t, put(t, s, "a/file", []byte("old")))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, name := range []string{"a/file", "a/new"} {
		_, err := s.Put(ctx, name, bytes.NewReader([]byte("new")), digestOf([]byte("new")))
		assert.Error(t, err, "put %s", name)
	}
	_, err := read(ctx, s, "a/file")
	assert.Error(t, err, "get")
	for _, prefix := range []string{"", "a/", "b/"} {
		_, err = s.List(ctx, prefix)
		assert.Error(t, err, "list %q", prefix)
	}
	assert.Error(t, s.Delete(ctx, "a/file"), "delete")
	require.Equal(t, map[string]int64{"a/file": 3}, list(t, s, ""))
	require.Equal(t, "old", string(get(t, s, "a/file")))
}

func testEndsInPut(t *testing.T, s checkpoint.Store) {
	require.NoError(t, put(t, s, "kept", []byte("old")))
	content := []byte("first half, second half")
	for _, name := range []string{"kept", "new/file"} {
		ctx, cancel := context.WithCancel(t.Context())
		r := io.MultiReader(bytes.NewReader(content[:11]), calling{cancel}, bytes.NewReader(content[11:]))
		_, err := s.Put(ctx, name, r, digestOf(content))
		require.Error(t, err, name)
	}
	require.Equal(t, map[string]int64{"kept": 3}, list(t, s, ""))
	require.Equal(t, "old", string(get(t, s, "kept")))
}

// calling is an empty reader that calls a function when it is read.
type calling struct{ f func() }

func (c calling) Read([]byte) (int, error) {
	c.f()
	return 0, io.EOF
}

func testManyNames(t *testing.T, s checkpoint.Store) {
	parallel(t, func(ctx context.Context, g int) error {
		for n := range rounds {
			name := fmt.Sprintf("run/%d/%d/file", g, n%3)
			content := fmt.Appendf(nil, "%d in %d", n, g)
			if _, err := s.Put(ctx, name, bytes.NewReader(content), digestOf(content)); err != nil {
				return err
			}
			got, err := read(ctx, s, name)
			if err != nil {
				return err
			}
			if !bytes.Equal(content, got) {
				return fmt.Errorf("%s has %q instead of %q", name, got, content)
			}
			entries, err := s.List(ctx, fmt.Sprintf("run/%d/", g))
			if err != nil {
				return err
			}
			if len(entries) != 1 || entries[0].Name != name {
				return fmt.Errorf("instead of %s alone, there is %v", name, entries)
			}
			if err := s.Delete(ctx, name); err != nil {
				return err
			}
		}
		return nil
	})
	require.Empty(t, list(t, s, ""))
}

// testOneName has everybody replace one file: what is read is always one of the
// versions, and never a mixture or nothing.
func testOneName(t *testing.T, s checkpoint.Store) {
	version := func(g int) []byte { return bytes.Repeat([]byte{byte('a' + g)}, 10_000+g) }
	require.NoError(t, put(t, s, "run/state", version(0)))
	parallel(t, func(ctx context.Context, g int) error {
		for range rounds {
			if _, err := s.Put(ctx, "run/state", bytes.NewReader(version(g)), digestOf(version(g))); err != nil {
				return err
			}
			got, err := read(ctx, s, "run/state")
			if err != nil {
				return err
			}
			if len(got) == 0 || !bytes.Equal(version(int(got[0]-'a')), got) {
				return fmt.Errorf("a mixture of %d bytes", len(got))
			}
		}
		return nil
	})
	require.Len(t, list(t, s, ""), 1)
}

// testPutBesideDelete puts files where others disappear: a folder that becomes
// empty must not be taken from under a put.
func testPutBesideDelete(t *testing.T, s checkpoint.Store) {
	parallel(t, func(ctx context.Context, g int) error {
		name := fmt.Sprintf("run/checkpoints/%d/%d", g/2, g)
		for range rounds {
			if _, err := s.Put(ctx, name, bytes.NewReader(nil), digestOf(nil)); err != nil {
				return err
			}
			if err := s.Delete(ctx, name); err != nil {
				return err
			}
		}
		return nil
	})
	require.Empty(t, list(t, s, ""))
}

// parallel runs f in many goroutines and reports their errors.
func parallel(t *testing.T, f func(ctx context.Context, g int) error) {
	t.Helper()
	errs := make([]error, goroutines)
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() { errs[g] = f(t.Context(), g) })
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
}
