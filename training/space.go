package training

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// roomShare is the part of a disk that is enough, however much was asked for: to
// wait for more than there can be would be to wait for ever.
const roomShare = 8

// spaceWait is how often a full disk is looked at again.
const spaceWait = 5 * time.Second

// A Pruner is a Vault that can make room: it removes what nobody would miss, such
// as all but the newest checkpoint of each model. It returns the bytes freed.
type Pruner interface {
	Prune(ctx context.Context) (freed uint64, err error)
}

// pause waits, unless ctx ends first.
func (s *Supervisor) pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	if s.Sleep != nil {
		return s.Sleep(ctx, d)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// persist does what needs the disk, again and again as long as the disk is full,
// until ctx ends. Meanwhile the model's status says so.
func (s *Supervisor) persist(ctx context.Context, model string, f func() error) error {
	err := f()
	if !isFull(err) {
		return err
	}
	s.Log.WarnContext(ctx, "disk full", "run", s.Run.Name(), "model", model, "error", err)
	for isFull(err) {
		s.prune(ctx)
		s.complain(model, CauseDiskFull, fullText(err))
		if s.pause(ctx, spaceWait) != nil {
			return err
		}
		err = f()
	}
	s.complain(model, "", "")
	return err
}

// roomFor waits until the disk has so many bytes free, or a fair part of a disk
// that is small. Its error is ctx's.
func (s *Supervisor) roomFor(ctx context.Context, model string, bytes uint64) error {
	for {
		s.prune(ctx)
		free, total, err := s.free()
		bytes = min(bytes, total/roomShare)
		if err != nil || free >= bytes { // where it cannot be told, trying tells
			return s.pause(ctx, 0)
		}
		s.complain(model, CauseDiskFull, fmt.Sprintf(
			"the disk is full: %s free in %s, and %s are needed. Free some space; it goes on by itself",
			size(float64(free>>20)), s.Run.DataDir(), size(float64(bytes>>20))))
		if err := s.pause(ctx, spaceWait); err != nil {
			return err
		}
	}
}

func (s *Supervisor) free() (free, total uint64, err error) {
	if s.Free != nil {
		return s.Free(s.Run.dir)
	}
	return freeSpace(s.Run.dir)
}

// prune makes what room can be made without anybody's loss.
func (s *Supervisor) prune(ctx context.Context) {
	p, ok := s.Vault.(Pruner)
	if !ok || !s.pruning.TryLock() { // what another one prunes now is everybody's
		return
	}
	defer s.pruning.Unlock()
	freed, err := p.Prune(context.WithoutCancel(ctx))
	if err != nil {
		s.Log.WarnContext(ctx, "no room made", "run", s.Run.Name(), "error", err)
	} else if freed > 0 {
		s.Log.InfoContext(ctx, "room made", "run", s.Run.Name(), "bytes", freed)
	}
}

// complain shows what a model waits for; an empty cause takes it back.
func (s *Supervisor) complain(model string, cause Cause, text string) {
	s.change(func(st *Status) {
		for i := range st.Models {
			if m := &st.Models[i]; m.Name == model && m.State != ModelDone {
				m.Cause, m.Error = cause, text
			}
		}
	})
}

func fullText(err error) string {
	return "the disk is full: " + err.Error() + ". Free some space; it goes on by itself"
}

// isFull reports whether a disk or a quota is used up.
func isFull(err error) bool {
	for _, full := range fullErrors() {
		if errors.Is(err, full) {
			return true
		}
	}
	return false
}
