package main_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"
)

// TestCommandLine runs the scripts in testdata/script against the real program:
// each is a shell session of a user. Beside the usual commands they have
//
//	exits N PROGRAM [ARGS...]   runs a program that must end with status N
//	until PATTERN PROGRAM ...   runs it again and again until its output matches
//
// Workers there are shell scripts, which needs no Python.
func TestCommandLine(t *testing.T) {
	binary := build(t)
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", filepath.Dir(binary)+string(os.PathListSeparator)+os.Getenv("PATH"))
			e.Setenv("HOME", e.WorkDir)
			e.Defer(func() { stopAll(e.WorkDir, binary) })
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits,
			"until": until,
		},
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
	})
}

// build makes the program, once for a test.
func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "outlast")
	output, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput()
	require.NoError(t, err, string(output))
	return binary
}

// stopAll ends what a script left working, so that nothing outlives a test.
func stopAll(dir, binary string) {
	runs, err := filepath.Glob(filepath.Join(dir, "outlast-runs", "*", "run.json"))
	if err != nil {
		return
	}
	for _, run := range runs {
		cmd := exec.Command(binary, "stop", filepath.Base(filepath.Dir(run)), "--dir", filepath.Join(dir, "outlast-runs")) //nolint:noctx // at the end of a test
		cmd.Run()                                                                                                          //nolint:errcheck // mostly there is nothing to stop
	}
}

// command runs a program in the script's folder and returns its status.
func command(ts *testscript.TestScript, args []string) (status int, stdout string) {
	err := ts.Exec(args[0], args[1:]...)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		status = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v: %v", args, err)
	}
	return status, ts.ReadFile("stdout")
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits N PROGRAM [ARGS...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if status, _ := command(ts, args[1:]); status != want {
		ts.Fatalf("it ended with status %d, not %d", status, want)
	}
}

func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until PATTERN PROGRAM [ARGS...]")
	}
	pattern, err := regexp.Compile(args[0])
	ts.Check(err)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if _, text := command(ts, args[1:]); pattern.MatchString(text) {
			return
		}
	}
	ts.Fatalf("waited in vain for %s in:\n%s", args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}
