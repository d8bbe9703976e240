package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"outlast/checkpoint"
	"outlast/training"
)

const (
	// flushLimit bounds how long an ending supervisor waits for its store. What is
	// not there by then stays on disk and is sent at the next start.
	flushLimit = 10 * time.Minute
	// mirrorLimit bounds how long it then waits for a copy to end: a folder of a
	// drive that hangs does not let go.
	mirrorLimit = 10 * time.Second
)

// sharedMemory is where Linux keeps files in memory. Elsewhere there is no such
// folder, and workers hand over on disk.
const sharedMemory = "/dev/shm"

// supervisorCommand is how a supervisor is started: this program, detached.
func supervisorCommand(dir, run string) training.Command {
	exe, err := os.Executable()
	if err != nil {
		exe = os.Args[0]
	}
	return training.Command{Path: exe, Args: []string{"supervise", "--dir", dir, "--run", run}, Env: os.Environ()}
}

// superviseVerb is the supervisor's main. Users never type it.
func superviseVerb() verb {
	return verb{name: "supervise", hidden: true, run: func(ctx context.Context, p *program, args []string) error {
		fs := pflag.NewFlagSet("supervise", pflag.ContinueOnError)
		dir := fs.String("dir", "", "data directory")
		name := fs.String("run", "", "run")
		if err := fs.Parse(args); err != nil {
			return usage("supervise", err.Error())
		}
		ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
		defer stop()
		return p.supervise(ctx, *dir, *name)
	}}
}

// supervise works one run off, and copies what it saves to its store.
func (p *program) supervise(ctx context.Context, dir, name string) error {
	log := p.logger()
	run, err := training.Find(dir, name)
	if err != nil {
		return err
	}
	worker, err := training.UnpackWorker(p.env.cacheDir())
	if err != nil {
		return err
	}
	plan := run.Plan()
	best, err := checkpoint.ParseBest(plan.Settings.KeepBest)
	if err != nil {
		return err
	}
	v := &vault{keeper: &checkpoint.Keeper{Dir: run.Dir(), Keep: plan.Settings.Keep, Best: best, Log: log}, run: name}
	s := &training.Supervisor{Run: run, Vault: v, WorkerDir: worker, Memory: sharedMemory, Log: log, Env: reachable(os.Environ())}
	s.Device = p.deviceMemory(plan.Settings)

	ctx, fence := context.WithCancelCause(ctx)
	defer fence(nil)

	// The mirror outlives a pause: it is stopped by its own context, after the
	// supervisor has flushed it.
	mirrorCtx, stopMirror := context.WithCancel(context.WithoutCancel(ctx))
	defer stopMirror()
	g := new(errgroup.Group)
	if plan.Store != "" {
		store, err := p.openStore(ctx, plan.Store)
		if err != nil {
			return err
		}
		defer p.closeStore(store)
		v.mirror = &checkpoint.Mirror{
			Store: store, URL: plan.Store, Dir: filepath.Dir(run.Dir()), Name: name, Keep: plan.Settings.Keep, Best: best, Log: log,
			OnDone: func(model string, step int64, final bool, d checkpoint.Durability) {
				s.Mirrored(model, step, final, string(d))
			},
		}
		g.Go(func() error {
			err := v.mirror.Run(mirrorCtx)
			if err != nil {
				fence(err) // another runtime has taken the run over: to train on would be in vain
			}
			return err
		})
	}
	err = s.Work(ctx)
	stopMirror()
	if mirrorErr := endOf(g, log); mirrorErr != nil {
		err = mirrorErr
	}
	if errors.Is(err, training.ErrPaused) || errors.Is(err, training.ErrSomeFailed) {
		log.InfoContext(ctx, "supervisor ended", "run", name, "why", err.Error())
		return nil // the run's state says so; the supervisor itself did its work
	}
	return err
}

// endOf waits for g, but not for ever.
func endOf(g *errgroup.Group, log *slog.Logger) error {
	ended := make(chan error, 1)
	go func() { ended <- g.Wait() }() // ends with this process, if not before
	select {
	case err := <-ended:
		return err
	case <-time.After(mirrorLimit):
		log.Error("a copy to the store does not end, and is left behind")
		return nil
	}
}

// logger writes to the supervisor's or the kernel's standard error.
func (p *program) logger() *slog.Logger {
	level := slog.LevelInfo
	if p.env.get("OUTLAST_LOG") == "debug" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(p.stderr, &slog.HandlerOptions{Level: level}))
}

// vault is what the supervisor asks for checkpoints: a keeper on disk, and the
// mirror behind it if the run has a store.
type vault struct {
	room   sync.RWMutex // held for writing while room is made: nobody may be saving then
	keeper *checkpoint.Keeper
	mirror *checkpoint.Mirror // nil without a store
	run    string
}

var (
	_ training.Vault   = (*vault)(nil)
	_ training.Pruner  = (*vault)(nil)
	_ training.Toucher = (*vault)(nil)
)

// Open implements training.Vault.
func (v *vault) Open(_ context.Context, atLeast int64, writer string) (int64, error) {
	if err := checkpoint.SweepHalf(v.keeper.Dir); err != nil {
		return 0, err
	}
	last, err := checkpoint.LastGeneration(v.keeper.Dir)
	if err != nil {
		return 0, err
	}
	generation := max(atLeast, last+1)
	if v.mirror == nil {
		return generation, nil
	}
	return generation, v.mirror.TakeOver(generation, writer)
}

// Newest implements training.Vault.
func (v *vault) Newest(_ context.Context, model, fingerprint string) (training.Checkpoint, []string, error) {
	v.room.RLock()
	defer v.room.RUnlock()
	found, damage, err := v.keeper.Newest(model, fingerprint)
	return v.found(found), words(model, damage), err
}

// Final implements training.Vault.
func (v *vault) Final(_ context.Context, model, fingerprint string) (training.Checkpoint, []string, error) {
	v.room.RLock()
	defer v.room.RUnlock()
	found, damage, err := v.keeper.Final(model, fingerprint)
	return v.found(found), words(model, damage), err
}

// Save implements training.Vault.
func (v *vault) Save(ctx context.Context, c training.Checkpoint, staged string) (training.Checkpoint, error) {
	v.room.RLock()
	defer v.room.RUnlock()
	m, path, err := v.keeper.Save(ctx, v.manifest(c), staged)
	return v.kept(m, path, err)
}

// Finish implements training.Vault.
func (v *vault) Finish(ctx context.Context, c training.Checkpoint) (training.Checkpoint, error) {
	v.room.RLock()
	defer v.room.RUnlock()
	m, path, err := v.keeper.Finish(ctx, v.manifest(c))
	return v.kept(m, path, err)
}

// Supersede implements training.Vault.
func (v *vault) Supersede(model, fingerprint string) error {
	v.room.RLock()
	defer v.room.RUnlock()
	return v.keeper.Supersede(model, fingerprint)
}

// Prune implements training.Pruner.
func (v *vault) Prune(ctx context.Context) (freed uint64, err error) {
	v.room.Lock()
	defer v.room.Unlock()
	return v.keeper.MakeRoom(ctx)
}

// Flush implements training.Vault.
func (v *vault) Flush(ctx context.Context) error {
	if v.mirror == nil {
		return nil
	}
	v.mirror.Touch("run.json", "ledger.jsonl", "learnt.json")
	return v.mirror.LastFlush(ctx, flushLimit)
}

// Touch implements training.Toucher.
func (v *vault) Touch(names ...string) {
	if v.mirror != nil {
		v.mirror.Touch(names...)
	}
}

// kept tells the mirror of a new checkpoint.
func (v *vault) kept(m checkpoint.Manifest, path string, err error) (training.Checkpoint, error) {
	if err != nil {
		return training.Checkpoint{}, err
	}
	if v.mirror != nil {
		v.mirror.Saved(m.Model, m.Step, path, m.Final)
	}
	return v.found(checkpoint.Found{Manifest: m, Path: path}), nil
}

func (v *vault) found(f checkpoint.Found) training.Checkpoint {
	if f.Path == "" {
		return training.Checkpoint{}
	}
	m := f.Manifest
	return training.Checkpoint{
		Model: m.Model, Fingerprint: m.Fingerprint, Writer: m.Writer, Path: f.Path,
		Durability: string(checkpoint.Local), Step: m.Step, Generation: m.Generation, Final: m.Final, Metrics: m.Metrics,
	}
}

func (v *vault) manifest(c training.Checkpoint) checkpoint.Manifest {
	return checkpoint.Manifest{
		Run: v.run, Model: c.Model, Fingerprint: c.Fingerprint, Step: c.Step,
		Generation: c.Generation, Writer: c.Writer, Final: c.Final, Metrics: c.Metrics,
	}
}

// words says what was found damaged.
func words(model string, damage []checkpoint.Damage) []string {
	var notes []string
	for _, d := range damage {
		what := fmt.Sprintf("the checkpoint at step %d", d.Step)
		if d.Final {
			what = "the finished model"
		}
		notes = append(notes, fmt.Sprintf("%s: %s is damaged (%s) and is not used; it was put aside as %s.", model, what, d.Why, filepath.Base(d.Path)))
	}
	return notes
}
