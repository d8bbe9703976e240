package training

import "fmt"

const (
	// peakMargin is how much more than what was measured another model is
	// expected to need: models of a run differ.
	peakMargin = 1.2
	// hostReserve is the part of the machine's memory that packing leaves free,
	// and leastReserve the least of it in MiB: the notebook needs some, too.
	hostReserve  = 0.05
	leastReserve = 256
	// deviceShare is the part of a device that packing gives away: allocators
	// leave some of it lying in pieces.
	deviceShare = 0.95
	// smallestCap is the least that a worker may use of a device, in MiB: a
	// library of kernels alone takes some.
	smallestCap = 256
	// coresSlack is how far the use of cores may go beyond them. As long as there
	// is one for each model their use does not count at all: a library whose
	// threads wait for work keeps them busy for nothing, and whether another model
	// pays is measured.
	coresSlack = 0.5
)

// Why a model is not trained beside others.
type shortOf string

const (
	shortOfNothing shortOf = ""
	shortOfMemory  shortOf = "memory"
	shortOfCores   shortOf = "cores"
	shortOfDevice  shortOf = "device"
)

// A room is a machine with models at work and one more that would like to begin.
// Memory is in MiB.
type room struct {
	free, total float64 // of the machine's memory
	cores       float64
	crew        []load
	peak        float64 // the most that a model of the run has had of the machine's memory
	busy        float64 // cores that the next is expected to use

	device *deviceRoom // nil without a device
}

// A deviceRoom is the device of a room.
type deviceRoom struct {
	free float64   // now
	idle float64   // when none of the run's models was at work
	caps []float64 // of those at work
	next float64   // the cap of the one that would begin
}

// admit says whether one more may begin, and if not, for want of what, and in
// words.
func (r room) admit() (short shortOf, why string) {
	need := peakMargin * r.peak
	free := r.free - max(leastReserve, hostReserve*r.total)
	used := 0.0
	for _, l := range r.crew {
		free -= max(0, need-l.memory) // it may yet grow to that
		used += l.cores
	}
	if free < need {
		return shortOfMemory, fmt.Sprintf("another one is expected to need %s of the machine's memory, and %s are to spare", size(need), size(max(0, free)))
	}
	if float64(len(r.crew)) >= r.cores && used+r.busy > r.cores+coresSlack {
		return shortOfCores, fmt.Sprintf("those at work keep %.1f of %g cores busy, and another one is expected to take %.1f", used, r.cores, r.busy)
	}
	if r.device != nil {
		return r.device.admit()
	}
	return shortOfNothing, ""
}

// admit says whether the caps of all fit the device together, beside what others
// have taken of it meanwhile.
func (d deviceRoom) admit() (short shortOf, why string) {
	given := 0.0
	for _, c := range d.caps {
		given += c + contextMiB
	}
	foreign := max(0, d.idle-d.free-given)
	left := deviceShare*d.idle - foreign - given
	if need := d.next + contextMiB; left < need {
		return shortOfDevice, fmt.Sprintf("another one is expected to need %s of the device, and %s are to spare", size(need), size(max(0, left)))
	}
	return shortOfNothing, ""
}

// capFor returns what a worker may use of a device, in MiB, if so much was
// measured.
func capFor(peak float64) float64 { return max(smallestCap, peakMargin*peak) }

// payoff is what training several at once has brought.
type payoff int

const (
	unclear payoff = iota // it takes longer to tell
	pays
	doesNotPay
)

const (
	// clearGain is a gain of speed that is believed after a short look; leastGain
	// is what it takes after a longer one.
	clearGain = 1.25
	leastGain = 1.05
)

// worth judges the speed of all together, as a multiple of one alone, against
// that of one model less. long says that it was measured for long.
func worth(all, before float64, long bool) payoff {
	switch {
	case all >= clearGain*before, long && all >= leastGain*before:
		return pays
	case long:
		return doesNotPay
	}
	return unclear
}

// together returns how fast models at work are, as a multiple of one that is
// alone. Those of which it is known how fast they would be alone speak for the
// others, whose base it fills in; if there are none, ok is false.
func together(rates, bases []float64) (all float64, ok bool) {
	sum, known := 0.0, 0
	for i, base := range bases {
		if base > 0 {
			sum += rates[i] / base
			known++
		}
	}
	if known == 0 || sum == 0 {
		return 0, false
	}
	mean := sum / float64(known)
	for i := range bases {
		if bases[i] == 0 {
			bases[i] = rates[i] / mean
		}
	}
	return mean * float64(len(rates)), true
}
