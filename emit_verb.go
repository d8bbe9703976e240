package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/spf13/pflag"

	"outlast/magics"
	"outlast/training"
)

// Variables that a worker is given.
const (
	eventsVariable  = "OUTLAST_EVENTS_FD"
	jobVariable     = "OUTLAST_JOB"
	stagingVariable = "OUTLAST_STAGING"
)

// An emission is one kind of event that emit writes.
type emission struct {
	name, args, short string
	event             training.EventKind
	make              func(e *training.Event, args []string) error
}

// emissions returns what emit can say, in the order of the help.
func (p *program) emissions() []emission {
	return []emission{
		{
			"progress", "STEP [TOTAL]", "so many steps are completed, so many are planned",
			training.EventProgress, emitProgress,
		},
		{
			"metric", "--step N NAME=VALUE...", "what was measured in step N; the first step is 0",
			training.EventMetrics, emitMetric,
		},
		{
			"checkpoint", "--step N FOLDER", "FOLDER, new in $OUTLAST_STAGING, is the state after N steps; it is no longer yours",
			training.EventCheckpoint, p.emitCheckpoint,
		},
		{
			"restored", "--step N", "training goes on from step N: 0 if the checkpoint in $OUTLAST_JOB was of no use",
			training.EventRestored, noMore,
		},
		{
			"finish", "--step N [NAME=VALUE...]", "the model is done; the newest checkpoint is its result",
			training.EventFinish, emitFinish,
		},
		{
			"failed", "MESSAGE", "the program is wrong, and trying again will not help",
			training.EventFailed, emitFailed,
		},
	}
}

// emitVerb writes one event of the worker protocol, for workers that are not
// written in Python.
func emitVerb() verb {
	return verb{
		name: "emit", args: "metric|progress|checkpoint|... [ARGS...]",
		short: "In a worker of any language: tell the supervisor how far it is",
		run: func(_ context.Context, p *program, args []string) error {
			if len(args) == 0 {
				return usage("emit", "it needs an event: "+p.emissionNames())
			}
			if args[0] == "--help" || args[0] == "-h" {
				return p.emitHelp()
			}
			i := slices.IndexFunc(p.emissions(), func(e emission) bool { return e.name == args[0] })
			if i < 0 {
				return usage("emit", fmt.Sprintf("there is no event %q; there are %s", args[0], p.emissionNames()))
			}
			return p.emit(p.emissions()[i], args[1:])
		},
	}
}

func (p *program) emissionNames() string {
	var names []string
	for _, e := range p.emissions() {
		names = append(names, e.name)
	}
	return strings.Join(names, ", ")
}

func (p *program) emitHelp() error {
	var b strings.Builder
	for _, e := range p.emissions() {
		fmt.Fprintf(&b, "  outlast emit %s %s\n      %s\n", e.name, e.args, e.short)
	}
	_, err := fmt.Fprintf(p.stdout, `%s
A worker is told what to train by the JSON file $OUTLAST_JOB: name, params, seed,
batch_size, and as checkpoint.path the folder to go on from, if there is one. It
writes each checkpoint into a new folder in $OUTLAST_STAGING and hands it over.
SIGTERM asks it to hand over a last checkpoint and to exit with status 75. One
that exits with 0 is done.

Outside a run emit checks what it was given, and says nothing.
`, b.String())
	return err
}

// emit checks one event and writes it.
func (p *program) emit(kind emission, args []string) error {
	fs := pflag.NewFlagSet("emit", pflag.ContinueOnError)
	step := int64(-1)
	reason := ""
	if strings.Contains(kind.args, "--step") {
		fs.Int64Var(&step, "step", -1, "the step it is about")
	}
	if kind.event == training.EventCheckpoint {
		fs.StringVar(&reason, "reason", "due", "due: a newer one may overtake it; asked, pause, final: not")
	}
	fs.SetOutput(io.Discard)
	err := fs.Parse(args)
	if errors.Is(err, pflag.ErrHelp) {
		return p.emitHelp()
	}
	if err == nil && fs.Lookup("step") != nil && step < 0 {
		err = errors.New("--step N is missing")
	}
	if err == nil && reason != "" && !slices.Contains([]string{"due", "asked", "pause", "final"}, reason) {
		err = fmt.Errorf("--reason is due, asked, pause or final, not %q", reason)
	}
	e := training.Event{Kind: kind.event, Step: max(step, 0), Reason: reason}
	if err == nil {
		err = kind.make(&e, fs.Args())
	}
	if err != nil {
		return usage("emit", fmt.Sprintf("%s: %v; it is written 'outlast emit %s %s'", kind.name, err, kind.name, kind.args))
	}
	return p.sendEvent(e)
}

// sendEvent writes e to the supervisor. Other processes of the worker may emit
// too, and a pipe takes only short lines in one piece: a torn event is lost, and
// so is the one that tore it.
func (p *program) sendEvent(e training.Event) error {
	text := p.env.get(eventsVariable)
	if text == "" {
		return nil // not in a run
	}
	problem := func(err error) error {
		return &magics.Problem{
			What: "emit " + string(e.Kind), Err: err,
			Hint: "call it from the program that the run started, or a child of it that keeps descriptor " + text + " open",
		}
	}
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 0 {
		return problem(fmt.Errorf("%s is %q, and no descriptor", eventsVariable, text))
	}
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	turn := flock.New(p.env.get(jobVariable), flock.SetFlag(os.O_RDONLY))
	turn.Lock()        //nolint:errcheck // no reason to keep silent: mostly there is one writer
	defer turn.Close() //nolint:errcheck // it was only held
	events := os.NewFile(uintptr(fd), "events")
	if _, err := events.Write(append(line, '\n')); err != nil {
		return problem(fmt.Errorf("nobody reads the events: %w", err))
	}
	return nil
}

func emitProgress(e *training.Event, args []string) error {
	if len(args) != 1 && len(args) != 2 {
		return errors.New("it takes one or two numbers")
	}
	for i, to := range []*int64{&e.Step, &e.Total} {
		if i == len(args) {
			break
		}
		n, err := strconv.ParseInt(args[i], 10, 64)
		if err != nil || n < 0 {
			return fmt.Errorf("%q is no number of steps", args[i])
		}
		*to = n
	}
	return nil
}

func emitMetric(e *training.Event, args []string) (err error) {
	if len(args) == 0 {
		return errors.New("it takes at least one NAME=VALUE")
	}
	e.Time = float64(time.Now().UnixMilli()) / 1000
	e.Values, err = assignments(args)
	return err
}

func emitFinish(e *training.Event, args []string) (err error) {
	e.Metrics, err = assignments(args)
	return err
}

func emitFailed(e *training.Event, args []string) error {
	if len(args) == 0 {
		return errors.New("it takes a message")
	}
	e.Failure, e.Type, e.Message = "user", "Error", strings.Join(args, " ")
	return nil
}

func noMore(_ *training.Event, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("it takes nothing more, not %s", strings.Join(args, " "))
	}
	return nil
}

// emitCheckpoint checks what the supervisor would refuse: there it would end the
// worker, here the mistake shows where it was made.
func (p *program) emitCheckpoint(e *training.Event, args []string) error {
	if len(args) != 1 {
		return errors.New("it takes one folder")
	}
	path, err := filepath.Abs(args[0])
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is no folder", args[0])
	}
	if staging := p.env.get(stagingVariable); staging != "" {
		if rel, err := filepath.Rel(staging, path); err != nil || !filepath.IsLocal(rel) || rel == "." {
			return fmt.Errorf("%s is not in $%s", args[0], stagingVariable)
		}
	}
	e.Path = path
	return nil
}

// assignments reads NAME=VALUE. A value that is a number is one; nan and inf,
// which JSON lacks, travel as texts.
func assignments(args []string) (map[string]any, error) {
	values := map[string]any{}
	for _, arg := range args {
		name, text, ok := strings.Cut(arg, "=")
		if !ok || name == "" || name == "step" || name == "time" {
			return nil, fmt.Errorf("%q is no NAME=VALUE (step and time are taken)", arg)
		}
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
			values[name] = text
			continue
		}
		values[name] = n
	}
	return values, nil
}

// reachable returns env with this program's folder at the end of PATH, so that
// workers can call 'outlast emit' however Outlast itself was found.
func reachable(env []string) []string {
	exe, err := os.Executable()
	if err != nil {
		return env
	}
	for i, kv := range env {
		name, path, _ := strings.Cut(kv, "=")
		if strings.EqualFold(name, "PATH") {
			env[i] = name + "=" + path + string(os.PathListSeparator) + filepath.Dir(exe)
			return env
		}
	}
	return append(env, "PATH="+filepath.Dir(exe))
}
