package magics

import (
	"cmp"
	"fmt"
	"strings"

	"outlast/training"
)

// planView shows what a dry run would do, given what of the plan is there.
func planView(p *training.Plan, ch training.Changes, fresh bool) View {
	s := sheet{Title: fmt.Sprintf("%s: %s, nothing started", p.Run, models(len(p.Models)))}
	if done := len(ch.Finished); done > 0 {
		s.Title = fmt.Sprintf("%s: %s, %d to train, nothing started", p.Run, models(len(p.Models)), len(p.Models)-done)
	}
	would := intents(ch, fresh)
	s.Columns = []column{
		{Head: "model"},
		{Head: "would be"},
		{Head: "batch", Right: true, Rank: 2},
		{Head: "× accumulation", Right: true, Rank: 3},
		{Head: "= effective", Right: true, Rank: 1},
		{Head: "parameters"},
	}
	for _, m := range p.Models {
		fit := plannedFit(p, m)
		s.add(m.Name, cmp.Or(would[m.Name], "trained"), fmt.Sprint(fit.BatchSize), fmt.Sprint(fit.GradAccum), fmt.Sprint(p.Settings.EffectiveBatch), params(m.Params))
	}
	if len(ch.Removed) > 0 {
		s.say(fmt.Sprintf("No longer in the plan, left as they are: %s.", strings.Join(ch.Removed, ", ")))
	}
	set := p.Settings
	s.say(
		fmt.Sprintf("Device %s, precision %s, LoRA rank %d, seed %d.", set.Device, set.Precision, set.LoRARank, set.Seed),
		fmt.Sprintf("A checkpoint every %s, %s are kept; store: %s.", set.CheckpointEvery, kept(set), cmp.Or(p.Store, "none")),
	)
	switch set.Parallel {
	case 0, 1:
	case training.ParallelAuto:
		s.say("As many at once as fit and make the run faster.")
	default:
		s.say(fmt.Sprintf("Up to %s at once; each has its share of the device and of the cores.", set.Parallel))
	}
	return s.view()
}

// intents says what would be done with models of a run that is there.
func intents(ch training.Changes, fresh bool) map[string]string {
	anew := "trained anew: changed"
	if fresh {
		anew = "trained anew: --fresh"
	}
	all := map[string]string{}
	for does, names := range map[string][]string{"skipped: done": ch.Finished, anew: ch.Changed, "gone on with": ch.Kept} {
		for _, name := range names {
			all[name] = does
		}
	}
	return all
}

// kept says which checkpoints are.
func kept(set training.Settings) string {
	text := fmt.Sprintf("the last %d", set.Keep)
	if metric, ok := strings.CutSuffix(set.KeepBest, ":max"); ok {
		return text + " and that of the highest " + metric
	}
	if metric, ok := strings.CutSuffix(set.KeepBest, ":min"); ok {
		return text + " and that of the lowest " + metric
	}
	return text
}

func models(n int) string {
	if n == 1 {
		return "1 model"
	}
	return fmt.Sprintf("%d models", n)
}
