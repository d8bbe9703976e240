package training

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// errWindows is the answer of what training needs and Windows lacks.
var errWindows = errors.New("training is not supported on Windows; use WSL 2")

func detach(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

func group(cmd *exec.Cmd) { detach(cmd) }

func startTime(int) uint64 { return 0 }

func exists(int) bool { return false }

func inGroup(int, int) bool { return false }

func killGroup(int) error { return errWindows }

func lockWorker(string) (*os.File, error) { return nil, errWindows }

func unlockWorker(*os.File) error { return errWindows }

func workerLocked(string) bool { return false }

func endingOf(state *os.ProcessState) ending { return ending{exit: state.ExitCode()} }

func signalName(int) (name string, own bool) { return "", false }

// works reports whether the process is there.
func (id identity) works() bool { return id.here() }

// await cannot wait here.
func (id identity) await(context.Context) bool { return false }
