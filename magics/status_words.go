package magics

import (
	"fmt"
	"strings"

	"outlast/training"
)

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

func toneOf(s training.ModelState) tone {
	switch s {
	case training.ModelDone:
		return toneGood
	case training.ModelRunning:
		return toneBusy
	case training.ModelPaused:
		return toneWarn
	case training.ModelFailed:
		return toneBad
	case training.ModelPending:
	}
	return tonePlain
}

func runTone(s training.RunState) tone {
	switch s {
	case training.RunRunning:
		return toneBusy
	case training.RunPaused:
		return toneWarn
	case training.RunFailed:
		return toneBad
	case training.RunDone:
	}
	return toneGood
}

// causeWord says in a word or two how an attempt ended that nobody wanted to
// end.
func causeWord(c training.Cause) string {
	switch c {
	case training.CauseKilled:
		return "killed"
	case training.CauseLost:
		return "lost"
	case training.CauseDiskFull:
		return "disk full"
	case training.CauseDeviceOOM:
		return "GPU memory"
	case training.CauseHostOOM:
		return "memory"
	case training.CauseDeviceLost:
		return "GPU lost"
	case training.CauseHang:
		return "hung"
	case training.CauseCrash:
		return "crashed"
	case training.CauseError:
		return "error"
	case training.CauseDone, training.CausePaused:
	}
	return ""
}

func stepsOf(m training.ModelStatus) string {
	switch {
	case m.Step == 0 && m.TotalSteps == 0:
		return ""
	case m.TotalSteps == 0:
		return fmt.Sprint(m.Step)
	}
	return fmt.Sprintf("%d/%d", m.Step, m.TotalSteps)
}

// stepTime is what a step takes: the pace at which the rest was estimated.
func stepTime(m training.ModelStatus) string {
	left := m.TotalSteps - m.Step
	if m.State != training.ModelRunning || m.ETASeconds == nil || left <= 0 || *m.ETASeconds <= 0 {
		return ""
	}
	return pace(*m.ETASeconds / float64(left))
}

func timeOf(m training.ModelStatus) string {
	if m.Seconds <= 0 {
		return ""
	}
	return span(m.Seconds)
}

func eta(m training.ModelStatus) string {
	if m.State != training.ModelRunning || m.ETASeconds == nil {
		return ""
	}
	return span(*m.ETASeconds)
}

// saved says up to which step a model is saved, and how well.
func saved(m training.ModelStatus) string {
	switch {
	case m.Checkpoint == nil:
		return ""
	case m.State == training.ModelDone:
		return "final, " + m.Checkpoint.Durability
	}
	return fmt.Sprintf("step %d, %s", m.Checkpoint.Step, m.Checkpoint.Durability)
}

// lastLine returns the line of a traceback that says what it is about.
func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
