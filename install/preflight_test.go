package install

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sound returns a check that finds nothing wrong: its kernel is ipykernel.
func sound(t *testing.T) Preflight {
	t.Helper()
	interpreter := python(t)
	child := Ipykernel(interpreter)
	temp, err := os.MkdirTemp("", "outlast-test-") // t.TempDir is too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(temp)) })
	return Preflight{Exe: play(t, "outlast"), Argv: child.Argv, Child: child, Python: interpreter, TempDir: temp}
}

func TestAKernelThatWorksIsFoundToWork(t *testing.T) {
	p := sound(t)
	require.NoError(t, p.Check(t.Context()))
	left, err := os.ReadDir(p.TempDir)
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestWhatWouldNotWorkIsRefused(t *testing.T) {
	onlyUnix(t)
	for name, c := range map[string]struct {
		spoil func(t *testing.T, p *Preflight)
		says  string
	}{
		"a program that fails":    {func(t *testing.T, _ *Preflight) { play(t, "broken") }, "run our own program"},
		"another program":         {func(t *testing.T, _ *Preflight) { play(t, "another") }, "is another program"},
		"a program that is gone":  {func(_ *testing.T, p *Preflight) { p.Exe = "/no/such/outlast" }, "no such file"},
		"a child that is gone":    {func(_ *testing.T, p *Preflight) { p.Child.Argv = []string{"/no/such/python"} }, "find the kernel"},
		"no folder for sockets":   {func(_ *testing.T, p *Preflight) { p.TempDir = "/no/such/folder" }, "open local sockets"},
		"a path no socket can be": {func(t *testing.T, p *Preflight) { p.TempDir = long(t) }, "open local sockets"},
		"a kernel that ends": {
			func(_ *testing.T, p *Preflight) {
				p.Argv = []string{p.Python, "-c", "import sys; print('libzmq.so.5 is missing'); sys.exit(7)", "{connection_file}"}
			}, "status 7; libzmq.so.5 is missing",
		},
		"a kernel that cannot be started": {func(_ *testing.T, p *Preflight) { p.Argv = []string{"/no/such/kernel"} }, "No such file"},
		"no python to try it with":        {func(_ *testing.T, p *Preflight) { p.Python = "/no/such/python" }, "start the kernel"},
	} {
		t.Run(name, func(t *testing.T) {
			p := sound(t)
			c.spoil(t, &p)
			err := p.Check(t.Context())
			assert.Contains(t, refused(t, err), c.says)
			require.NotErrorIs(t, err, ErrNoClient)
		})
	}
}

func long(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	require.NoError(t, os.Mkdir(dir, 0o755))
	return dir
}

func TestWithoutAClientTheKernelIsNotStarted(t *testing.T) {
	onlyUnix(t)
	p := sound(t)
	p.Python = filepath.Join(t.TempDir(), "python")
	write(t, p.Python, "#!/bin/sh\nexec "+p.Child.Argv[0]+` -S -E "$@"`+"\n") // without any packages
	require.NoError(t, os.Chmod(p.Python, 0o755))
	require.ErrorIs(t, p.Check(t.Context()), ErrNoClient)
}

func TestACheckCanBeInterrupted(t *testing.T) {
	p := sound(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	refused(t, p.Check(ctx))
}
