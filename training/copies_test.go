//go:build unix

package training_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
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
			s.Mirrored(c.Model, c.Step, call == "finish", "handed")
		}
		return nil
	}
	require.NoError(t, s.Work(t.Context()))
	require.Equal(t, "handed", status(t, r).Models[0].Checkpoint.Durability)

	// The next one hears what the store has while it takes the run over.
	s, _ = supervisor(t, r)
	s.Mirrored("a", 4, true, "mirrored")
	require.NoError(t, s.Work(t.Context()))
	require.Equal(t, "mirrored", status(t, r).Models[0].Checkpoint.Durability)
}

// What the store has of a step is not what is saved at that step now.
func TestNewsOfAnotherCheckpointOfThatStep(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "restore", "train 4 every 2", "finish"))
	s, _ := supervisor(t, r)
	s.Mirrored("a", 4, true, "mirrored")
	require.NoError(t, s.Work(t.Context()))
	require.Equal(t, "local", status(t, r).Models[0].Checkpoint.Durability)
}

// A result is made of a checkpoint that the store may have already, and is copied
// by itself.
func TestNewsOfTheCheckpointThatAResultIsMadeOf(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "restore", "train 4 every 2", "finish"), trainingtest.Model("b", "hello", "touch b.here", "await gate"))
	s, v := supervisor(t, r)
	v.FailOn = func(call string, c training.Checkpoint) error {
		if call == "finish" {
			s.Mirrored(c.Model, c.Step, false, "mirrored")
		}
		return nil
	}
	worked := make(chan error, 1)
	go func() { worked <- s.Work(t.Context()) }()
	until(t, "the result", func() bool { return status(t, r).Models[0].State == training.ModelDone })
	require.Equal(t, "local", status(t, r).Models[0].Checkpoint.Durability)
	here(t, r, "b")
	s.Mirrored("a", 4, true, "handed")
	s.Mirrored("a", 4, false, "mirrored")
	release(t, r)
	require.NoError(t, <-worked)
	require.Equal(t, "handed", status(t, r).Models[0].Checkpoint.Durability)
}

// What the store has said of a result is known also when nobody works: the
// mirror has noted it, for this store and this very result.
func TestWhatTheStoreSaidOfAResultIsNotForgotten(t *testing.T) {
	p := trainingtest.Plan("digits", trainingtest.Model("a", trainingtest.Good("4", "2")...))
	p.Store = "/copies"
	r := createPlan(t, t.TempDir(), p)
	_, err := work(t, r)
	require.NoError(t, err)
	manifest, err := os.ReadFile(filepath.Join(r.ModelPath("a", "final"), "manifest.json"))
	require.NoError(t, err)
	right := fmt.Sprintf("%x", sha256.Sum256(manifest))
	for name, test := range map[string]struct{ store, sha256, want string }{
		"its word":             {"/copies", right, "mirrored"},
		"of another result":    {"/copies", fmt.Sprintf("%x", sha256.Sum256(nil)), "local"},
		"another store's word": {"/elsewhere", right, "local"},
		"nobody's word":        {"", right, "local"},
	} {
		t.Run(name, func(t *testing.T) {
			said := fmt.Sprintf(`{"store":%q,"said":{"a/final":{"sha256":%q,"durability":"mirrored"}}}`, test.store, test.sha256)
			require.NoError(t, os.WriteFile(filepath.Join(r.Dir(), "mirrored.json"), []byte(said), 0o644))
			require.NoError(t, os.RemoveAll(filepath.Join(r.Dir(), "state.json")))
			require.Equal(t, test.want, status(t, r).Models[0].Checkpoint.Durability)
			_, err := work(t, r)
			require.NoError(t, err)
			require.Equal(t, test.want, status(t, r).Models[0].Checkpoint.Durability, "with a supervisor")
		})
	}
}
