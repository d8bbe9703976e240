package training

import (
	"time"

	"outlast/checkpoint/durable"
)

// EntryType is the kind of a ledger entry.
type EntryType string

// The kinds of ledger entries.
const (
	EntryTakeover EntryType = "takeover" // a supervisor began
	EntryStart    EntryType = "start"    // an attempt began
	EntryEnd      EntryType = "end"      // an attempt ended
	EntryNote     EntryType = "note"     // something the user should know
)

// An Entry is one line of ledger.jsonl.
type Entry struct {
	Time        time.Time  `json:"time"`
	Type        EntryType  `json:"type"`
	Generation  int64      `json:"generation"`
	Writer      string     `json:"writer,omitempty"`
	Model       string     `json:"model,omitempty"`
	Fingerprint string     `json:"fingerprint,omitempty"`
	Attempt     int        `json:"attempt,omitempty"`
	PID         int        `json:"pid,omitempty"`
	Settings    *Settings  `json:"settings,omitempty"`
	Fit         *Fit       `json:"fit,omitempty"` // how this attempt used the device
	FromStep    int64      `json:"from_step,omitempty"`
	Step        int64      `json:"step,omitempty"`
	Cause       Cause      `json:"cause,omitempty"`
	State       ModelState `json:"state,omitempty"` // of the model after the attempt
	ExitCode    int        `json:"exit_code,omitempty"`
	Signal      string     `json:"signal,omitempty"`
	Message     string     `json:"message,omitempty"`
	StepsRedone *int64     `json:"steps_redone,omitempty"` // of an end: from where the attempt began to where one before it had come
	Seconds     float64    `json:"seconds,omitempty"`
}

// readLedger returns the entries of a ledger. Lines that are none are left out:
// a ledger is a record for people, and one bad line must not hide the others.
func readLedger(path string) ([]Entry, error) {
	var entries []Entry
	err := durable.ReadLog(path, func(line []byte) error {
		var e Entry
		if decode(line, &e) == nil {
			entries = append(entries, e)
		}
		return nil
	})
	return entries, err
}

// A history is what the ledger tells about one model's present fingerprint.
type history struct {
	attempts int
	began    time.Time // the last one
	fit      *Fit      // of the last one
	from     int64     // the step at which the last one began
	stopped  int64     // the step that the last one is known to have come to, if it has no end
	seconds  float64
	reached  int64 // highest step of any attempt
	last     *Entry
	running  bool // a start without an end
	cold     bool // its workers are not forked any more
}

func histories(entries []Entry) map[string]*history {
	all := map[string]*history{}
	for i := range entries {
		e := &entries[i]
		if e.Type != EntryStart && e.Type != EntryEnd {
			continue
		}
		h := all[e.Model+" "+e.Fingerprint]
		if h == nil {
			h = &history{}
			all[e.Model+" "+e.Fingerprint] = h
		}
		if e.Type == EntryStart {
			h.attempts, h.running = e.Attempt, true
			h.began, h.fit, h.from = e.Time, e.Fit, e.FromStep
			continue
		}
		h.seconds += e.Seconds
		h.reached = max(h.reached, e.Step)
		h.last, h.running = e, false
	}
	return all
}

// redone returns how many of the steps that an attempt from a step on does were
// done before.
func (h *history) redone(from int64) int64 { return max(0, h.reached-from) }

// step returns how far the last attempt is known to have come.
func (h *history) step() int64 {
	if h.running || h.last == nil {
		return h.stopped
	}
	return h.last.Step
}
