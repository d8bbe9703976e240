package training

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"outlast/checkpoint/durable"
)

// learntFormat is the version of learnt.json.
const learntFormat = 1

// A lesson is what is known of one model, on one kind of device, with one
// precision.
type lesson struct {
	Model       string    `json:"model"`
	Fingerprint string    `json:"fingerprint"`
	Device      string    `json:"device"`
	Precision   string    `json:"precision"`
	Fit         Fit       `json:"fit"`  // what to begin with
	Fits        bool      `json:"fits"` // it was trained so to the end
	PeakMiB     float64   `json:"peak_mib,omitempty"`
	NeedMiB     float64   `json:"need_mib,omitempty"` // of what did not fit, as far as it got
	Time        time.Time `json:"time"`
}

// lessons are what a run has learnt. They are no part of what must survive:
// without them it is learnt anew. They are safe for concurrent use.
type lessons struct {
	path string

	mu  sync.Mutex
	all []lesson
}

type learntFile struct {
	Format  int      `json:"format"`
	Lessons []lesson `json:"lessons"`
}

// readLessons reads what was learnt. A file that cannot be read has taught
// nothing; the error says why.
func readLessons(path string) (*lessons, error) {
	l := &lessons{path: path}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, err
	}
	var f learntFile
	if err := json.Unmarshal(data, &f); err != nil {
		return l, fmt.Errorf("read %s: %w", path, err)
	}
	if f.Format == learntFormat {
		l.all = f.Lessons
	}
	return l, nil
}

// about returns the lesson about m under these settings.
func (l *lessons) about(m Model, set Settings) (lesson, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := l.index(m, set)
	if i < 0 {
		return lesson{}, false
	}
	return l.all[i], true
}

// peak returns what m is expected to have of the device at most, in MiB: what it
// had, or else what is usual among the models of the run. ok is false if nothing
// is known.
func (l *lessons) peak(m Model, set Settings) (peak float64, ok bool) {
	if own, ok := l.about(m, set); ok && max(own.PeakMiB, own.NeedMiB) > 0 {
		return max(own.PeakMiB, own.NeedMiB), true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var peaks []float64
	for _, x := range l.all {
		if x.PeakMiB > 0 && x.Device == set.deviceName() && x.Precision == set.Precision {
			peaks = append(peaks, x.PeakMiB)
		}
	}
	if len(peaks) == 0 {
		return 0, false
	}
	slices.Sort(peaks)
	return peaks[len(peaks)/2], true
}

// index finds the lesson about m; -1 if there is none. The caller has mu.
func (l *lessons) index(m Model, set Settings) int {
	return slices.IndexFunc(l.all, func(x lesson) bool {
		return x.Model == m.Name && x.Fingerprint == m.Fingerprint && x.Device == set.deviceName() && x.Precision == set.Precision
	})
}

// learn keeps a lesson about m.
func (l *lessons) learn(m Model, set Settings, x lesson) error {
	x.Model, x.Fingerprint, x.Device, x.Precision = m.Name, m.Fingerprint, set.deviceName(), set.Precision
	x.Time = time.Now().UTC().Truncate(time.Second)
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := l.index(m, set); i >= 0 {
		x.NeedMiB = max(x.NeedMiB, l.all[i].NeedMiB)
		x.PeakMiB = max(x.PeakMiB, l.all[i].PeakMiB)
		l.all[i] = x
	} else {
		l.all = append(l.all, x)
	}
	return durable.WriteJSON(l.path, learntFile{learntFormat, l.all})
}

// deviceName names the kind of device, as well as it is known.
func (s Settings) deviceName() string {
	if s.DeviceName != "" {
		return s.DeviceName
	}
	return s.Device
}
