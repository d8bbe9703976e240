package magics

import (
	"fmt"

	"outlast/training"
)

// outcome turns the state in which a run came to rest into an error, or nil.
func outcome(s training.Status, prompt string) error {
	switch s.State {
	case training.RunFailed:
		failed := 0
		first := ""
		for _, m := range s.Models {
			if m.State == training.ModelFailed {
				failed++
				if first == "" {
					first = m.Name
				}
			}
		}
		return &Problem{
			What: fmt.Sprintf("run %s: %d of %d models failed", s.Run, failed, len(s.Models)),
			Err:  ErrModelsFailed,
			Hint: fmt.Sprintf("%slogs %s %s shows why. Mend it and run the same cell or command again: finished models are kept.", prompt, s.Run, first),
		}
	case training.RunPaused:
		return &Problem{
			What: "run " + s.Run,
			Err:  ErrPaused,
			Hint: fmt.Sprintf("%sresume %s continues it.", prompt, s.Run),
		}
	case training.RunRunning, training.RunDone:
	}
	return nil
}
