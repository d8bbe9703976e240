//go:build unix

package trainingtest

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"outlast/training"
)

// Supervisor returns the command that runs this test binary as the supervisor
// of r, a process that can be killed.
func Supervisor(r *training.Run) training.Command {
	exe, err := os.Executable()
	must(err)
	env := append(os.Environ(), roleVariable+"="+roleSupervisor, runVariable+"="+r.DataDir()+"\n"+r.Name(), raceVariable+"="+raceOptions)
	return training.Command{Path: exe, Env: env}
}

// SupervisorWithMemory is like Supervisor, and offers workers a folder in memory.
func SupervisorWithMemory(r *training.Run, memory string) training.Command {
	c := Supervisor(r)
	c.Env = append(c.Env, memoryVariable+"="+memory)
	return c
}

// supervise plays a supervisor and returns its exit status.
func supervise() int {
	dir, name, _ := strings.Cut(os.Getenv(runVariable), "\n")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	r, err := training.Find(dir, name)
	if err != nil {
		return complain(err)
	}
	v := &Vault{Run: r, Memory: os.Getenv(memoryVariable)}
	s := &training.Supervisor{Run: r, Vault: v, Env: os.Environ(), Memory: v.Memory, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	err = s.Work(ctx)
	if breaches := v.Breaches(); len(breaches) > 0 {
		return complain(errors.New(strings.Join(breaches, "; ")))
	}
	if err != nil && !errors.Is(err, training.ErrPaused) && !errors.Is(err, training.ErrSomeFailed) {
		return complain(err)
	}
	return 0
}
