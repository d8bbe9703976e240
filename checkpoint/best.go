package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path"
	"strings"
)

// A Best says which checkpoint of a model is the best, and stays however old it
// is: the one whose metric is the lowest, or the highest. The zero value asks for
// none.
type Best struct {
	Metric string
	Max    bool // the highest
}

// ParseBest reads METRIC, METRIC:min or METRIC:max; nothing asks for none.
func ParseBest(text string) (Best, error) {
	if text == "" {
		return Best{}, nil
	}
	metric, way := text, "min"
	if i := strings.LastIndexByte(text, ':'); i >= 0 {
		metric, way = text[:i], text[i+1:]
	}
	if metric == "" || way != "min" && way != "max" {
		return Best{}, fmt.Errorf("the best is told by METRIC, METRIC:min or METRIC:max, not by %q", text)
	}
	return Best{metric, way == "max"}, nil
}

// String returns what ParseBest reads.
func (b Best) String() string {
	switch {
	case b.Metric == "":
		return ""
	case b.Max:
		return b.Metric + ":max"
	}
	return b.Metric + ":min"
}

// A score is how good a checkpoint is; only those of one fingerprint can be
// compared.
type score struct {
	fingerprint string
	value       float64 // the higher the better
	known       bool
}

// score returns what a manifest says of the metric. What is no number is not
// known to be good.
func (b Best) score(m Manifest) score {
	value, ok := m.Metrics[b.Metric].(float64)
	if !ok || b.Metric == "" || math.IsNaN(value) || m.Final {
		return score{fingerprint: m.Fingerprint}
	}
	if !b.Max {
		value = -value
	}
	return score{m.Fingerprint, value, true}
}

// better reports whether s is better than t. Of two that are as good neither is.
func (s score) better(t score) bool {
	return s.known && (!t.known || s.value > t.value)
}

// bestOf returns which of these, in the order of their steps from the newest on,
// is the best with this fingerprint; -1 if none is known. Of those that are as
// good it is the first that was saved: what was measured was nearest to it.
func bestOf(scores []score, fingerprint string) int {
	best := -1
	for i, s := range scores {
		if s.known && s.fingerprint == fingerprint && (best < 0 || !scores[best].better(s)) {
			best = i
		}
	}
	return best
}

// BestInStore returns by what the best checkpoints of a run are told, as its plan
// in the store says.
func BestInStore(ctx context.Context, store Store, run string) (Best, error) {
	data, err := fetch(ctx, store, path.Join(run, runFile), maxRunFile)
	if errors.Is(err, ErrNotFound) {
		return Best{}, nil
	}
	if err != nil {
		return Best{}, fmt.Errorf("read the plan of %s: %w", run, err)
	}
	var plan struct {
		Settings struct {
			KeepBest string `json:"keep_best"`
		} `json:"settings"`
	}
	if err := json.Unmarshal(data, &plan); err != nil { // it might have asked to keep what is about to go
		return Best{}, &planError{run, err}
	}
	return ParseBest(plan.Settings.KeepBest)
}

// A planError is a plan in a store that cannot be read.
type planError struct {
	run string
	err error
}

func (e *planError) Error() string {
	return "read the plan of run " + e.run + " in the store: it is damaged: " + e.err.Error()
}

func (e *planError) Unwrap() error { return e.err }

// Cure says what to do.
func (e *planError) Cure() string {
	return "say which to keep with --keep-best METRIC; where the run's folder still is, resuming it writes the plan anew"
}
