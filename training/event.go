package training

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"outlast/checkpoint/durable"
)

const (
	// maxEvent bounds one line of a worker, in bytes.
	maxEvent = 1 << 20
	// maxNote bounds what a worker may tell the user, in bytes.
	maxNote = 4 << 10
	// maxGarbage is how many bad lines of one worker are logged.
	maxGarbage = 10
	// goodbye is how long a worker may take to end, without a sign of life, once
	// it has said that it failed or paused; goodbyeDone, once it has finished: its
	// program may have more to do. A thread that will not end must not hold up
	// the models behind it.
	goodbye     = 2 * time.Minute
	goodbyeDone = 10 * time.Minute
)

// A progress is how far a worker is, and how fast.
type progress struct {
	step, total int64
	at          time.Time // of step
	firstStep   int64
	first       time.Time // of firstStep
}

// read handles the worker's events, one after the other, until it closes them.
// group is the worker's process group.
func (a *attempt) read(ctx context.Context, events io.Reader, group int) {
	lines := bufio.NewReaderSize(events, pipeSize)
	for {
		if buffered, _ := lines.Peek(lines.Buffered()); !bytes.Contains(buffered, []byte{'\n'}) {
			if err := a.flush(ctx); err != nil { // it may be long until the next event
				a.reject("metrics not kept", err)
			}
		}
		line, err := readLine(lines, maxEvent)
		if errors.Is(err, errLong) {
			a.reject("event not read", fmt.Errorf("a line has more than %d bytes", maxEvent))
			continue
		}
		if err != nil {
			return // closed; half a line is no event
		}
		a.life.Add(1)
		a.disk.mu.Lock()   // the worker waits, with us, for the space that a checkpoint lacks
		a.disk.mu.Unlock() //nolint:staticcheck // see above
		e, err := ParseEvent(line)
		if err == nil {
			err = a.handle(ctx, e)
		}
		if refusal := (*refusal)(nil); errors.As(err, &refusal) && a.refused == "" {
			a.refused = refusal.text
			killGroup(group) //nolint:errcheck // it may just have gone
		} else if err != nil {
			a.reject("event not handled", err)
		}
	}
}

// reject logs what is wrong with an event; not all of it, if that is much.
func (a *attempt) reject(what string, err error) {
	if a.garbage++; a.garbage <= maxGarbage {
		a.s.Log.Error("bad event", "what", what, "model", a.model.Name, "attempt", a.number, "error", err)
	}
}

// A refusal ends the attempt.
type refusal struct{ text string }

func (r *refusal) Error() string { return r.text }

func (a *attempt) handle(ctx context.Context, e Event) error {
	switch e.Kind {
	case EventHello:
		if e.Protocol != ProtocolVersion {
			return &refusal{fmt.Sprintf("its worker speaks protocol %d, and we speak %d. This usually means that another version of the outlast module is on PYTHONPATH, or installed in its Python", e.Protocol, ProtocolVersion)}
		}
		a.speaker.Store(int64(e.PID))
		a.module, a.python = e.Python != "", e.Python
	case EventRestored:
		a.versions(ctx, e)
		if a.heard.first.IsZero() && a.saver.idle() { // else it has trained already
			a.reached = e.Step
			a.redone = a.s.history(a.model).redone(e.Step) // more, if it did not take the checkpoint
			a.startLogged(e.Step)
			if a.unkept == nil {
				a.unkept = a.persist(ctx, func() error { return a.openMetrics(e.Step) })
			}
			return a.unkept
		}
	case EventProgress:
		a.progress(e)
	case EventMetrics:
		return a.keep(ctx, e)
	case EventCheckpoint:
		return a.take(e)
	case EventFinish:
		a.finished = &e
		a.reached = max(a.reached, e.Step)
		a.farewell.Store(int64(goodbyeDone))
	case EventPaused:
		a.paused = true
		a.farewell.Store(int64(goodbye))
	case EventFailed:
		a.failed = &e
		a.farewell.Store(int64(goodbye))
	case EventNote:
		a.note(ctx, e)
	default:
		a.reject("unknown event left aside", fmt.Errorf("event %q", string(e.Kind)))
	}
	return nil
}

// note passes on what the worker has to say to the user, once.
func (a *attempt) note(ctx context.Context, e Event) {
	text := a.model.Name + ": " + e.Message
	if e.Failure == failureDiskFull { // it trains on, with nothing to go back to
		text = a.model.Name + ": the disk was full and a checkpoint could not be written; it is tried again when the next one is due (" + e.Message + ")"
		a.disk.waiting.Add(1)
		if a.s.roomFor(ctx, a.model.Name, firstSpace) == nil {
			a.s.complain(a.model.Name, "", "")
		}
		a.disk.waiting.Add(-1)
	}
	if len(text) > maxNote || e.Message == "" || a.told[text] {
		return
	}
	if a.told == nil {
		a.told = map[string]bool{}
	}
	if a.told[text] = true; len(a.told) <= maxNotes {
		a.s.note(a.model.Name, text)
	}
}

// keep adds to the metrics. A line that cannot be kept must not be missing before
// a checkpoint.
func (a *attempt) keep(ctx context.Context, e Event) error {
	renameTaken(e.Values)
	a.s.change(func(st *Status) {
		m := &st.Models[a.index]
		if m.Metrics == nil {
			m.Metrics = map[string]any{}
		}
		maps.Copy(m.Metrics, e.Values)
	})
	a.log(e.Values)
	if a.unkept != nil {
		return a.unkept
	}
	err := a.metrics.Hold(Point{Step: e.Step, Time: e.Time, Values: e.Values})
	if isFull(err) {
		return a.flush(ctx)
	}
	a.unkept = err
	return err
}

// flush writes the metrics to their file: several at a time, as a write for each
// step costs the worker some of its processor.
func (a *attempt) flush(ctx context.Context) error {
	if a.unkept == nil && a.metrics != nil {
		a.unkept = a.persist(ctx, func() error { return a.metrics.Flush() })
	}
	return a.unkept
}

// take hands a staged checkpoint to the saver.
func (a *attempt) take(e Event) error {
	if !a.staged(e.Path) || e.Step < 0 {
		return &refusal{fmt.Sprintf("it handed over %q as the checkpoint of step %d: a checkpoint is a new folder in $OUTLAST_STAGING", e.Path, e.Step)}
	}
	a.reached = max(a.reached, e.Step)
	if a.unkept != nil {
		return fmt.Errorf("checkpoint of step %d left aside: %w", e.Step, a.unkept)
	}
	e.Metrics = a.numbers()
	a.dropLast()
	if e.Reason == reasonEnd {
		a.last = &e
		return nil
	}
	a.saver.put(e)
	return nil
}

// dropLast forgets what the program was about to end with: it went on, or ended
// badly.
func (a *attempt) dropLast() {
	if a.last != nil {
		a.release(a.last.Path)
		a.last = nil
	}
}

// within reports whether path is a folder, and no link, below dir.
func within(dir, path string) bool {
	info, err := os.Lstat(path)
	if err != nil || !info.IsDir() {
		return false
	}
	if rel, err := filepath.Rel(dir, path); err == nil && filepath.IsLocal(rel) && rel != "." {
		return true
	}
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return false
	}
	return strings.HasPrefix(resolved, dir+string(filepath.Separator))
}

func (a *attempt) progress(e Event) {
	now := time.Now()
	h := &a.heard
	if h.first.IsZero() {
		h.first, h.firstStep = now, e.Step
	} else if e.Step > h.step {
		a.s.tempo.sawStep(now.Sub(h.at))
	}
	h.step, h.total, h.at = e.Step, e.Total, now
	a.seat.meter.mark(e.Step, now)
	a.reached = e.Step
	var eta *float64
	if did := e.Step - h.firstStep; did > 0 && e.Total >= e.Step {
		left := now.Sub(h.first).Seconds() / float64(did) * float64(e.Total-e.Step)
		eta = &left
	}
	before := a.s.history(a.model).seconds
	a.s.change(func(st *Status) {
		m := &st.Models[a.index]
		m.Step, m.TotalSteps, m.Seconds, m.ETASeconds = e.Step, e.Total, before+a.seconds(), eta
	})
}

// openMetrics cuts the metrics at the step that training goes on from, so that
// every step stands there once, and opens them. As long as that fails those that
// were open stay so.
func (a *attempt) openMetrics(step int64) error {
	before := a.metrics
	if before != nil {
		if err := before.Flush(); err != nil {
			return err
		}
	}
	path := a.path(metricsName)
	if err := cutMetrics(path, step); err != nil {
		return fmt.Errorf("cut metrics: %w", err)
	}
	log, err := durable.OpenLog(path)
	if err != nil {
		return err
	}
	a.metrics = log
	if before != nil {
		return before.Close()
	}
	return nil
}

// lastMetrics returns what the result is to say of itself.
func (a *attempt) lastMetrics() map[string]any {
	if a.finished != nil {
		return a.finished.Metrics
	}
	var m map[string]any
	a.s.change(func(st *Status) { m = maps.Clone(st.Models[a.index].Metrics) })
	return m
}
