package magics

import (
	"cmp"
	"fmt"

	"outlast/training"
)

// planView shows what a dry run would do.
func planView(p *training.Plan) View {
	s := sheet{Title: fmt.Sprintf("%s: %s, nothing started", p.Run, models(len(p.Models)))}
	s.Columns = []column{
		{Head: "model"},
		{Head: "batch", Right: true, Rank: 2},
		{Head: "× accumulation", Right: true, Rank: 3},
		{Head: "= effective", Right: true, Rank: 1},
		{Head: "parameters"},
	}
	for _, m := range p.Models {
		fit := plannedFit(p, m)
		s.add(m.Name, fmt.Sprint(fit.BatchSize), fmt.Sprint(fit.GradAccum), fmt.Sprint(p.Settings.EffectiveBatch), params(m.Params))
	}
	set := p.Settings
	s.say(
		fmt.Sprintf("Device %s, precision %s, LoRA rank %d, seed %d.", set.Device, set.Precision, set.LoRARank, set.Seed),
		fmt.Sprintf("A checkpoint every %s, the last %d are kept; store: %s.", set.CheckpointEvery, set.Keep, cmp.Or(p.Store, "none")),
	)
	return s.view()
}

func models(n int) string {
	if n == 1 {
		return "1 model"
	}
	return fmt.Sprintf("%d models", n)
}
