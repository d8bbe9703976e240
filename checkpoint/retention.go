package checkpoint

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"outlast/checkpoint/durable"
)

// prune removes the oldest checkpoints beyond Keep, and what lies before those
// that stay: put aside, never sealed, or of other code. Only sealed ones of the
// code of saved, which was written just now, count, and the best of them stays
// besides. Newer ones than saved stay: they belong to other code, or to nobody.
func (k *Keeper) prune(saved Manifest) error {
	steps, err := k.steps(saved.Model)
	if err != nil {
		return err
	}
	counted, beyond := 0, []int64{}
	oldest := saved.Step
	best := k.best(saved.Model, saved.Fingerprint, steps)
	for _, step := range steps {
		if step > saved.Step {
			continue
		}
		if counted == max(k.Keep, 1) {
			if step != best {
				beyond = append(beyond, step)
			}
			continue
		}
		m, err := manifestOf(k.step(saved.Model, step))
		if err == nil && m.Fingerprint == saved.Fingerprint && m.Step == step {
			counted, oldest = counted+1, step
		}
	}
	if counted < max(k.Keep, 1) {
		return nil // there may be worse than what lies about
	}
	for _, step := range beyond {
		if err := removeCheckpoint(k.step(saved.Model, step)); err != nil {
			return err
		}
	}
	return k.pruneAside(saved.Model, oldest)
}

// best returns the step of the best checkpoint of this code; -1 if none is asked
// for, or known.
func (k *Keeper) best(model, fingerprint string, steps []int64) int64 {
	if k.Best == (Best{}) {
		return -1
	}
	scores := make([]score, len(steps))
	for i, step := range steps {
		if m, err := manifestOf(k.step(model, step)); err == nil && m.Step == step {
			scores[i] = k.Best.score(m)
		}
	}
	if i := bestOf(scores, fingerprint); i >= 0 {
		return steps[i]
	}
	return -1
}

// removeCheckpoint removes a checkpoint's folder, its manifest first: a crash
// leaves no half checkpoint that looks whole.
func removeCheckpoint(path string) error {
	err := os.Remove(filepath.Join(path, ManifestName))
	if err == nil {
		err = durable.SyncDir(path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(path)
}

// pruneAside removes what was put aside of steps before oldest.
func (k *Keeper) pruneAside(model string, oldest int64) error {
	dir := k.model(model, checkpointsName)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		number, _, isAside := strings.Cut(e.Name(), ".")
		if step, err := strconv.ParseInt(number, 10, 64); err != nil || !isAside || step >= oldest {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
