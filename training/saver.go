package training

import (
	"context"
	"os"
	"sync"
)

// A saver makes the checkpoints of one attempt durable behind the worker's
// back, so that reading its events never waits for a disk. A newer checkpoint
// that was merely due takes the place of one that still waits.
type saver struct {
	a    *attempt
	done chan struct{}

	mu      sync.Mutex
	queue   []Event
	closed  bool
	changed *sync.Cond
	saved   Checkpoint
	err     error // of the last save
}

func newSaver(a *attempt) *saver {
	s := &saver{a: a, done: make(chan struct{})}
	s.changed = sync.NewCond(&s.mu)
	go s.loop()
	return s
}

// put hands a staged checkpoint over. It does not block.
func (s *saver) put(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.queue); n > 0 && s.queue[n-1].Reason == reasonDue {
		os.RemoveAll(s.queue[n-1].Path) //nolint:errcheck // a leftover is swept before the next attempt
		s.queue = s.queue[:n-1]
	}
	s.queue = append(s.queue, e)
	s.changed.Signal()
}

// close waits until everything handed over is durable.
func (s *saver) close() {
	s.mu.Lock()
	s.closed = true
	s.changed.Signal()
	s.mu.Unlock()
	<-s.done
}

// last returns the newest checkpoint of this attempt; its Path is empty if
// there is none. failure returns why the newest one could not be saved.
func (s *saver) last() Checkpoint { return s.saved }

func (s *saver) failure() error { return s.err }

func (s *saver) loop() {
	defer close(s.done)
	for {
		s.mu.Lock()
		for len(s.queue) == 0 && !s.closed {
			s.changed.Wait()
		}
		if len(s.queue) == 0 {
			s.mu.Unlock()
			return
		}
		e := s.queue[0]
		s.queue = s.queue[1:]
		s.mu.Unlock()
		s.save(e)
	}
}

// save makes one checkpoint durable: first the metrics of its steps, so that a
// resume from it finds every step before it.
func (s *saver) save(e Event) {
	a := s.a
	if s.err = a.metrics.Sync(); s.err != nil {
		return
	}
	var c Checkpoint
	// Not bound to a pause: what was handed over is saved.
	if c, s.err = a.s.Vault.Save(context.Background(), a.checkpoint(e.Step), e.Path); s.err != nil {
		a.s.Log.Error("checkpoint not saved", "model", a.model.Name, "step", e.Step, "error", s.err)
		return
	}
	s.saved = c
	a.s.change(true, func(st *Status) {
		st.Models[a.index].Checkpoint = &CheckpointStatus{c.Step, c.Durability, c.Path}
	})
}
