package training

import (
	"sync"
	"time"
)

// A meter measures how fast one worker is. It is safe for concurrent use.
type meter struct {
	mu    sync.Mutex
	pid   int       // of the worker, and of its group; 0 if there is none
	from  time.Time // what comes earlier does not count
	first mark
	last  mark
}

// A mark is a step, and when it was completed.
type mark struct {
	step int64
	at   time.Time
}

const (
	// warmUp is left out of a measurement: the first steps after a change are not
	// like the others.
	warmUp = 250 * time.Millisecond
	// shortWindow is the least time that a rate is worth something after, if it
	// has manySteps; with fewSteps it takes longWindow.
	shortWindow = time.Second
	longWindow  = 10 * time.Second
	manySteps   = 20
	fewSteps    = 3
)

// begin is called when there is no worker yet.
func (m *meter) begin(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pid, m.from, m.first, m.last = 0, now.Add(warmUp), mark{}, mark{}
}

// started says which process it is about; 0 that it has ended.
func (m *meter) started(pid int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pid = pid
}

// worker returns the process; 0 if there is none.
func (m *meter) worker() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pid
}

// trains reports whether the worker has shown any progress.
func (m *meter) trains() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.last.at.IsZero()
}

// restart measures anew, from now on.
func (m *meter) restart(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.from, m.first = now.Add(warmUp), mark{}
}

// mark takes note of progress.
func (m *meter) mark(step int64, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last = (mark{step, now}); m.first.at.IsZero() && !now.Before(m.from) {
		m.first = m.last
	}
}

// A pace is what a meter shows.
type pace struct {
	rate float64       // steps a second
	span time.Duration // for which it was measured
}

// pace returns how fast the worker is; ok is false as long as that cannot be
// told. Few steps will do if they have taken long.
func (m *meter) pace(long time.Duration) (p pace, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.first.at.IsZero() {
		return pace{}, false
	}
	steps := m.last.step - m.first.step
	p.span = m.last.at.Sub(m.first.at)
	if p.span >= long && steps >= fewSteps || p.span >= shortWindow && steps >= manySteps {
		p.rate = float64(steps) / p.span.Seconds()
		return p, true
	}
	return p, false
}
