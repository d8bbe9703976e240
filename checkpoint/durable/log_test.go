package durable_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint/durable"
)

func TestOpenLogCutsATornLastLine(t *testing.T) {
	for name, test := range map[string]struct{ before, after string }{
		"no file content":      {"", "{\"n\":3}\n"},
		"whole lines":          {"{\"n\":1}\n{\"n\":2}\n", "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n"},
		"torn last line":       {"{\"n\":1}\n{\"n", "{\"n\":1}\n{\"n\":3}\n"},
		"only the newline cut": {"{\"n\":1}\n{\"n\":2}", "{\"n\":1}\n{\"n\":3}\n"},
		"one torn line":        {"{\"n\":", "{\"n\":3}\n"},
		"zeros at the end":     {"{\"n\":1}\n\x00\x00\x00", "{\"n\":1}\n{\"n\":3}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ledger.jsonl")
			require.NoError(t, os.WriteFile(path, []byte(test.before), 0o644))
			l := openLog(t, path)
			require.NoError(t, l.Append(map[string]int{"n": 3}))
			require.NoError(t, l.Sync())
			require.Equal(t, test.after, string(readFile(t, path)))
		})
	}
}

func TestOpenLogMakesIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "ledger.jsonl")
	l := openLog(t, path)
	require.FileExists(t, path)
	require.NoError(t, l.Append("line"))
	require.Equal(t, []string{`"line"`}, lines(t, path))
}

func TestLogGoesOnWhereItEnded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	for n := range 3 {
		l := openLog(t, path)
		require.NoError(t, l.Append(n))
		require.NoError(t, l.Close())
		require.NoError(t, l.Close(), "it may be called twice")
	}
	require.Equal(t, []string{"0", "1", "2"}, lines(t, path))
}

func TestWhatIsHeldIsWrittenWithTheNext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	l := openLog(t, path)
	write := map[string]func() error{
		"append": func() error { return l.Append("x") }, "flush": l.Flush, "sync": l.Sync, "close": l.Close,
	}
	var want []string
	for _, how := range []string{"append", "flush", "sync", "close"} {
		require.NoError(t, l.Hold(how))
		require.Equal(t, want, lines(t, path), "not yet")
		require.NoError(t, write[how]())
		if want = append(want, strconv.Quote(how)); how == "append" {
			want = append(want, `"x"`)
		}
		require.Equal(t, want, lines(t, path), how)
	}
}

func TestNotMuchIsHeld(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	l := openLog(t, path)
	for len(readFile(t, path)) == 0 {
		require.NoError(t, l.Hold(strings.Repeat("x", 1000)))
	}
	require.Less(t, len(readFile(t, path)), 70_000)
}

func TestLogRefusesWhatIsNoJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	l := openLog(t, path)
	require.Error(t, l.Append(func() {}))
	require.NoError(t, l.Append("a\nb"))
	require.Equal(t, []string{`"a\nb"`}, lines(t, path))
}

func TestLogIsClosedForGood(t *testing.T) {
	l := openLog(t, filepath.Join(t.TempDir(), "ledger.jsonl"))
	require.NoError(t, l.Close())
	require.Error(t, l.Append("too late"))
	require.Error(t, l.Append(func() {}))
	require.Error(t, l.Sync())
}

func TestReadLogLeavesATornLineOut(t *testing.T) {
	for name, test := range map[string]struct {
		content string
		lines   []string
	}{
		"empty":          {"", nil},
		"whole lines":    {"1\n2\n", []string{"1", "2"}},
		"torn last line": {"1\n2\n3", []string{"1", "2"}},
		"one torn line":  {"1", nil},
		"an empty line":  {"1\n\n2\n", []string{"1", "", "2"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ledger.jsonl")
			require.NoError(t, os.WriteFile(path, []byte(test.content), 0o644))
			require.Equal(t, test.lines, lines(t, path))
			require.Equal(t, test.content, string(readFile(t, path)), "reading changes nothing")
		})
	}
	require.Empty(t, lines(t, filepath.Join(t.TempDir(), "missing")))
}

func TestReadLogEndsWithAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	require.NoError(t, os.WriteFile(path, []byte("1\n2\n3\n"), 0o644))
	enough, n := errors.New("enough"), 0
	err := durable.ReadLog(path, func([]byte) error {
		if n++; n == 2 {
			return enough
		}
		return nil
	})
	require.ErrorIs(t, err, enough)
	require.Equal(t, 2, n)
}

func TestLogIsSafeForConcurrentUse(t *testing.T) {
	const writers, each = 8, 50
	path := filepath.Join(t.TempDir(), "metrics.jsonl")
	l := openLog(t, path)
	errs := make([]error, writers)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := range each {
				errs[w] = errors.Join(errs[w], l.Append(fmt.Sprintf("%d/%d", w, n)))
			}
			errs[w] = errors.Join(errs[w], l.Sync())
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	seen := map[string]bool{}
	for _, line := range lines(t, path) {
		var s string
		require.NoError(t, json.Unmarshal([]byte(line), &s))
		seen[s] = true
	}
	require.Len(t, seen, writers*each)
}

func openLog(t *testing.T, path string) *durable.Log {
	t.Helper()
	l, err := durable.OpenLog(path)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() }) //nolint:errcheck // some tests have closed it
	return l
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	var all []string
	require.NoError(t, durable.ReadLog(path, func(line []byte) error {
		all = append(all, string(line))
		return nil
	}))
	return all
}
