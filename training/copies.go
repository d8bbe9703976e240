package training

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
)

// copies remembers what the store has said of each model's checkpoints: it may
// say so before the status shows that checkpoint. The zero value is ready; it is
// safe for concurrent use.
type copies struct {
	mu   sync.Mutex
	said map[string]map[saved]string // model → checkpoint → durability
}

// saved names a checkpoint of a model. The final one has the step of an ordinary
// one, and is another.
type saved struct {
	step  int64
	final bool
}

// heard takes note of what the store has said.
func (c *copies) heard(model string, which saved, durability string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.note(model, which, durability)
}

// note is heard; the caller has mu.
func (c *copies) note(model string, which saved, durability string) {
	if c.said == nil {
		c.said = map[string]map[saved]string{}
	}
	if c.said[model] == nil {
		c.said[model] = map[saved]string{}
	}
	c.said[model][which] = durability
}

// begin takes note of what was known of the results before. What was heard since
// counts more.
func (c *copies) begin(s Status) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range s.Models {
		if m.State == ModelDone && m.Checkpoint != nil && c.said[m.Name] == nil {
			c.note(m.Name, saved{m.Checkpoint.Step, true}, m.Checkpoint.Durability)
		}
	}
}

// forget is called before a checkpoint is saved: what was said of an earlier one
// of the same step is not true of it, and what was said of others is of no use
// any more.
func (c *copies) forget(model string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.said, model)
}

// status returns how a checkpoint is shown: as safe as the store has said that
// it is, or as it is on this disk.
func (c *copies) status(k Checkpoint) *CheckpointStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &CheckpointStatus{k.Step, k.Durability, k.Path}
	if said, ok := c.said[k.Model][saved{k.Step, k.Final}]; ok {
		s.Durability = said
	}
	return s
}

// confirmedName is where the mirror notes what the store has said.
const confirmedName = "mirrored.json"

// confirmations is what is there.
type confirmations struct {
	Store string `json:"store"`
	Said  map[string]struct {
		SHA256     string `json:"sha256"` // of the manifest
		Durability string `json:"durability"`
	} `json:"said"` // by model/final, and by model/checkpoints for the latest
}

// confirmations returns what the run's store has said, as far as that is known:
// what cannot be read, or is another store's word, was not said.
func (r *Run) confirmations() (c confirmations) {
	data, err := os.ReadFile(r.path(confirmedName))
	if err != nil || json.Unmarshal(data, &c) != nil || c.Store != r.plan.Store || c.Store == "" {
		return confirmations{}
	}
	return c
}

// result returns how a model's final checkpoint in dir is shown.
func (c confirmations) result(model, dir string, step int64) *CheckpointStatus {
	s := &CheckpointStatus{step, "local", dir}
	said, ok := c.Said[model+"/final"]
	if !ok {
		return s
	}
	data, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if sum := sha256.Sum256(data); err == nil && hex.EncodeToString(sum[:]) == said.SHA256 {
		s.Durability = said.Durability
	}
	return s
}
