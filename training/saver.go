package training

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"outlast/checkpoint/durable"
)

// A saver makes the checkpoints of one attempt durable behind the worker's
// back, so that reading its events never waits for a disk that works. A newer
// checkpoint takes the place of one that was merely due and still waits.
type saver struct {
	a    *attempt
	done chan struct{}

	mu      sync.Mutex
	queue   []Event
	busy    bool // something was handed over
	closed  bool
	changed *sync.Cond
	saved   Checkpoint
	err     error // of the last save
}

// newSaver returns one that waits for a full disk until ctx ends.
func newSaver(ctx context.Context, a *attempt) *saver {
	s := &saver{a: a, done: make(chan struct{})}
	s.changed = sync.NewCond(&s.mu)
	go s.loop(ctx) // ended by close
	return s
}

// put hands a staged checkpoint over. It does not block.
func (s *saver) put(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.queue); n > 0 && s.queue[n-1].Reason == reasonDue {
		s.a.release(s.queue[n-1].Path)
		s.queue = s.queue[:n-1]
	}
	s.queue = append(s.queue, e)
	s.busy = true
	s.changed.Signal()
}

// idle reports whether nothing was handed over yet.
func (s *saver) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.busy
}

// close waits until everything handed over is durable, or has failed to be. It
// may be called twice.
func (s *saver) close() {
	s.mu.Lock()
	s.closed = true
	s.changed.Signal()
	s.mu.Unlock()
	<-s.done
}

// last returns the newest checkpoint of this attempt; its Path is empty if
// there is none.
func (s *saver) last() Checkpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saved
}

// failure returns why the newest one could not be saved.
func (s *saver) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *saver) loop(ctx context.Context) {
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
		c, err := s.save(ctx, e)
		s.mu.Lock()
		if s.err = err; err == nil {
			s.saved = c
		}
		s.mu.Unlock()
	}
}

// save makes one checkpoint durable: first the metrics of its steps, so that a
// resume from it finds every step before it.
func (s *saver) save(ctx context.Context, e Event) (c Checkpoint, err error) {
	a := s.a
	began := time.Now()
	defer a.release(e.Path)
	var lost error // what is left of it must not be saved
	err = a.persist(ctx, func() error {
		if err := a.metrics.Sync(); err != nil {
			return err
		}
		// Not bound to a pause: what was handed over is saved.
		a.s.copies.forget(a.model.Name)
		c = a.checkpoint(e.Step)
		c.Metrics = e.Metrics
		c, err = a.s.Vault.Save(context.WithoutCancel(ctx), c, e.Path)
		if errors.Is(err, durable.ErrLost) {
			lost, err = err, nil
		}
		return err
	})
	if err = cmp.Or(err, lost); err != nil {
		a.s.Log.ErrorContext(ctx, "checkpoint not saved", "model", a.model.Name, "step", e.Step, "error", err)
		return c, err
	}
	a.s.tempo.sawSave(time.Since(began))
	a.s.change(func(st *Status) {
		m := &st.Models[a.index]
		m.Checkpoint = a.s.copies.status(c)
		m.Step = max(m.Step, c.Step) // progress is told now and then only
	})
	return c, nil
}

// persist is the supervisor's, and lets the worker wait meanwhile: what it
// computes could not be saved.
func (a *attempt) persist(ctx context.Context, f func() error) error {
	err := f()
	if !isFull(err) {
		return err
	}
	a.disk.waiting.Add(1)
	defer a.disk.waiting.Add(-1)
	a.disk.mu.Lock()
	defer a.disk.mu.Unlock()
	return a.s.persist(ctx, a.model.Name, f)
}
