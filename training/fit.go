package training

import "fmt"

// A Fit is how a model uses its device: all that may follow the machine, because
// it changes how an optimizer step is computed and not what it computes.
type Fit struct {
	BatchSize         int  `json:"batch_size"`
	GradAccum         int  `json:"grad_accum"`
	GradCheckpointing bool `json:"grad_checkpointing,omitempty"`
	LoaderWorkers     *int `json:"loader_workers,omitempty"` // at most so many; nil: as the code likes
}

// someLoaders is to how many processes a model is cut down first that has used up
// the machine's memory; then to none.
const someLoaders = 2

// fit returns how the plan wants m to use its device.
func (p *Plan) fit(m Model) Fit {
	if m.BatchSize > 0 {
		return Fit{BatchSize: m.BatchSize, GradAccum: max(m.GradAccum, 1)}
	}
	return Fit{BatchSize: p.Settings.BatchSize, GradAccum: max(p.Settings.GradAccum, 1)}
}

// within returns f with batches of at most size. The effective batch stays: the
// result is the largest divisor of it.
func (f Fit) within(size int) Fit {
	effective := f.BatchSize * f.GradAccum
	for n := min(size, f.BatchSize); n >= 1; n-- {
		if effective%n == 0 {
			f.BatchSize, f.GradAccum = n, effective/n
			break
		}
	}
	return f
}

// smaller returns the next fit that needs less memory on the device: half the
// batch, and once that is one sample, recomputing instead of keeping. ok is
// false if there is none.
func (f Fit) smaller() (next Fit, ok bool) {
	switch {
	case f.BatchSize > 1:
		return f.within(f.BatchSize / 2), true
	case !f.GradCheckpointing:
		f.GradCheckpointing = true
		return f, true
	}
	return f, false
}

// lighter returns the next fit that needs less memory of the machine: fewer
// processes that load data. ok is false if there is none.
func (f Fit) lighter() (next Fit, ok bool) {
	n := someLoaders
	if f.LoaderWorkers != nil {
		if n = 0; *f.LoaderWorkers == 0 {
			return f, false
		}
	}
	f.LoaderWorkers = &n
	return f, true
}

// tighter returns the fit that needs less memory in every respect.
func (f Fit) tighter(g Fit) Fit {
	if g.BatchSize > 0 {
		f = f.within(g.BatchSize)
	}
	f.GradCheckpointing = f.GradCheckpointing || g.GradCheckpointing
	if g.LoaderWorkers != nil && (f.LoaderWorkers == nil || *g.LoaderWorkers < *f.LoaderWorkers) {
		f.LoaderWorkers = g.LoaderWorkers
	}
	return f
}

func (f Fit) String() string {
	text := fmt.Sprintf("batch %d × accumulation %d", f.BatchSize, f.GradAccum)
	if f.GradCheckpointing {
		text += ", gradient checkpointing"
	}
	if f.LoaderWorkers != nil {
		text += fmt.Sprintf(", at most %d loader processes", *f.LoaderWorkers)
	}
	return text
}
