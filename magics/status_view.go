package magics

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"outlast/training"
)

// view draws the table that %%train, %status and %attach show.
func (r report) view() View {
	s := sheet{Title: r.title(), Share: r.share(), Tone: runTone(r.State), Hidden: r.Hidden, Notes: r.notes()}
	running := r.State == training.RunRunning // then columns do not come and go
	s.Columns = []column{
		{Head: ""},
		{Head: "model"},
		{Head: "state", Rank: 1, Width: len("running")},
		{Head: "progress", Rank: 7, Keep: running, Width: barWidth},
		{Head: "step", Right: true, Keep: running, Width: len("100/1000")},
		{Head: "step time", Right: true, Rank: 8, Keep: running},
		{Head: cmp.Or(r.Loss, "loss"), Right: true, Rank: 2, Keep: running, Width: len("0.01234")},
		{Head: "", Rank: 9, Keep: running, Width: trendPoints}, // its curve
		{Head: "time", Right: true, Rank: 10, Keep: running, Width: len("12.3 s")},
		{Head: "ETA", Right: true, Rank: 4, Keep: running, Width: len("12.3 s")},
		{Head: "attempt", Rank: 6},
		{Head: "batch", Right: true, Rank: 5},
		{Head: "saved", Rank: 3, Keep: running, Width: len("final, mirrored")},
	}
	var models []training.ModelStatus
	retried := false
	for _, m := range r.Rows {
		models = append(models, m.ModelStatus)
		retried = retried || m.Attempts > 1
	}
	needs := needs(models)
	for i, m := range r.Rows {
		row := sheetRow{Cells: m.cells(r.Loss, retried), Kind: string(m.State), Need: needs[i]}
		if m.State == training.ModelPending {
			row.Tone = toneQuiet
		}
		s.Rows = append(s.Rows, row)
	}
	v := s.viewOf(len(s.Rows))
	v.Log, v.Final = r.log, r.State != training.RunRunning
	return v
}

func (m modelReport) cells(lossName string, retried bool) []sheetCell {
	tone := toneOf(m.State)
	word := string(m.State)
	progress, steps := sheetCell{}, stepsOf(m.ModelStatus)
	if m.TotalSteps > 0 && m.State != training.ModelPending {
		share := float64(m.Step) / float64(m.TotalSteps)
		progress = sheetCell{Bar: &share, Tone: tone}
	}
	loss := sheetCell{Text: number3(m.Metrics[lossName]), Tone: tonePlain}
	attempts := ""
	if retried && m.Attempts > 0 {
		attempts = fmt.Sprint(m.Attempts)
		if why := causeWord(m.Cause); why != "" && m.State == training.ModelRunning {
			attempts += " (" + why + ")"
		}
	}
	return []sheetCell{
		{Text: mark(m.State), Tone: tone},
		{Text: m.Name},
		{Text: word, Tone: tone},
		progress,
		{Text: steps},
		{Text: stepTime(m.ModelStatus)},
		loss,
		{Trend: m.Trend},
		{Text: timeOf(m.ModelStatus)},
		{Text: eta(m.ModelStatus)},
		{Text: attempts},
		{Text: m.batch()},
		{Text: saved(m.ModelStatus)},
	}
}

// batch says how each optimizer step is split, if that is not as planned.
func (m modelReport) batch() string {
	p := m.Planned
	if m.BatchSize == 0 || m.BatchSize == p.BatchSize && m.GradAccum == p.GradAccum {
		return ""
	}
	return fmt.Sprintf("%d × %d", m.BatchSize, m.GradAccum)
}

func (r report) title() string {
	count := map[training.ModelState]int{}
	seconds := 0.0
	for _, m := range r.Models {
		count[m.State]++
		seconds += m.Seconds
	}
	state := string(r.State)
	switch {
	case r.Pause:
		state = "pausing"
	case r.Ending:
		state = "saving and ending"
	}
	title := fmt.Sprintf("%s: %s, %d of %d models done", r.Run, state, count[training.ModelDone], len(r.Models))
	if n := count[training.ModelFailed]; n > 0 {
		title += fmt.Sprintf(", %d failed", n)
	}
	switch {
	case r.State == training.RunRunning && r.ETASeconds != nil && !r.Ending && !r.Pause:
		title += fmt.Sprintf(", about %s left", span(*r.ETASeconds))
	case r.State != training.RunRunning && seconds > 0:
		title += ", trained for " + span(seconds)
	}
	return title
}

// share returns how much of the run is done, counting models as equals.
func (r report) share() *float64 {
	if len(r.Models) == 0 {
		return nil
	}
	sum := 0.0
	for _, m := range r.Models {
		switch {
		case m.State == training.ModelDone || m.State == training.ModelFailed:
			sum++
		case m.TotalSteps > 0:
			sum += clamp(float64(m.Step) / float64(m.TotalSteps))
		}
	}
	share := sum / float64(len(r.Models))
	return &share
}

// notes says what a table cannot: where the copies go, what went wrong, what to
// type next.
func (r report) notes() []note {
	notes := []note{{Text: "Store: " + r.Store}}
	if r.Store == "" {
		notes[0].Text = "No store: checkpoints are on this machine only. --store FOLDER copies them."
	}
	if slices.ContainsFunc(r.Rows, func(m modelReport) bool { return m.Checkpoint != nil && m.Checkpoint.Durability == "handed" }) {
		notes[0].Text += "  (handed: written to that folder, which confirms nothing)"
	}
	for _, text := range r.GPUs {
		notes = append(notes, note{Text: text})
	}
	told := r.Notes
	if more := len(told) - shownNotes; more > 0 {
		notes = append(notes, note{Text: fmt.Sprintf("… %d earlier notes are in the run's ledger.jsonl", more)})
		told = told[more:]
	}
	for _, text := range told {
		notes = append(notes, note{Text: "! " + text, Tone: toneWarn})
	}
	notes = append(notes, r.interrupted()...)
	notes = append(notes, r.failures()...)
	if next := r.next(); next != "" {
		notes = append(notes, note{Text: next})
	}
	return notes
}

// interrupted says why models are paused that nobody paused.
func (r report) interrupted() []note {
	var reasons []string
	models := map[string][]string{}
	for _, m := range r.Rows {
		if m.State != training.ModelPaused || m.Error == "" {
			continue
		}
		reason := lastLine(m.Error)
		if models[reason] == nil {
			reasons = append(reasons, reason)
		}
		models[reason] = append(models[reason], m.Name)
	}
	var notes []note
	for _, reason := range reasons {
		notes = append(notes, note{Text: mark(training.ModelPaused) + " " + strings.Join(models[reason], ", ") + ": " + reason, Tone: toneWarn})
	}
	return notes
}

// failures says why models failed, with the end of what they printed.
func (r report) failures() []note {
	var notes []note
	var others []string
	for _, m := range r.Rows {
		if m.State != training.ModelFailed {
			continue
		}
		if len(notes) == shownFailures {
			others = append(others, m.Name)
			continue
		}
		text := fmt.Sprintf("%s %s failed: %s", mark(m.State), m.Name, lastLine(m.Error))
		if m.Cause == training.CauseHang {
			text += " (--hang-after 1h gives it longer)"
		}
		notes = append(notes, note{
			Text: text,
			Pre:  m.Log, Tone: toneBad,
			More: fmt.Sprintf("all of it: %slogs %s %s", r.Prompt, r.Run, m.Name),
		})
	}
	if len(others) > 0 {
		notes = append(notes, note{Text: fmt.Sprintf("%s failed too: %s", mark(training.ModelFailed), strings.Join(others, ", ")), Tone: toneBad})
	}
	return notes
}

// pausing is said from an interrupt to the end of the run.
const pausing = "Pausing: the workers save their models and the store is flushed. Interrupt again within 3 s to stop at once."

// next says what to type, unless a note says it already.
func (r report) next() string {
	resume := "resume " + r.Run
	if slices.ContainsFunc(r.Notes, func(n string) bool { return strings.Contains(n, resume) }) {
		return ""
	}
	switch {
	case r.Pause:
		return pausing
	case r.State == training.RunPaused:
		return r.Prompt + resume + " continues it."
	case r.Live && r.Prompt == "%":
		return "It runs on its own: closing this page or restarting the kernel does not stop it. Interrupting (■) pauses it."
	case r.Live:
		return "It runs on its own: closing this terminal does not stop it. Ctrl-C pauses it."
	}
	return ""
}

// log tells the report as lines of a log.
func (r report) log() []string {
	var lines []string
	for _, m := range r.Models {
		switch m.State {
		case training.ModelRunning:
			line := fmt.Sprintf("%s %s: running", mark(m.State), m.Name)
			if m.Attempts > 1 {
				line += fmt.Sprintf(", attempt %d", m.Attempts)
			}
			lines = append(lines, line)
		case training.ModelDone, training.ModelFailed, training.ModelPaused:
			line := fmt.Sprintf("%s %s: %s at step %d", mark(m.State), m.Name, m.State, m.Step)
			if loss := number3(m.Metrics[r.Loss]); loss != "" {
				line += fmt.Sprintf(", %s %s", r.Loss, loss)
			}
			if m.Seconds > 0 {
				line += ", after " + span(m.Seconds)
			}
			lines = append(lines, line)
		case training.ModelPending:
		}
	}
	for _, text := range r.Notes {
		lines = append(lines, "! "+text)
	}
	if r.Pause {
		lines = append(lines, pausing)
	}
	return lines
}
