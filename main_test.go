package main

import (
	"fmt"
	"os"
	"testing"
)

// TestMain refuses to be a supervisor. The program starts its own executable as
// one, which here is the test binary: it would run all tests again, each of which
// starts a supervisor, without end.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "supervise" {
		fmt.Fprintln(os.Stderr, "a test has started a run in its own process; use the built program for that")
		os.Exit(exitUsage)
	}
	os.Exit(m.Run())
}
