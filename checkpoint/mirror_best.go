package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"path"
	"slices"
)

// best reports whether old, which a newer one would overtake, is the best of all
// that wait: then it is copied as well. The caller has mu.
func (s *mirrorState) best(old, newer item) bool {
	beats := func(other item) bool {
		return !old.overtakes(other) || other.step == old.step || old.score.better(other.score)
	}
	return old.score.known && old.step != newer.step && beats(newer) && !slices.ContainsFunc(s.queue, func(other item) bool { return !beats(other) })
}

// bestThere returns the folder of the best of these checkpoints, of the code of
// it, which is in folder; empty if none is asked for, or known. Each manifest is
// read once.
func (m *Mirror) bestThere(ctx context.Context, it *item, folder string, there []Stored) (string, error) {
	if m.Best == (Best{}) {
		return "", nil
	}
	if m.scores == nil {
		m.scores = map[string]score{}
	}
	m.scores[folder] = it.score
	scores := make([]score, len(there))
	for i, c := range there {
		if c.State == StoredHalf {
			continue
		}
		known, ok := m.scores[c.Folder]
		if !ok {
			data, err := m.read(ctx, path.Join(c.Folder, ManifestName))
			if err != nil && !errors.Is(err, ErrNotFound) {
				return "", err
			}
			if manifest, err := ReadManifest(bytes.NewReader(data)); err == nil { // else it is not known to be good
				known = m.Best.score(manifest)
			}
			m.scores[c.Folder] = known
		}
		scores[i] = known
	}
	if i := bestOf(scores, it.score.fingerprint); i >= 0 {
		return there[i].Folder, nil
	}
	return "", nil
}

// catchUpBest queues the best checkpoint of a model, if that is not the newest:
// it may have been saved while the store could not be reached.
func (m *Mirror) catchUpBest(k *Keeper, model string) {
	steps, err := k.steps(model)
	if err != nil || len(steps) == 0 || m.Best == (Best{}) {
		return
	}
	newest, err := manifestOf(k.step(model, steps[0]))
	if err != nil {
		return // whose it would have to be is not known
	}
	k = &Keeper{Dir: k.Dir, Best: m.Best}
	if best := k.best(model, newest.Fingerprint, steps); best >= 0 && best != steps[0] {
		m.add(item{model: model, step: best, earlier: true}, k.step(model, best))
	}
}
