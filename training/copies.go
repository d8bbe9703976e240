package training

import "sync"

// copies remembers what the store has said of each model's latest checkpoint:
// it may say so before the status shows that checkpoint. The zero value is
// ready; it is safe for concurrent use.
type copies struct {
	mu   sync.Mutex
	said map[string]copied
}

type copied struct {
	step       int64
	durability string
}

// heard takes note of what the store has said.
func (c *copies) heard(model string, step int64, durability string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.said == nil {
		c.said = map[string]copied{}
	}
	c.said[model] = copied{step, durability}
}

// forget is called before a checkpoint is saved: what was said of an earlier one
// of the same step is not true of it.
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
	if said, ok := c.said[k.Model]; ok && said.step == k.Step {
		s.Durability = said.durability
	}
	return s
}
