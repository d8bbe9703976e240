package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
)

// PruneOptions say what PruneStore keeps.
type PruneOptions struct {
	Keep       int  // good checkpoints of each model; at least 1
	Best       Best // which one is kept besides
	Superseded bool // remove also what was set aside
	DryRun     bool // remove nothing, and say what would be
}

// A PruneReport says what PruneStore has done, or would do.
type PruneReport struct {
	Run     string   `json:"run"`
	DryRun  bool     `json:"dry_run"`
	Bytes   int64    `json:"bytes"` // of what is removed
	Removed []Stored `json:"removed"`
	Kept    []Stored `json:"kept"`
}

// PruneStore removes old checkpoints of a run from a store. Of each model it
// keeps the newest ones that are good, which it reads to be sure of, and removes
// what has an earlier step than all of those. A model that has fewer good ones
// than are to be kept loses nothing; a final checkpoint stays always, and the
// best one. What has no manifest stays, too: it may be on its way, the first one
// of a new history perhaps; the rest of one is removed by who writes the run. If
// something cannot be read, nothing of its model is removed.
func PruneStore(ctx context.Context, store Store, run string, o PruneOptions) (PruneReport, error) {
	report := PruneReport{Run: run, DryRun: o.DryRun, Removed: []Stored{}, Kept: []Stored{}}
	inv, err := TakeInventory(ctx, store, run)
	if err != nil {
		return report, err
	}
	for model := range grouped(inv.Checkpoints) {
		oldest, err := oldestKept(ctx, store, model, max(o.Keep, 1))
		if err != nil {
			return report, err
		}
		best := o.Best.folder(model)
		for _, s := range model {
			needed := s.Final || s.State == StoredHalf || s.Step >= oldest || s.Folder == best
			if s.Superseded && !o.Superseded || !s.Superseded && needed {
				report.Kept = append(report.Kept, s)
				continue
			}
			if !o.DryRun {
				if err := deleteAll(ctx, store, s.names); err != nil {
					return report, fmt.Errorf("remove %s: %w", s.Folder, err)
				}
			}
			report.Removed = append(report.Removed, s)
			report.Bytes += s.Bytes
		}
	}
	return report, nil
}

// folder returns where the best checkpoint of a model is, of the code that the
// newest of the latest history is of; empty if it is not known.
func (b Best) folder(model []Stored) string {
	var there []Stored
	var scores []score
	for _, s := range model {
		if !s.Final && !s.Superseded && s.State != StoredHalf && s.State != StoredDamaged {
			there, scores = append(there, s), append(scores, b.score(s.manifest))
		}
	}
	if len(there) == 0 {
		return ""
	}
	newest := slices.MinFunc(there, newestFirst)
	if i := bestOf(scores, newest.manifest.Fingerprint); i >= 0 {
		return there[i].Folder
	}
	return ""
}

// newestFirst orders checkpoints: those of a later history are newer.
func newestFirst(a, b Stored) int {
	return cmp.Or(cmp.Compare(b.Generation, a.Generation), cmp.Compare(b.Step, a.Step))
}

// grouped yields the checkpoints of one model after the other.
func grouped(all []Stored) func(yield func([]Stored) bool) {
	return func(yield func([]Stored) bool) {
		for len(all) > 0 {
			n := slices.IndexFunc(all, func(s Stored) bool { return s.Model != all[0].Model })
			if n < 0 {
				n = len(all)
			}
			if !yield(all[:n]) {
				return
			}
			all = all[n:]
		}
	}
}

// oldestKept returns the lowest step of the newest checkpoints that are good, as
// many as are to be kept; what is below may go. Zero means that nothing may. The
// ones of a later history are newer.
func oldestKept(ctx context.Context, store Store, model []Stored, keep int) (int64, error) {
	var order []*Stored
	there := 0
	for i := range model {
		s := &model[i]
		if s.Final || s.Superseded {
			continue
		}
		there++
		if s.manifest.Format != 0 {
			order = append(order, s)
		}
	}
	if there <= keep {
		return 0, nil // there is nothing to remove: nothing has to be read
	}
	slices.SortStableFunc(order, func(a, b *Stored) int { return newestFirst(*a, *b) })
	oldest := int64(math.MaxInt64)
	for _, s := range order {
		if err := s.scrub(ctx, store); err != nil {
			return 0, err
		}
		switch s.State {
		case StoredUnknown:
			return 0, fmt.Errorf("verify %s before anything is removed: %w", s.Folder, errors.New(s.Problem))
		case StoredVerified:
			oldest = min(oldest, s.Step)
			if keep--; keep == 0 {
				return oldest, nil
			}
		case StoredDamaged, StoredHalf, StoredSealed:
		}
	}
	return 0, nil
}
