package checkpoint_test

import (
	"flag"
	"os"
	"strings"
	"testing"
)

// sweepFlag is the name of a flag for those who have an hour.
const sweepFlag = "sweep"

// The test binary plays other processes if this names a role and a folder.
const playVariable = "OUTLAST_TEST_PLAY"

func TestMain(m *testing.M) {
	if role, dir, ok := strings.Cut(os.Getenv(playVariable), ":"); ok {
		play(role, dir)
		os.Exit(0)
	}
	flag.Bool(sweepFlag, false, "kill at every call of a save to the Drive, not only at some")
	flag.Parse()
	os.Exit(inMemory(m.Run))
}

// inMemory has the tests' folders on a file system in memory, where there is
// one: they sync hundreds of files, and what is tested is that it is done, not
// the disk. Benchmarks are about the disk.
func inMemory(run func() int) int {
	if bench := flag.Lookup("test.bench"); bench != nil && bench.Value.String() != "" {
		return run()
	}
	dir, err := os.MkdirTemp("/dev/shm", "checkpoint-test-")
	if err != nil {
		return run()
	}
	defer os.RemoveAll(dir)  //nolint:errcheck // it is in memory
	os.Setenv("TMPDIR", dir) //nolint:errcheck // before any test
	return run()
}
