package training

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"

	"outlast/checkpoint/durable"
)

// A Point is what was logged in one step.
type Point struct {
	Step   int64
	Time   float64 // seconds since 1970
	Values map[string]any
}

// MarshalJSON writes step and time first, then the values beside them, as
// metrics.jsonl has them.
func (p Point) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"step":%d,"time":%.3f`, p.Step, p.Time)
	if len(p.Values) > 0 {
		values, err := json.Marshal(p.Values)
		if err != nil {
			return nil, err
		}
		b.WriteByte(',')
		b.Write(values[1 : len(values)-1])
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (p *Point) UnmarshalJSON(data []byte) error {
	if err := json.Unmarshal(data, &p.Values); err != nil {
		return err
	}
	step, ok := p.Values["step"].(float64)
	if !ok {
		return fmt.Errorf("a line of metrics has no step")
	}
	p.Step = int64(step)
	p.Time, _ = p.Values["time"].(float64)
	delete(p.Values, "step")
	delete(p.Values, "time")
	return nil
}

// renameTaken renames values that are called as what a line says itself: step
// and time to logged_step and logged_time.
func renameTaken(values map[string]any) {
	for _, taken := range []string{"step", "time"} {
		if v, ok := values[taken]; ok {
			values["logged_"+taken] = v
			delete(values, taken)
		}
	}
}

// Metrics returns what a model has logged, in the order of its steps. A line
// that is damaged is left out.
func (r *Run) Metrics(model string) ([]Point, error) {
	var points []Point
	err := durable.ReadLog(r.ModelPath(model, metricsName), func(line []byte) error {
		var p Point
		if json.Unmarshal(line, &p) == nil {
			points = append(points, p)
		}
		return nil
	})
	return points, err
}

// cutMetrics removes every line from step on: those steps are done again.
func cutMetrics(path string, step int64) error {
	var kept bytes.Buffer
	cut := false
	err := durable.ReadLog(path, func(line []byte) error {
		var p Point
		if json.Unmarshal(line, &p) != nil || p.Step >= step {
			cut = true
			return nil //nolint:nilerr // a damaged line is cut
		}
		kept.Write(line)
		kept.WriteByte('\n')
		return nil
	})
	if err != nil {
		return err
	}
	if info, err := os.Stat(path); err != nil || !cut && info.Size() == int64(kept.Len()) {
		return nil //nolint:nilerr // nothing to cut, or no file
	}
	_, err = durable.WriteFile(path, &kept, nil)
	return err
}
