package magics

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"outlast/checkpoint"
	"outlast/training"
)

// Train returns %train and %%train: train a list of models, each in a worker
// process of its own.
func Train(d *Deps) *Magic {
	m := &Magic{
		Name:  "train",
		Verb:  "train",
		Args:  "[RUN | PLAN.yaml] [-- COMMAND ...]",
		Short: "Train each model of a plan in a supervised process that survives this one",
		Cell:  true,
		Line:  true,
		Body:  true,
	}
	m.Bind = func(fs *pflag.FlagSet) func(context.Context, *Call) error {
		o := &trainOptions{deps: d, magic: m}
		o.bind(fs)
		return func(ctx context.Context, c *Call) error {
			plan, err := o.plan(ctx, c)
			if err != nil {
				return err
			}
			return o.run(ctx, c, plan)
		}
	}
	return m
}

// trainOptions are the flags of one %train.
type trainOptions struct {
	deps  *Deps
	magic *Magic
	flags *pflag.FlagSet
	here  place // set by plan

	dir             *string
	models          string
	script          string
	store           string
	effectiveBatch  int
	batchSize       string
	precision       string
	loraRank        string
	checkpointEvery string
	keep            int
	keepBest        string
	retries         int
	seed            int64
	python          string
	detach          bool
	fresh           bool
	dryRun          bool
	maxHours        float64
	hangAfter       time.Duration
	parallel        string
}

// Defaults of %train, with their reasons.
const (
	// A minute of work is little to lose, and a save of a few hundred megabytes
	// once a minute costs about a percent.
	defaultEvery = "60s"
	// The newest may turn out damaged, and so may the one before it.
	defaultKeep = 3
	// A crash that comes twice more is no accident.
	defaultRetries = 2
	// Longer than loading a large model or evaluating it takes; a print counts as
	// a sign of life too.
	defaultHang = 10 * time.Minute
)

func (o *trainOptions) bind(fs *pflag.FlagSet) {
	o.flags = fs
	fs.StringVar(&o.models, "models", "", "what to train: `X` is a variable of the notebook, a YAML or JSON file, or names separated by commas")
	fs.StringVar(&o.script, "script", "", "the Python `FILE` that trains one model")
	fs.StringVar(&o.store, "store", "", "where to copy every checkpoint to: the `URL` is a folder, drive:Folder/Sub, or none")
	fs.IntVar(&o.effectiveBatch, "effective-batch", 0, "samples per optimizer step; kept whatever the GPU (default 16)")
	fs.StringVar(&o.batchSize, "batch-size", auto, "samples per forward pass: `N` or auto")
	fs.StringVar(&o.precision, "precision", auto, "`P` is fp32, fp16, bf16 or auto")
	fs.StringVar(&o.loraRank, "lora-rank", auto, "rank of LoRA adapters: `N` or auto, which is 16")
	fs.StringVar(&o.checkpointEvery, "checkpoint-every", defaultEvery, "how often to save: `EVERY` 60s, say, or 200steps")
	fs.Float64Var(&o.maxHours, "max-hours", 0, "pause cleanly before so many hours are over (default: no limit)")
	fs.DurationVar(&o.hangAfter, "hang-after", defaultHang, "no sign of life from a worker for so long means that it hangs; 0 for never")
	fs.StringVar(&o.parallel, "parallel", "1", "models to train at once: `N`, or auto for as many as fit and pay")
	fs.IntVar(&o.keep, "keep", defaultKeep, "checkpoints to keep of each model")
	fs.StringVar(&o.keepBest, "keep-best", "", "keep besides the checkpoint whose `METRIC` is the lowest; METRIC:max for the highest")
	fs.IntVar(&o.retries, "retries", defaultRetries, "how often a model that crashed is tried again")
	fs.Int64Var(&o.seed, "seed", 0, "seed of all random generators")
	fs.StringVar(&o.python, "python", "", "interpreter of the workers, a `PATH` (default: the notebook's)")
	fs.BoolVar(&o.detach, "detach", false, "return at once; %attach watches later")
	fs.BoolVar(&o.fresh, "fresh", false, "train every model anew")
	fs.BoolVar(&o.dryRun, "dry-run", false, "show what would be trained, skipped and done again, and stop")
	o.dir = o.deps.workDirFlag(fs)
}

// run seals plan, starts its supervisor unless there is nothing to do, and
// watches.
func (o *trainOptions) run(ctx context.Context, c *Call, plan *training.Plan) error {
	if err := o.tune(ctx, plan); err != nil {
		return err
	}
	if err := plan.Validate(); err != nil {
		return err
	}
	plan.Seal()
	plan.Versions = o.deps.versions()
	if o.dryRun {
		return o.rehearse(c, plan)
	}
	if err := o.fetch(ctx, c, plan); err != nil {
		return err
	}
	run, changes, err := training.Create(*o.dir, plan, o.fresh)
	if err != nil {
		return dataDirProblem("keep the run "+plan.Run+" in "+*o.dir, err)
	}
	if text := describe(changes, o.fresh); text != "" {
		fmt.Fprintln(c.Stdout, text)
	}
	return o.deps.launch(ctx, c, run, o.detach)
}

// rehearse shows what would be trained of plan, and what of it is done.
func (o *trainOptions) rehearse(c *Call, plan *training.Plan) error {
	changes, err := training.Compare(*o.dir, plan, o.fresh)
	if err != nil {
		return err
	}
	c.Screen.Show(planView(plan, changes, o.fresh))
	if _, err := training.Find(*o.dir, plan.Run); err != nil && plan.Store != "" {
		fmt.Fprintf(c.Stdout, "Run %s is not here. What %s may have of it was not looked at.\n", plan.Run, plan.Store)
	}
	return nil
}

// fetch brings what the store has of a run that is not here: on a fresh machine
// the same cell goes on. A store that cannot be opened is known now, not in an
// hour.
func (o *trainOptions) fetch(ctx context.Context, c *Call, plan *training.Plan) error {
	if plan.Store == "" {
		return nil
	}
	store, err := o.deps.OpenStore(ctx, plan.Store)
	if err != nil {
		return err
	}
	defer o.deps.CloseStore(store)
	if _, err := training.Find(*o.dir, plan.Run); err == nil {
		return nil
	}
	names, err := checkpoint.Runs(ctx, store)
	if err != nil {
		return &Problem{"list the runs in " + plan.Store, err, "check the address of the store, or give --store none"}
	}
	if !slices.Contains(names, plan.Run) {
		return nil
	}
	fmt.Fprintf(c.Stdout, "%s has run %s already: going on with it.\n", plan.Store, plan.Run)
	report, err := checkpoint.Restore(ctx, store, plan.Run, *o.dir)
	if err != nil {
		return err
	}
	for _, note := range report.Notes {
		fmt.Fprintln(c.Stdout, note)
	}
	return nil
}

// launch starts the supervisor of run if it has work and none is alive, and
// watches it unless detach. To send what a store does not have yet is work, too.
// An interrupt of the start is watch's to answer.
func (d *Deps) launch(ctx context.Context, c *Call, run *training.Run, detach bool) error {
	status, err := run.Status()
	if err != nil {
		return err
	}
	if status.State == training.RunDone && !d.sends(ctx, c, status) {
		c.Screen.Show(d.reporter(run, c).report(status).view())
		return nil
	}
	if err := run.Start(ctx, d.Supervisor(run.DataDir(), run.Name())); err != nil && !errors.Is(err, ctx.Err()) {
		return &Problem{
			What: "start the supervisor of " + run.Name(),
			Err:  err,
			Hint: "its log is " + run.Dir() + "/supervisor.log",
		}
	}
	if detach && ctx.Err() == nil {
		fmt.Fprintf(c.Stdout, "%s runs on its own. %sattach %s watches it, %sstop %s pauses it.\n",
			run.Name(), c.prompt(), run.Name(), c.prompt(), run.Name())
		return nil
	}
	if err := d.watch(ctx, c, run); err != nil {
		return &WorkError{err}
	}
	return nil
}

// sends says what there is to do for a run that is done, and reports whether
// that is to send what no store has confirmed to a store that can be opened.
func (d *Deps) sends(ctx context.Context, c *Call, s training.Status) bool {
	if s.Store == "" || !slices.ContainsFunc(s.Models, onlyHere) {
		fmt.Fprintf(c.Stdout, "Nothing to do: all of %s is done, %s.\n", s.Run, models(len(s.Models)))
		return false
	}
	store, err := d.OpenExisting(ctx, s.Store)
	if err != nil {
		fmt.Fprintf(c.Stdout, "All of %s is done, %s. What is on this disk only cannot be sent now: %v\n", s.Run, models(len(s.Models)), err)
		if cure := CureOf(err); cure != "" {
			fmt.Fprintln(c.Stdout, "To do:", cure)
		}
		return false
	}
	d.CloseStore(store)
	fmt.Fprintf(c.Stdout, "All of %s is done, %s. What is on this disk only is sent to %s now.\n", s.Run, models(len(s.Models)), s.Store)
	return true
}

// onlyHere reports whether no store has said that it has a result.
func onlyHere(m training.ModelStatus) bool {
	return m.Checkpoint == nil || m.Checkpoint.Durability == string(checkpoint.Local)
}

// describe says in words what an existing run will do again and what it skips.
func describe(ch training.Changes, fresh bool) string {
	var parts []string
	say := func(names []string, format string) {
		if len(names) > 0 {
			parts = append(parts, fmt.Sprintf(format, strings.Join(names, ", ")))
		}
	}
	say(ch.Finished, "Already done, skipped: %s.")
	if fresh {
		say(ch.Changed, "Trained anew, as --fresh asks (the old results are kept in superseded/): %s.")
	} else {
		say(ch.Changed, "Changed since they were trained, trained anew (the old results are kept in superseded/): %s.")
	}
	say(ch.Removed, "No longer in the plan, left as they are: %s.")
	return strings.Join(parts, "\n")
}
