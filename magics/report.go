package magics

import (
	"maps"
	"slices"

	"outlast/training"
)

const (
	// logLines is how many of the last lines of a failed model's log are shown.
	logLines = 8
	// shownFailures is how many failed models are shown with their log.
	shownFailures = 3
	// shownNotes is how many of a run's notes are shown, the latest.
	shownNotes = 6
)

// A report is all that a view of a run shows. It is made by a reporter, and drawn
// without looking anywhere else.
type report struct {
	training.Status
	Rows   []modelReport
	Hidden map[string]int // models that are not in Rows, by state
	Loss   string         // the metric that stands for how well it goes; may be empty
	GPUs   []string       // their memory, in words
	Prompt string         // what goes before a magic's name
	Live   bool           // it is watched, and an interrupt would pause it
	Pause  bool           // it was interrupted, and has not ended yet
}

// A modelReport is one model of a report.
type modelReport struct {
	training.ModelStatus
	Planned training.Fit // how the plan wants it to use its device
	Trend   []float64    // of the loss
	Log     []string     // the last lines, if it failed
}

// A reporter looks at one run, again and again. It is for one goroutine.
type reporter struct {
	run    *training.Run
	prompt string
	all    bool // leave no model out
	live   bool
	gpus   func() []string // nil: they are of no interest

	pausing bool // it was interrupted

	trends trends
}

// report collects what is to be shown of s.
func (r *reporter) report(s training.Status) report {
	rep := report{Status: s, Prompt: r.prompt, Live: r.live && s.State == training.RunRunning, Pause: r.pausing, Loss: lossName(s.Models)}
	if r.gpus != nil && s.State == training.RunRunning {
		rep.GPUs = r.gpus()
	}
	planned := map[string]training.Fit{}
	plan := r.run.Plan()
	for _, m := range plan.Models {
		planned[m.Name] = plannedFit(plan, m)
	}
	stay := wanted(s.Models, r.all)
	failures := 0
	for i, m := range s.Models {
		if !stay[i] {
			if rep.Hidden == nil {
				rep.Hidden = map[string]int{}
			}
			rep.Hidden[string(m.State)]++
			continue
		}
		row := modelReport{ModelStatus: m, Planned: planned[m.Name]}
		row.Trend = r.trends.of(r.run.ModelPath(m.Name, "metrics.jsonl"), rep.Loss)
		if m.State == training.ModelFailed && failures < shownFailures {
			failures++
			row.Log = lastLines(r.run.ModelPath(m.Name, "log.txt"), logLines)
		}
		rep.Rows = append(rep.Rows, row)
	}
	return rep
}

// plannedFit returns how the plan wants a model to use its device.
func plannedFit(plan *training.Plan, m training.Model) training.Fit {
	if m.BatchSize > 0 {
		return training.Fit{BatchSize: m.BatchSize, GradAccum: max(m.GradAccum, 1)}
	}
	return training.Fit{BatchSize: plan.Settings.BatchSize, GradAccum: max(plan.Settings.GradAccum, 1)}
}

// wanted chooses the models that are shown where a plan has very many.
func wanted(models []training.ModelStatus, all bool) []bool {
	stay := make([]bool, len(models))
	needs := needs(models)
	order := make([]int, len(models))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return needs[a] - needs[b] })
	for n, i := range order {
		stay[i] = all || n < maxRows
	}
	return stay
}

// needs says how much the reader needs each model, the lowest the most: those
// that work, those that went wrong, the next one, then the latest that are done.
func needs(models []training.ModelStatus) []int {
	n := len(models)
	class := map[training.ModelState]int{
		training.ModelRunning: 0, training.ModelFailed: 1, training.ModelPaused: 2, training.ModelDone: 4, training.ModelPending: 5,
	}
	next := slices.IndexFunc(models, func(m training.ModelStatus) bool { return m.State == training.ModelPending })
	all := make([]int, n)
	for i, m := range models {
		switch {
		case i == next:
			all[i] = 3 * n
		case m.State == training.ModelDone:
			all[i] = (class[m.State]+1)*n - 1 - i
		default:
			all[i] = class[m.State]*n + i
		}
	}
	return all
}

// lossName returns the metric that tells how well training goes: a loss if there
// is one, else whatever was logged.
func lossName(models []training.ModelStatus) string {
	seen := map[string]bool{}
	for _, m := range models {
		for name, v := range m.Metrics {
			if _, ok := v.(float64); ok {
				seen[name] = true
			}
		}
	}
	for _, name := range []string{"loss", "train_loss"} {
		if seen[name] {
			return name
		}
	}
	names := slices.Sorted(maps.Keys(seen))
	if i := slices.IndexFunc(names, func(n string) bool { return directionOf(n) == lower }); i >= 0 {
		return names[i]
	}
	if len(names) > 0 {
		return names[0]
	}
	return ""
}

// reporter returns what looks at run for c.
func (d *Deps) reporter(run *training.Run, c *Call) *reporter {
	return &reporter{run: run, prompt: c.prompt()}
}
