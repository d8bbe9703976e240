package magics

import (
	"fmt"

	"outlast/training"
)

// A WorkError is how a run ended, or why that cannot be told, after %train or
// %resume had found or started its supervisor. Whatever else they return came
// before, and nothing was worked on.
type WorkError struct{ Err error }

func (e *WorkError) Error() string { return e.Err.Error() }

// Unwrap returns what happened.
func (e *WorkError) Unwrap() error { return e.Err }

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
