//go:build unix

package training_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/training"
	"outlast/training/trainingtest"
)

// versions returns what a run's file says of those.
func versions(t *testing.T, r *training.Run) map[string]string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(r.Dir(), "run.json"))
	require.NoError(t, err)
	var file struct{ Versions map[string]string }
	require.NoError(t, json.Unmarshal(data, &file))
	return file.Versions
}

// A toucher is a vault that remembers what it was to send.
type toucher struct {
	*trainingtest.Vault
	sent chan string
}

func (v toucher) Touch(names ...string) {
	for _, name := range names {
		v.sent <- name
	}
}

// What computed a run is known wherever it is gone on with; that it is another
// library now is said where it matters.
func TestARunKnowsWhatComputesIt(t *testing.T) {
	p := trainingtest.Plan("digits",
		trainingtest.Model("a", "hello", "restore", `@1 event {"event":"restored","versions":{"torch":"1.13","numpy":"1.26"}}`, "@1 train 4 every 2", "@1 fail device_lost X y",
			`@2 event {"event":"restored","step":4,"versions":{"torch":"2.4","numpy":"1.26"}}`, "@2 fail device_lost X y",
			`@3 event {"event":"restored","step":4,"versions":{"torch":"2.4","numpy":"1.26"}}`, "@3 train 5 every 1", "@3 signal KILL",
			`@4 event {"event":"restored","step":5,"versions":{"torch":"2.4","numpy":"1.26"}}`, "train 6 every 2", "finish"),
		trainingtest.Model("b", "hello", "restore", `event {"event":"restored","versions":{"torch":"2.5"}}`, "train 2 every 2", "finish"))
	p.Versions = map[string]string{training.VersionOutlast: "1.2.3"}
	r := createPlan(t, t.TempDir(), p)
	assert.Equal(t, map[string]string{"outlast": "1.2.3", "protocol": "1"}, versions(t, r))

	s, v := supervisor(t, r)
	sent := make(chan string, 9)
	s.Vault = toucher{v, sent}
	status, err := finish(t, s)
	require.ErrorIs(t, err, training.ErrPaused)
	assert.Equal(t, map[string]string{"outlast": "1.2.3", "protocol": "1", "python": "none", "torch": "1.13", "numpy": "1.26"}, versions(t, r), "as the first worker said")
	require.Len(t, sent, 2, "the store has it before the machine is lost, and no more often than there is news: its Python, its libraries")
	require.Equal(t, "run.json", <-sent)
	for _, note := range status.Notes {
		assert.NotContains(t, note, "goes on with torch", "what this supervisor began is no news")
	}

	plan := r.Plan()
	plan.Versions = map[string]string{training.VersionOutlast: "1.3.0"}
	r, changes, err := training.Create(r.DataDir(), plan, false)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, changes.Kept, "they are no part of a fingerprint")
	assert.Equal(t, map[string]string{"outlast": "1.3.0", "protocol": "1", "python": "none", "torch": "1.13", "numpy": "1.26"}, versions(t, r))
	status, err = work(t, r)
	require.NoError(t, err)
	assert.Equal(t, "2.4", versions(t, r)["torch"])
	assert.Contains(t, status.Notes, "a: trained with torch 1.13 before, and goes on with torch 2.4 from step 4: its result is as good, but not the same to the last bit.")
	said := slices.DeleteFunc(status.Notes, func(note string) bool { return !strings.Contains(note, "goes on with torch") })
	assert.Len(t, said, 1, "what goes on from a checkpoint of this supervisor is no news: %v", status.Notes)
	assert.NotContains(t, said[0], "numpy", "it is the same")
}

// Runs that were made before there were versions go on.
func TestARunWithoutVersionsGoesOn(t *testing.T) {
	r := create(t, trainingtest.Model("a", "hello", "restore", "@1 train 4 every 2", "@1 fail device_lost X y", "@2 fail device_lost X y",
		`event {"event":"restored","step":4,"versions":{"torch":"2.4"}}`, "train 6 every 2", "finish"))
	_, err := work(t, r)
	require.ErrorIs(t, err, training.ErrPaused)
	path := filepath.Join(r.Dir(), "run.json")
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	var old map[string]any
	require.NoError(t, json.Unmarshal(data, &old))
	delete(old, "versions")
	data, err = json.Marshal(old)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, data, 0o644))
	r, err = training.Find(r.DataDir(), "")
	require.NoError(t, err)
	status, err := work(t, r)
	require.NoError(t, err)
	assert.Empty(t, status.Notes)
	assert.Equal(t, map[string]string{"python": "none", "torch": "2.4"}, versions(t, r))
	requireExact(t, r, "a", 6)
}
