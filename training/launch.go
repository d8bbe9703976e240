package training

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"outlast/checkpoint/durable"
)

// command prepares the worker's folders, job file and command line.
func (a *attempt) command() (cmd *exec.Cmd, log *os.File, err error) {
	staging, work := a.path(stagingName), a.path(workName)
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
	a.memory = a.place()
	path := a.path(jobName)
	if err := durable.WriteJSON(path, a.job(code, staging, work)); err != nil {
		return nil, nil, err
	}
	if log, err = os.OpenFile(a.path(modelLogName), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o644); err != nil {
		return nil, nil, err
	}
	fmt.Fprintf(log, "── %s, attempt %d, %s, from step %d\n", a.model.Name, a.number, time.Now().Format(time.DateTime), a.from.Step)
	plan := a.s.Run.plan
	argv := []string{plan.Python, "-m", "outlast", path}
	if plan.Code.Kind == CodeCommand {
		argv = a.fill(plan.Code.Command)
	}
	// Not CommandContext: a pause asks before it kills, see attempt.stop.
	cmd = exec.Command(argv[0], argv[1:]...) //nolint:noctx // see above
	cmd.Dir = plan.Dir
	if !isFolder(cmd.Dir) { // another machine's
		cmd.Dir = work
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(a.s.environment(a.threads()), "OUTLAST_EVENTS_FD=3")
	for k, v := range a.variables() {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	return cmd, log, nil
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func (a *attempt) job(code jobCode, staging, work string) jobFile {
	plan := a.s.Run.plan
	set := plan.Settings
	job := jobFile{
		Protocol: ProtocolVersion, Run: a.s.Run.Name(), Name: a.model.Name, Params: a.model.Params, Seed: set.Seed,
		Attempt: a.number, BatchSize: a.fit.BatchSize, GradAccum: a.fit.GradAccum, EffectiveBatch: set.EffectiveBatch, Precision: set.Precision,
		LoRARank: set.LoRARank, Device: set.Device, MemoryFraction: a.memoryFraction(), Threads: a.threads(), Dir: work, Staging: staging, MemoryStaging: a.memory,
		GradCheckpointing: a.fit.GradCheckpointing, LoaderWorkers: a.fit.LoaderWorkers,
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

// variables are those of this attempt.
func (a *attempt) variables() map[string]string {
	vars := a.sharing()
	vars["OUTLAST_JOB"], vars["OUTLAST_STAGING"] = a.path(jobName), a.path(stagingName)
	return vars
}

// memoryFraction is the part of the device that the worker may use.
func (a *attempt) memoryFraction() float64 {
	if a.seat.fraction > 0 {
		return a.seat.fraction
	}
	return a.s.Run.plan.Settings.MemoryFraction
}

// environment is what all workers with so many threads have in theirs.
func (s *Supervisor) environment(threads int) []string {
	plan := s.Run.plan
	path := []string{s.WorkerDir}
	if plan.Code.Kind == CodeScript { // for what the script imports from beside it
		path = append(path, filepath.Dir(plan.Code.Name))
	}
	env := make([]string, 0, len(s.Env)+8)
	for _, kv := range s.Env {
		if old, ok := strings.CutPrefix(kv, "PYTHONPATH="); ok && old != "" {
			path = append(path, old)
			continue
		}
		env = append(env, kv)
	}
	for k, v := range plan.Settings.Env {
		env = append(env, k+"="+v)
	}
	env = append(env, threadLimit(threads)...)
	return append(env, "PYTHONPATH="+strings.Join(path, string(os.PathListSeparator)), "PYTHONUNBUFFERED=1")
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
	s.writing.Lock()
	defer s.writing.Unlock()
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
