package magics

import (
	"fmt"
	"strings"

	"outlast/training"
)

// statusView draws the table that %%train, %status and %attach show.
func statusView(s training.Status, prompt string) View {
	g := grid{
		Title:  statusTitle(s),
		Header: []string{"", "model", "state", "step", "loss", "ETA", "attempt", "checkpoint"},
		Right:  []bool{false, false, false, true, true, true, true, false},
	}
	var key strings.Builder
	fmt.Fprintf(&key, "%s", s.State)
	for _, m := range s.Models {
		g.Rows = append(g.Rows, []string{
			mark(m.State), m.Name, string(m.State), steps(m), loss(m), eta(m), attempt(m), saved(m),
		})
		fmt.Fprintf(&key, " %s/%d", m.State, m.Attempts)
	}
	g.Notes = statusNotes(s, prompt)
	v := g.view()
	v.Key = key.String()
	return v
}

func statusTitle(s training.Status) string {
	done := 0
	for _, m := range s.Models {
		if m.State == training.ModelDone {
			done++
		}
	}
	title := fmt.Sprintf("%s: %s, %d of %d models done", s.Run, s.State, done, len(s.Models))
	if s.State == training.RunRunning && s.ETASeconds != nil {
		title += fmt.Sprintf(", about %s left", span(*s.ETASeconds))
	}
	return title
}

// statusNotes says what a table cannot: where the copies go, what went wrong,
// what to type next.
func statusNotes(s training.Status, prompt string) []string {
	var notes []string
	if s.Store == "" {
		notes = append(notes, "No store: checkpoints are on this machine only.")
	} else {
		notes = append(notes, "Store: "+s.Store)
	}
	notes = append(notes, s.Notes...)
	for _, m := range s.Models {
		if m.State != training.ModelFailed {
			continue
		}
		notes = append(notes, fmt.Sprintf("✗ %s: %s", m.Name, lastLine(m.Error)))
		notes = append(notes, fmt.Sprintf("  %slogs %s %s shows all of it.", prompt, s.Run, m.Name))
	}
	return notes
}

// mark tells the states apart without colour.
func mark(s training.ModelState) string {
	switch s {
	case training.ModelDone:
		return "✓"
	case training.ModelRunning:
		return "▶"
	case training.ModelPaused:
		return "‖"
	case training.ModelFailed:
		return "✗"
	case training.ModelPending:
		return "·"
	}
	return "?"
}

func steps(m training.ModelStatus) string {
	switch {
	case m.Step == 0 && m.TotalSteps == 0:
		return ""
	case m.TotalSteps == 0:
		return fmt.Sprint(m.Step)
	}
	return fmt.Sprintf("%d/%d", m.Step, m.TotalSteps)
}

func loss(m training.ModelStatus) string {
	for _, name := range []string{"loss", "train_loss"} {
		if v, ok := m.Metrics[name]; ok {
			return number3(v)
		}
	}
	return ""
}

func eta(m training.ModelStatus) string {
	if m.State != training.ModelRunning || m.ETASeconds == nil {
		return ""
	}
	return span(*m.ETASeconds)
}

func attempt(m training.ModelStatus) string {
	if m.Attempts == 0 {
		return ""
	}
	return fmt.Sprint(m.Attempts)
}

func saved(m training.ModelStatus) string {
	if m.Checkpoint == nil {
		return ""
	}
	return fmt.Sprintf("step %d, %s", m.Checkpoint.Step, m.Checkpoint.Durability)
}

// lastLine returns the line of a traceback that says what it is about.
func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// planView shows what a dry run would do.
func planView(p *training.Plan) View {
	g := grid{
		Title:  fmt.Sprintf("%s: %d models, nothing started", p.Run, len(p.Models)),
		Header: []string{"model", "batch", "×", "effective", "parameters"},
		Right:  []bool{false, true, true, true, false},
	}
	for _, m := range p.Models {
		batch, accum := p.Settings.BatchSize, p.Settings.GradAccum
		if m.BatchSize > 0 {
			batch, accum = m.BatchSize, m.GradAccum
		}
		g.Rows = append(g.Rows, []string{
			m.Name, fmt.Sprint(batch), fmt.Sprint(accum), fmt.Sprint(p.Settings.EffectiveBatch), params(m.Params),
		})
	}
	s := p.Settings
	g.Notes = []string{fmt.Sprintf("%s, %s, seed %d, a checkpoint every %s, store %s.",
		s.Device, s.Precision, s.Seed, s.CheckpointEvery, orNone(p.Store))}
	return g.view()
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
