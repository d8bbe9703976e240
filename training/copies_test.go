//go:build unix

package training_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"outlast/training"
	"outlast/training/trainingtest"
)

// A store may have a checkpoint before the status shows that it was saved.
func TestNewsOfTheStoreThatComesFirst(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "restore", "train 4 every 2", "finish"))
	s, v := supervisor(t, r)
	v.FailOn = func(call string, c training.Checkpoint) error {
		if call == "save" || call == "finish" {
			s.Mirrored(c.Model, c.Step, "handed")
		}
		return nil
	}
	require.NoError(t, s.Work(t.Context()))
	require.Equal(t, "handed", status(t, r).Models[0].Checkpoint.Durability)

	// The next one hears what the store has while it takes the run over.
	s, _ = supervisor(t, r)
	s.Mirrored("a", 4, "mirrored")
	require.NoError(t, s.Work(t.Context()))
	require.Equal(t, "mirrored", status(t, r).Models[0].Checkpoint.Durability)
}

// What the store has of a step is not what is saved at that step now.
func TestNewsOfAnotherCheckpointOfThatStep(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "restore", "train 4 every 2", "finish"))
	s, _ := supervisor(t, r)
	s.Mirrored("a", 4, "mirrored")
	require.NoError(t, s.Work(t.Context()))
	require.Equal(t, "local", status(t, r).Models[0].Checkpoint.Durability)
}
