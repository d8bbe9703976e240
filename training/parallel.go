package training

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"
)

// Parallel says how many models of a run are trained at once: 0 and 1 mean one
// after the other.
type Parallel int

// ParallelAuto packs as many as fit the machine and make the run faster.
const ParallelAuto Parallel = -1

// MaxParallel is how many may be asked for: no machine has the memory for that
// many processes that import a library for training, and a slip of the finger
// should not try.
const MaxParallel = 64

// autoWord is how ParallelAuto is written.
const autoWord = "auto"

// ParseParallel reads "auto" or a number from 1 to MaxParallel.
func ParseParallel(text string) (Parallel, error) {
	if text == autoWord {
		return ParallelAuto, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > MaxParallel {
		return 0, fmt.Errorf("the number of models to train at once is 1 to %d, or auto, not %q", MaxParallel, text)
	}
	return Parallel(n), nil
}

func (p Parallel) String() string {
	if p == ParallelAuto {
		return autoWord
	}
	return strconv.Itoa(max(1, int(p)))
}

// MarshalJSON writes a number, or "auto".
func (p Parallel) MarshalJSON() ([]byte, error) {
	if p == ParallelAuto {
		return json.Marshal(autoWord)
	}
	return json.Marshal(int(p))
}

// UnmarshalJSON reads what MarshalJSON writes.
func (p *Parallel) UnmarshalJSON(data []byte) error {
	text, err := strconv.Unquote(string(data))
	if err != nil {
		text = string(data)
	}
	*p, err = ParseParallel(text)
	return err
}

// threads returns how many threads each of the models that are trained at once
// may use, on a machine with so many cores; 0 leaves that to their code.
//
// Libraries take all cores each, and several of them fight. But their number
// changes the order of sums, and so the last bits of a result: a model keeps the
// number that it began with, and packing by measurement leaves it alone.
func (p Parallel) threads(cores int) int {
	if p <= 1 {
		return 0
	}
	return max(1, cores/int(p))
}

// usualFraction is the part of a device that models share where the settings do
// not say.
const usualFraction = 0.85

// divided returns the fraction of a device that each of n workers may use, so
// that they fit together, with what each process takes beside its tensors. total
// is in MiB; 0 if it is unknown.
func divided(fraction, total float64, n int) float64 {
	if fraction <= 0 {
		fraction = usualFraction
	}
	if beside := contextMiB * float64(n-1); total > 2*beside {
		fraction *= 1 - beside/total
	}
	return fraction / float64(n)
}

// evenly is the policy of --parallel N: up to n at once, each with an equal part
// of the device.
type evenly struct {
	n        int
	fraction float64 // of the device; 0 without one
	fits     func(m Model, fraction float64) bool
}

var _ policy = evenly{}

// place implements policy.
func (e evenly) place(m Model, taken []*seat) place {
	at := place{ok: len(taken) < e.n, fraction: e.fraction}
	at.alone = e.fraction > 0 && !e.fits(m, e.fraction)
	return at
}

// seats returns those of the run. stop waits until nothing measures any more.
func (s *Supervisor) seats(ctx context.Context) (all *seats, stop func()) {
	if s.Run.plan.Settings.Parallel != ParallelAuto {
		return newSeats(s.evenly(ctx)), func() {}
	}
	p := newPacker(s)
	if s.patience > 0 {
		p.long = s.patience
	}
	all = newSeats(p)
	p.seats = all
	p.look(ctx, time.Now())
	watch, over := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { p.watch(watch) })
	return all, func() { over(); watching.Wait() }
}

// evenly returns the policy of --parallel N.
func (s *Supervisor) evenly(ctx context.Context) evenly {
	set := s.Run.plan.Settings
	left := 0
	s.change(func(st *Status) {
		for _, m := range st.Models {
			if m.State != ModelDone {
				left++
			}
		}
	})
	e := evenly{n: max(1, min(int(set.Parallel), left))}
	if e.n == 1 || !set.onDevice() {
		return e
	}
	var device DeviceMemory
	if s.Device != nil {
		var err error
		if device, err = s.Device(ctx); err != nil {
			s.Log.InfoContext(ctx, "memory of the device not known", "error", err)
		}
	}
	e.fraction = divided(set.MemoryFraction, device.Total, e.n)
	e.fits = func(m Model, fraction float64) bool {
		lesson, known := s.learnt.about(m, set)
		return !known || device.Total == 0 || max(lesson.PeakMiB, lesson.NeedMiB) < fraction*device.Total
	}
	return e
}
