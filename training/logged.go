package training

import (
	"encoding/json"
	"maps"
)

// maxNumbers bounds what a checkpoint's manifest says of its metrics, in bytes
// of JSON: a manifest is read whole wherever checkpoints are looked at.
const maxNumbers = 64 << 10

// startLogged begins with what was known at the step that is gone on from.
func (a *attempt) startLogged(step int64) {
	a.logged = nil
	if a.from.Path != "" && step == a.from.Step {
		a.logged = maps.Clone(a.from.Metrics)
	}
}

// log takes note of what a step has logged.
func (a *attempt) log(values map[string]any) {
	if a.logged == nil {
		a.logged = map[string]any{}
	}
	maps.Copy(a.logged, values)
}

// numbers returns what is known of the metrics now, for the manifest of a
// checkpoint: numbers only, and none at all if they are too many.
func (a *attempt) numbers() map[string]any {
	found := map[string]any{}
	for name, value := range a.logged {
		if _, ok := value.(float64); ok {
			found[name] = value
		}
	}
	if data, err := json.Marshal(found); err != nil || len(data) > maxNumbers {
		return nil
	}
	return found
}
