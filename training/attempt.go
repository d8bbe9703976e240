package training

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"outlast/checkpoint/durable"
)

// maxEvent bounds one line of a worker, in bytes.
const maxEvent = 1 << 20

// outcome is how an attempt ended.
type outcome struct {
	cause   Cause
	exit    int
	signal  string
	message string
	final   Checkpoint
}

// state returns what e makes of the model, if it is tried again or not.
func (e outcome) state(again bool) ModelState {
	switch {
	case e.cause == CauseDone:
		return ModelDone
	case e.cause == CausePaused:
		return ModelPaused
	case again:
		return ModelPending
	}
	return ModelFailed
}

// An attempt is one worker process working on one model.
type attempt struct {
	s      *Supervisor
	index  int
	model  Model
	from   Checkpoint
	number int

	began   time.Time
	reached int64 // completed steps
	redone  int64

	metrics  *durable.Log
	saver    *saver
	finished *Event // the finish event
	failed   *Event
	paused   bool
}

func (a *attempt) seconds() float64 { return time.Since(a.began).Seconds() }

// run starts the worker, follows it to its end, and says how it ended. Its
// error is one of the machine.
func (a *attempt) run(ctx context.Context) (outcome, error) {
	a.began = time.Now()
	a.reached = a.from.Step
	a.redone = max(0, a.s.history(a.model).reached-a.from.Step)
	cmd, log, err := a.command()
	if err != nil {
		return outcome{}, err
	}
	defer log.Close() //nolint:errcheck // the worker's text; the worker has its own copy
	lock, err := lockWorker(a.path(workerLockName))
	if err != nil {
		return outcome{}, err
	}
	defer lock.Close() //nolint:errcheck // ending releases it too
	if err := a.openMetrics(a.from.Step); err != nil {
		return outcome{}, err
	}
	defer func() { a.metrics.Close() }() //nolint:errcheck // synced before every checkpoint
	events, theirs, err := os.Pipe()
	if err != nil {
		return outcome{}, err
	}
	defer events.Close()                      //nolint:errcheck // it was only read
	cmd.ExtraFiles = []*os.File{theirs, lock} // descriptors 3 and 4
	a.saver = newSaver(a)
	state, err := a.process(ctx, cmd, events, theirs, lock)
	a.saver.close()
	if err != nil {
		return outcome{}, err
	}
	return a.classify(ctx, state)
}

func (a *attempt) path(name string) string { return a.s.Run.ModelPath(a.model.Name, name) }

// process runs cmd and reads its events until it has ended and said everything.
// It keeps its thread: the worker is killed when the thread that started it
// ends.
func (a *attempt) process(ctx context.Context, cmd *exec.Cmd, events, theirs, lock *os.File) (*os.ProcessState, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Start()
	theirs.Close() //nolint:errcheck // the worker has its own copy
	if err != nil {
		return nil, fmt.Errorf("start worker: %w", err)
	}
	pid := cmd.Process.Pid
	if _, err := lock.WriteAt([]byte(fmt.Sprintf("%-10d\n", pid)), 0); err != nil {
		a.s.Log.Warn("worker's number not recorded", "error", err)
	}
	if err := a.started(pid); err != nil {
		killGroup(pid) //nolint:errcheck // it is waited for below
		cmd.Wait()     //nolint:errcheck // the first error counts
		return nil, err
	}
	over := make(chan struct{})
	var helpers sync.WaitGroup
	helpers.Go(func() { a.read(events) })
	helpers.Go(func() { stopWorker(ctx, pid, over) })
	err = cmd.Wait()
	close(over)
	killGroup(pid) //nolint:errcheck // mostly nobody is left; if somebody is, the pipe would stay open
	helpers.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, err
	}
	return cmd.ProcessState, nil
}

// stopWorker asks the worker to pause when ctx ends, and insists if it does not.
func stopWorker(ctx context.Context, pid int, over <-chan struct{}) {
	select {
	case <-over:
		return
	case <-ctx.Done():
	}
	terminate(pid) //nolint:errcheck // it may just have gone
	select {
	case <-over:
	case <-time.After(pauseGrace):
		killGroup(pid) //nolint:errcheck // likewise
	}
}

// started publishes that the worker works.
func (a *attempt) started(pid int) error {
	h := a.s.history(a.model)
	h.attempts, h.running = a.number, true
	settings := a.s.Run.plan.Settings
	size, accum := a.s.Run.plan.batch(a.model)
	settings.BatchSize, settings.GradAccum = size, accum
	a.s.change(true, func(st *Status) {
		m := &st.Models[a.index]
		m.State, m.WorkerPID, m.Attempts, m.Step, m.Cause, m.Error = ModelRunning, pid, a.number, a.from.Step, "", ""
		m.BatchSize, m.GradAccum = size, accum
		m.Checkpoint = nil
		if a.from.Path != "" {
			m.Checkpoint = &CheckpointStatus{a.from.Step, a.from.Durability, a.from.Path}
		}
	})
	return a.s.record(Entry{
		Type: EntryStart, Model: a.model.Name, Fingerprint: a.model.Fingerprint, Attempt: a.number,
		PID: pid, Settings: &settings, FromStep: a.from.Step,
	})
}

// read handles the worker's events, one after the other, until it closes them.
func (a *attempt) read(events io.Reader) {
	lines := bufio.NewScanner(events)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		e, err := ParseEvent(lines.Bytes())
		if err == nil {
			err = a.handle(e)
		}
		if err != nil {
			a.s.Log.Error("event not handled", "model", a.model.Name, "attempt", a.number, "error", err)
		}
	}
	if err := lines.Err(); err != nil {
		a.s.Log.Error("events not read", "model", a.model.Name, "attempt", a.number, "error", err)
		io.Copy(io.Discard, events) //nolint:errcheck // the worker must not block on a full pipe
	}
}

func (a *attempt) handle(e Event) error {
	switch e.Kind {
	case EventHello:
		if e.Protocol != ProtocolVersion {
			return fmt.Errorf("worker speaks protocol %d and we speak %d: this usually means an outlast module of another version on PYTHONPATH", e.Protocol, ProtocolVersion)
		}
	case EventRestored:
		a.reached = e.Step
		return a.openMetrics(e.Step)
	case EventProgress:
		a.reached = e.Step
		a.progress(e)
	case EventMetrics:
		a.s.change(false, func(st *Status) {
			m := &st.Models[a.index]
			if m.Metrics == nil {
				m.Metrics = map[string]any{}
			}
			for k, v := range e.Values {
				m.Metrics[k] = v
			}
		})
		return a.metrics.Append(Point{Step: e.Step, Time: e.Time, Values: e.Values})
	case EventCheckpoint:
		a.reached = max(a.reached, e.Step)
		a.saver.put(e)
	case EventFinish:
		a.finished = &e
	case EventPaused:
		a.paused = true
	case EventFailed:
		a.failed = &e
	default:
		a.s.Log.Info("unknown event left aside", "model", a.model.Name, "event", string(e.Kind))
	}
	return nil
}

func (a *attempt) progress(e Event) {
	a.s.change(false, func(st *Status) {
		m := &st.Models[a.index]
		m.Step, m.TotalSteps = e.Step, e.Total
		m.Seconds = a.s.history(a.model).seconds + a.seconds()
		m.ETASeconds = nil
		if done := e.Step - a.from.Step; done > 0 && e.Total >= e.Step {
			left := a.seconds() / float64(done) * float64(e.Total-e.Step)
			m.ETASeconds = &left
		}
	})
}

// openMetrics cuts the metrics at the step that training goes on from, so that
// every step stands there once, and opens them.
func (a *attempt) openMetrics(step int64) error {
	if a.metrics != nil {
		if err := a.metrics.Close(); err != nil {
			return err
		}
	}
	path := a.path(metricsName)
	if err := cutMetrics(path, step); err != nil {
		return fmt.Errorf("cut metrics: %w", err)
	}
	log, err := durable.OpenLog(path)
	if err != nil {
		return err
	}
	a.metrics = log
	return nil
}

// classify says how the attempt ended, from what the worker said, then from its
// exit status.
func (a *attempt) classify(ctx context.Context, state *os.ProcessState) (outcome, error) {
	exit, signal, own := ending(state)
	e := outcome{exit: exit, signal: signal}
	if err := a.saver.failure(); err != nil {
		e.cause, e.message = CauseCrash, "a checkpoint could not be saved: "+err.Error()
		return e, nil
	}
	switch {
	case a.failed != nil:
		e.cause, e.message = CauseError, strings.TrimSpace(a.failed.Traceback)
		if e.message == "" {
			e.message = a.failed.Type + ": " + a.failed.Message
		}
	case a.finished != nil || exit == 0 && !a.paused:
		return a.finish(ctx, e)
	case a.paused, exit == exitPaused, ctx.Err() != nil:
		e.cause = CausePaused
	case signal != "" && !own:
		e.cause, e.message = CauseKilled, "its process was ended by a signal from outside: "+signal
	case signal != "":
		e.cause, e.message = CauseCrash, "its process crashed: "+signal
	default:
		e.cause, e.message = CauseCrash, fmt.Sprintf("its process ended with status %d; its log says more", exit)
	}
	return e, nil
}

// finish makes the newest checkpoint the final one. A program that saves none
// is given an empty one: that it ended well is its result.
func (a *attempt) finish(ctx context.Context, e outcome) (outcome, error) {
	ctx = context.WithoutCancel(ctx) // done is done, even if a pause was asked for meanwhile
	c := a.saver.last()
	if c.Path == "" && a.from.Path != "" {
		c = a.from
	}
	if c.Path == "" {
		empty := filepath.Join(a.path("staging"), "empty")
		if err := os.MkdirAll(empty, 0o755); err != nil {
			return e, err
		}
		var err error
		if c, err = a.s.Vault.Save(ctx, a.checkpoint(a.reached), empty); err != nil {
			return e, err
		}
	}
	metrics := a.lastMetrics()
	if a.finished != nil {
		metrics = a.finished.Metrics
	}
	final := a.checkpoint(c.Step)
	final.Metrics = metrics
	final, err := a.s.Vault.Finish(ctx, final)
	if err != nil {
		return e, err
	}
	e.cause, e.final = CauseDone, final
	return e, nil
}

func (a *attempt) lastMetrics() (m map[string]any) {
	a.s.change(false, func(st *Status) { m = st.Models[a.index].Metrics })
	return m
}

func (a *attempt) checkpoint(step int64) Checkpoint {
	return Checkpoint{Model: a.model.Name, Fingerprint: a.model.Fingerprint, Step: step, Generation: a.s.generation, Writer: a.s.writer}
}

// command prepares the worker's folders, job file and command line.
func (a *attempt) command() (*exec.Cmd, *os.File, error) {
	staging, work := a.path("staging"), a.path("work")
	if err := os.RemoveAll(staging); err != nil { // what a dead attempt left half-written
		return nil, nil, err
	}
	for _, dir := range []string{staging, work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, nil, err
		}
	}
	code, err := a.s.writeCode()
	if err != nil {
		return nil, nil, err
	}
	job := a.job(code, staging, work)
	path := a.path("job.json")
	if err := durable.WriteJSON(path, job); err != nil {
		return nil, nil, err
	}
	log, err := os.OpenFile(a.path(modelLogName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, nil, err
	}
	fmt.Fprintf(log, "── %s, attempt %d, %s, from step %d\n", a.model.Name, a.number, time.Now().Format(time.DateTime), a.from.Step)
	plan := a.s.Run.plan
	argv := []string{plan.Python, "-m", "outlast", path}
	if plan.Code.Kind == CodeCommand {
		argv = a.fill(plan.Code.Command)
	}
	// Not CommandContext: a pause asks before it kills, see stopWorker.
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // see above
	cmd.Dir = plan.Dir
	if info, err := os.Stat(cmd.Dir); err != nil || !info.IsDir() { // another machine's folder
		cmd.Dir = work
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = a.environment(path, staging)
	group(cmd)
	return cmd, log, nil
}

func (a *attempt) job(code jobCode, staging, work string) jobFile {
	plan := a.s.Run.plan
	size, accum := plan.batch(a.model)
	set := plan.Settings
	job := jobFile{
		Protocol: ProtocolVersion, Run: a.s.Run.Name(), Name: a.model.Name, Params: a.model.Params, Seed: set.Seed,
		Attempt: a.number, BatchSize: size, GradAccum: accum, EffectiveBatch: set.EffectiveBatch, Precision: set.Precision,
		LoRARank: set.LoRARank, Device: set.Device, MemoryFraction: set.MemoryFraction, Dir: work, Staging: staging,
		CheckpointEvery: set.CheckpointEvery, Code: code,
	}
	if job.Params == nil {
		job.Params = map[string]any{}
	}
	if a.from.Path != "" {
		job.Checkpoint = &jobCheckpoint{a.from.Step, a.from.Path}
	}
	return job
}

func (a *attempt) environment(job, staging string) []string {
	plan := a.s.Run.plan
	path := []string{a.s.WorkerDir}
	if plan.Code.Kind == CodeScript { // for what the script imports from beside it
		path = append(path, filepath.Dir(plan.Code.Name))
	}
	env := make([]string, 0, len(a.s.Env)+8)
	for _, kv := range a.s.Env {
		if old, ok := strings.CutPrefix(kv, "PYTHONPATH="); ok && old != "" {
			path = append(path, old)
			continue
		}
		env = append(env, kv)
	}
	for k, v := range plan.Settings.Env {
		env = append(env, k+"="+v)
	}
	return append(env,
		"PYTHONPATH="+strings.Join(path, string(os.PathListSeparator)), "PYTHONUNBUFFERED=1",
		"OUTLAST_JOB="+job, "OUTLAST_EVENTS_FD=3", "OUTLAST_STAGING="+staging)
}

// fill puts the model's name and parameters in the place of {name} and {PARAM}.
func (a *attempt) fill(command []string) []string {
	pairs := []string{"{name}", a.model.Name}
	for k, v := range a.model.Params {
		pairs = append(pairs, "{"+k+"}", fmt.Sprint(v))
	}
	r := strings.NewReplacer(pairs...)
	filled := make([]string, len(command))
	for i, word := range command {
		filled[i] = r.Replace(word)
	}
	return filled
}

// writeCode writes the plan's code where tracebacks can show it.
func (s *Supervisor) writeCode() (jobCode, error) {
	c := s.Run.plan.Code
	job := jobCode{Kind: c.Kind, Shared: []string{}}
	if c.Kind == CodeCommand {
		return job, nil
	}
	dir := s.Run.path(codeName)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return job, err
	}
	write := func(name, source string) (string, error) {
		path := filepath.Join(dir, name)
		if old, err := os.ReadFile(path); err == nil && string(old) == source {
			return path, nil
		}
		return path, os.WriteFile(path, []byte(source), 0o644)
	}
	for i, source := range c.Shared {
		path, err := write("shared_"+strconv.Itoa(i+1)+".py", source)
		if err != nil {
			return job, err
		}
		job.Shared = append(job.Shared, path)
	}
	var err error
	job.Path, err = write(filepath.Base(c.Name), c.Source)
	return job, err
}
