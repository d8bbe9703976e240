//go:build unix

// Package trainingtest lets a test binary play the other processes of a run: a
// worker that does what a script says, however badly, and a supervisor that can
// be killed. Its Vault keeps checkpoints in folders and is stricter than a
// keeper: what a supervisor must not do fails there.
package trainingtest

import (
	"fmt"
	"os"
	"testing"
)

// Names of the environment variables that tell a process its part.
const (
	roleVariable = "TRAININGTEST_ROLE"
	runVariable  = "TRAININGTEST_RUN" // data directory and run, on two lines
	// memoryVariable is the folder in memory that a supervisor offers.
	memoryVariable = "TRAININGTEST_MEMORY"
	// raceVariable and raceOptions: otherwise a process takes a second to end
	// under the race detector.
	raceVariable = "GORACE"
	raceOptions  = "atexit_sleep_ms=0"
)

// The parts that a test binary can play.
const (
	roleWorker     = "worker"
	roleSupervisor = "supervisor"
)

// Main runs the tests of a package, or the part that this process was started
// for. TestMain calls it and does nothing else.
func Main(m *testing.M) {
	switch role := os.Getenv(roleVariable); role {
	case "":
		os.Exit(m.Run()) //revive:disable-line:deep-exit // it stands in for TestMain
	case roleWorker:
		os.Exit(work()) //revive:disable-line:deep-exit // a process of its own
	case roleSupervisor:
		os.Exit(supervise()) //revive:disable-line:deep-exit // a process of its own
	default:
		fmt.Fprintf(os.Stderr, "no part is called %q\n", role)
		os.Exit(2) //revive:disable-line:deep-exit // a process of its own
	}
}
