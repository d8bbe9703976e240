//go:build unix

package trainingtest

import (
	"os"
	"slices"

	"outlast/training"
)

// A Script says what a model's worker does, one verb a line:
//
//	hello [N]             the first event, with protocol N
//	restore               takes up the checkpoint that it was given, and says so
//	train N every K       N steps in all, a checkpoint that is due each K steps;
//	                      each step logs a loss. SIGTERM pauses as job.steps does
//	slow D                from here on a step takes so long
//	exclusive FILE        from here on only one of those with FILE does a step
//	checkpoint REASON     stages one now
//	memory                from here on stages in memory
//	final; finish [METRIC] as job.finish does
//	event JSON; raw TEXT  one line of events, checked or not
//	huge N                one line of N bytes
//	close                 closes the events
//	print TEXT; warn TEXT on stdout, on stderr
//	fail KIND TYPE TEXT   says that the code raised, and ends with status 1
//	exit N; signal NAME   ends
//	hang                  does nothing any more, not even when asked to pause
//	deaf                  from here on SIGTERM is not heard
//	touch FILE; await FILE; note KEY appends job's KEY to a file FILE.KEY
//	child                 leaves a process behind, in a session of its own, that
//	                      has everything this one has, and writes its number to
//	                      the file child
//	when FIELD > N: VERB  only if job.FIELD is greater
//
// A line that begins with @N is for attempt N only, @N+ for attempt N and all
// later ones. Files are in the run's folder.
type Script []string

// Model returns a model whose worker does what lines say.
func Model(name string, lines ...string) training.Model {
	script := make([]any, len(lines))
	for i, line := range lines {
		script[i] = line
	}
	return training.Model{Name: name, Params: map[string]any{"script": script}}
}

// Good is the script of a model that trains so many steps, checkpoints every so
// often, and survives whatever happens to it.
func Good(steps, every string) []string {
	return []string{"hello", "restore", "train " + steps + " every " + every, "finish"}
}

// Plan returns a sealed plan of models that this test binary trains.
func Plan(run string, models ...training.Model) *training.Plan {
	exe, err := os.Executable()
	if err != nil {
		panic(err) // no test can be run without it
	}
	p := &training.Plan{
		Run:  run,
		Code: training.Code{Kind: training.CodeCommand, Command: []string{exe}},
		Settings: training.Settings{
			EffectiveBatch: 16, BatchSize: 16, GradAccum: 1, Device: "cpu", Precision: "fp32", Keep: 2, Retries: 2,
			Env: map[string]string{roleVariable: roleWorker, raceVariable: raceOptions},
		},
		Models: slices.Clone(models),
	}
	p.Seal()
	return p
}
