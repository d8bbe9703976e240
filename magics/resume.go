package magics

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"outlast/checkpoint"
	"outlast/gpu"
	"outlast/training"
)

// Resume returns %resume: go on with a run, here or from its store alone.
func Resume(d *Deps) *Magic {
	m := &Magic{
		Name:  "resume",
		Verb:  "resume",
		Args:  "[RUN]",
		Short: "Go on with a run; on a fresh machine its store alone is enough",
		Line:  true,
	}
	m.Bind = func(fs *pflag.FlagSet) func(context.Context, *Call) error {
		dir := d.workDirFlag(fs)
		url := fs.String("store", "", "where the run's copy is: the `URL` is a folder, drive:Folder/Sub, or none, to go on without copies")
		python := fs.String("python", "", "interpreter of the workers, a `PATH` (default: as before; of a run from another machine the notebook's)")
		detach := fs.Bool("detach", false, "return at once; %attach watches later")
		return func(ctx context.Context, c *Call) error {
			name, err := optional(m, c)
			if err != nil {
				return err
			}
			here := d.nearby(ctx, c.Notebook)
			how := resumption{here: here, detach: *detach}
			if *python != "" {
				if how.python, err = here.interpreter(*python); err != nil {
					return err
				}
			}
			run, err := training.Find(*dir, name)
			if *url == "" && err != nil { // a fresh machine
				*url = d.defaultStore(ctx)
			}
			if *url != "" && *url != noStore {
				*url = here.store(*url)
				if name, err = d.restore(ctx, c, *url, name, *dir); err == nil {
					run, err = training.Find(*dir, name)
				}
			}
			if err != nil {
				return err
			}
			how.store = *url
			return d.goOn(ctx, c, run, how)
		}
	}
	return m
}

// working reports whether a supervisor works on a run in dir: what is here is
// then newer than any copy.
func working(dir, name string) bool {
	run, err := training.Find(dir, name)
	if err != nil {
		return false
	}
	status, err := run.Status()
	return err == nil && status.State == training.RunRunning
}

// restore brings run, or the only run of the store, into dir, as far as dir
// does not have it already, and returns its name.
func (d *Deps) restore(ctx context.Context, c *Call, url, run, dir string) (string, error) {
	store, err := d.OpenExisting(ctx, url)
	if err != nil {
		return "", err
	}
	defer d.CloseStore(store)
	names, err := checkpoint.Runs(ctx, store)
	if err != nil {
		return "", &Problem{"list the runs in " + url, err, "check the address of the store"}
	}
	if run == "" {
		if len(names) == 0 {
			return "", &Problem{"resume from " + url, errors.New("no run is in it"), "check its address"}
		}
		if len(names) != 1 {
			return "", &Problem{
				What: fmt.Sprintf("%d runs are in %s", len(names), url),
				Err:  errors.New("it is not clear which one is meant: " + strings.Join(names, ", ")),
				Hint: "name it: " + c.prompt() + "resume RUN --store " + url,
			}
		}
		run = names[0]
	}
	if working(dir, run) {
		return run, nil
	}
	report, err := checkpoint.Restore(ctx, store, run, dir)
	if err != nil {
		return "", err
	}
	for _, note := range report.Notes {
		fmt.Fprintln(c.Stdout, note)
	}
	return run, nil
}

// confirm asks a store how safe the results of a run are that nobody goes on
// with: on a fresh machine nothing is known of that. Without an answer they are
// shown as what they are here.
func (d *Deps) confirm(ctx context.Context, run *training.Run, url string) {
	store, err := d.OpenExisting(ctx, url)
	if err != nil {
		return
	}
	defer d.CloseStore(store)
	checkpoint.Confirm(ctx, store, url, run.Name(), run.DataDir()) //nolint:errcheck // see above
}

// leave shows a run that is done, sends nothing, and says what that leaves on this
// disk only.
func (d *Deps) leave(c *Call, run *training.Run, s training.Status) {
	fmt.Fprintf(c.Stdout, "Nothing to do: all of %s is done, %s.\n", s.Run, models(len(s.Models)))
	var names []string
	for _, m := range s.Models {
		if s.Store != "" && onlyHere(m) {
			names = append(names, m.Name)
		}
	}
	if len(names) > 0 {
		fmt.Fprintf(c.Stdout, "On this disk only, and not sent to %s, as --store none asks: %s.\n", s.Store, strings.Join(names, ", "))
	}
	c.Screen.Show(d.reporter(run, c).report(s).view())
}

// versions are those that a run is to remember from its making; its workers tell
// the rest.
func (d *Deps) versions() map[string]string {
	return map[string]string{training.VersionOutlast: d.Version}
}

// A resumption says how to go on with a run.
type resumption struct {
	store  string // empty: the run's own; none: it keeps no copies from now on
	python string // for workers; empty: the run's own, if that is this machine's
	here   place  // where the call was typed
	detach bool
}

// fetched reports whether run came from a store and nobody has worked on it here
// yet: what lies here at the paths in its plan has nothing to do with it.
func fetched(run *training.Run) bool {
	_, err := os.Stat(filepath.Join(run.Dir(), "supervisor.log"))
	return errors.Is(err, fs.ErrNotExist) && checkpoint.Adopted(run.Dir())
}

// goOn refits run to this machine and starts it again.
func (d *Deps) goOn(ctx context.Context, c *Call, run *training.Run, how resumption) error {
	status, err := run.Status()
	if err != nil {
		return err
	}
	if status.State == training.RunDone && how.store == noStore {
		d.leave(c, run, status)
		return nil
	}
	if status.State == training.RunDone && how.store != "" {
		d.confirm(ctx, run, how.store)
	}
	if status.State == training.RunRunning || status.State == training.RunDone {
		return d.launch(ctx, c, run, how.detach)
	}
	plan := run.Plan()
	switch how.store {
	case "":
	case noStore:
		plan.Store = ""
	default:
		plan.Store = how.store
	}
	switch {
	case how.python != "":
		plan.Python = how.python
	case fetched(run) || !executable(plan.Python): // another machine's
		plan.Python = how.here.python
	}
	if err := d.refit(ctx, c, plan, how.here); err != nil {
		return err
	}
	plan.Versions = d.versions()
	if run, _, err = training.Create(run.DataDir(), plan, false); err != nil {
		return err
	}
	return d.launch(ctx, c, run, how.detach)
}

// refit sets the plan's settings for this machine: as the run was asked for, and
// where it was not, as the notebook's last %gpu_config asks. A run goes on
// wherever it can: what this machine cannot do is chosen for it, and said.
func (d *Deps) refit(ctx context.Context, c *Call, plan *training.Plan, here place) error {
	found, err := d.devices(ctx, here)
	if err != nil {
		return err
	}
	s := &plan.Settings
	w := d.Session.Wishes()
	w.EffectiveBatch, w.LoRARank = s.EffectiveBatch, s.LoRARank // the result depends on them
	w.Precision = cmp.Or(s.Asked.Precision, w.Precision)
	w.BatchSize = cmp.Or(s.Asked.BatchSize, w.BatchSize)
	w.MemoryFraction = cmp.Or(s.Asked.MemoryFraction, w.MemoryFraction)
	_, precise := gpu.Choose(found.Devices, gpu.Wishes{Precision: w.Precision})
	if precise != nil {
		w.Precision = auto
	}
	_, even := gpu.Choose(found.Devices, gpu.Wishes{BatchSize: w.BatchSize, EffectiveBatch: w.EffectiveBatch})
	if even != nil {
		w.BatchSize = 0
	}
	if err := here.fit(found.Devices, plan, w); err != nil {
		return err
	}
	if precise != nil {
		fmt.Fprintf(c.Stdout, "Not as asked for: %v. It goes on with %s.\n", precise, s.Precision)
	}
	if even != nil {
		fmt.Fprintf(c.Stdout, "Not as asked for: %v. It goes on with a batch of %d.\n", even, s.BatchSize)
	}
	return nil
}
