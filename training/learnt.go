package training

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
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
// without them it is learnt anew.
type lessons struct {
	path string
	all  []lesson
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
	i := l.index(m, set)
	if i < 0 {
		return lesson{}, false
	}
	return l.all[i], true
}

func (l *lessons) index(m Model, set Settings) int {
	return slices.IndexFunc(l.all, func(x lesson) bool {
		return x.Model == m.Name && x.Fingerprint == m.Fingerprint && x.Device == set.deviceName() && x.Precision == set.Precision
	})
}

// learn keeps a lesson about m.
func (l *lessons) learn(m Model, set Settings, x lesson) error {
	x.Model, x.Fingerprint, x.Device, x.Precision = m.Name, m.Fingerprint, set.deviceName(), set.Precision
	x.Time = time.Now().UTC().Truncate(time.Second)
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
