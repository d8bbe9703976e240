//go:build !linux

package training

import (
	"context"
	"errors"
	"os"
	"os/exec"
)

// A forkServer is Linux's: elsewhere libraries do not survive a fork, or there
// is none.
type forkServer struct{}

func startForkServer(context.Context, *exec.Cmd) (*forkServer, error) {
	return nil, errors.New("workers are forked on Linux only")
}

func (*forkServer) fork(context.Context, order, []*os.File) (process, error) {
	return nil, errors.ErrUnsupported
}

func (*forkServer) over() bool { return true }

func (*forkServer) close() {}
