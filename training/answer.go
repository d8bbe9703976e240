package training

import (
	"fmt"
	"time"
)

const (
	// maxFruitless is how often a model may be killed in a row without a new
	// checkpoint before we stop insisting. It is generous: on a machine that is
	// taken away again and again, starting alone takes its time.
	maxFruitless = 20
	// patientKills is how many of those are answered at once; then we wait.
	patientKills = 3
	// maxHangs is how many hangs in a row are answered with another attempt.
	maxHangs = 2
	// maxWaits is how often a neighbour's memory is waited for in a row.
	maxWaits = 20
	// maxFull is how often a model may find the disk full in a row although we
	// see space: then it is another disk, and waiting does not help.
	maxFull = 8
	// maxLost is how often a device that was lost is tried again.
	maxLost = 1
	// firstWait and longestWait bound the waits, which double.
	firstWait   = time.Second
	longestWait = time.Minute
	// firstSpace is how much must be free before a model that filled the disk is
	// tried again, in bytes; it doubles.
	firstSpace = 64 << 20
)

// An answer is what to do about the end of an attempt.
type answer struct {
	state ModelState // what becomes of the model
	fit   Fit        // how the next attempt uses the device
	wait  time.Duration
	space uint64 // wait until the disk has so many bytes free
	halt  bool   // pause the whole run: no other model would fare better
	alone bool   // go on with nobody beside it
	fewer bool   // train fewer at once
	say   string // what the user is told, beside the outcome's message
}

// patience is how often a model may still be tried again, for each cause by
// itself. The zero value of the counters is a fresh start.
type patience struct {
	retries   int // left, for crashes only
	fruitless int // kills in a row without a new checkpoint, and so on
	hangs     int
	waits     int
	full      int
	lost      int
	scattered int
	unclear   int
}

// answer decides what to do, and takes the attempt into account. progress says
// that it saved a later step than the one it started from: steps that are lost
// again will end in the same way again. It does nothing itself.
//
// A kill costs no retry: it is the machine's doing, and what this program is
// for. An error of the user's code is never tried again. What is in short supply
// is used more sparingly.
func (p *patience) answer(end outcome, progress bool, fit Fit) answer {
	if progress {
		*p = patience{retries: p.retries}
	}
	again := answer{state: ModelPending, fit: fit}
	failed := answer{state: ModelFailed, fit: fit}
	switch end.cause {
	case CauseDone:
		return answer{state: ModelDone, fit: fit}
	case CausePaused:
		return answer{state: ModelPaused, fit: fit}
	case CauseKilled, CauseLost:
		return p.insist(end, fit)
	case CauseHang:
		if p.hangs++; p.hangs > maxHangs {
			failed.say = fmt.Sprintf("It hung %d times in a row without a new checkpoint.", p.hangs)
			return failed
		}
		return again
	case CauseCrash:
		if p.retries--; p.retries < 0 {
			return failed
		}
		return again
	case CauseDeviceOOM:
		return p.squeeze(end, fit)
	case CauseHostOOM:
		if end.beside { // this one may not even be the one that took it
			again.fewer = true
			return again
		}
		next, ok := fit.lighter()
		if !ok {
			failed.say = "It needs more memory than this machine has, without any process that loads data. Load less at once, or use a larger machine."
			return failed
		}
		again.fit = next
		again.say = fmt.Sprintf("The machine ran out of memory; it goes on with at most %d processes that load data (job.loader_workers).", *next.LoaderWorkers)
		return again
	case CauseDiskFull:
		if p.full++; p.full > maxFull {
			failed.say = "It says so although there is space in the data directory: perhaps it writes to another disk, or there is a quota."
			return failed
		}
		again.space = firstSpace << (p.full - 1)
		return again
	case CauseDeviceLost:
		if p.lost++; p.lost > maxLost {
			return answer{state: ModelPaused, fit: fit, halt: true, say: "The run is paused: no model can be trained without it. Restart the machine, then resume."}
		}
		again.wait = firstWait
		return again
	case CauseError:
	}
	return failed
}

// insist answers a kill, or a machine that could start no process: that is waited
// for each time, as nothing else takes time.
func (p *patience) insist(end outcome, fit Fit) answer {
	again := answer{state: ModelPending, fit: fit}
	failed := answer{state: ModelFailed, fit: fit}
	p.fruitless++
	if again.wait = backoff(p.fruitless - patientKills); end.unstarted {
		again.wait = backoff(p.fruitless)
		failed.say = "It could not be started for long. End other programs, or raise the limits for processes and open files (ulimit)."
	} else {
		failed.say = fmt.Sprintf("It was killed %d times in a row without a new checkpoint. Save more often (--checkpoint-every), or look for what kills it.", p.fruitless)
	}
	if p.fruitless >= maxFruitless {
		return failed
	}
	return again
}

// squeeze answers a device without enough memory.
func (p *patience) squeeze(end outcome, fit Fit) answer {
	again := answer{state: ModelPending, fit: fit}
	failed := answer{state: ModelFailed, fit: fit}
	if end.beside || end.partial { // alone it may fit as it is
		again.alone = true
		again.say = "It had only a part of the device beside other models of this run: it goes on alone, and its batch stays."
		return again
	}
	switch end.shortage {
	case ShortageNeighbour: // to shrink would not help, and would last
		if p.waits++; p.waits > maxWaits {
			failed.say = "It has waited long enough for another process to give the memory back. End that one, or use another device."
			return failed
		}
		again.wait = backoff(p.waits)
		again.say = "It waits for the other process, and its batch stays."
		return again
	case ShortageScattered: // a new process begins with whole memory
		if p.scattered++; p.scattered == 1 {
			return again
		}
	case ShortageUnclear:
		if p.unclear++; p.unclear > 1 {
			failed.say = "A smaller batch did not help, so this is probably no lack of memory: look at the versions of driver, CUDA and library."
			return failed
		}
	case ShortageOwn, ShortageCap:
	}
	next, ok := fit.smaller()
	if !ok {
		failed.say = "It does not fit, not even one sample at a time with gradient checkpointing."
		if need := end.memory.need(); need > 0 {
			failed.say += fmt.Sprintf(" It needs more than %s", size(need))
			if end.memory.Total > 0 {
				failed.say += fmt.Sprintf("; the device has %s", size(end.memory.Total))
			}
			failed.say += "."
		}
		return failed
	}
	again.fit = next
	again.say = fmt.Sprintf("It goes on with %s: the effective batch stays, so the result is as good, though not the same bit for bit.", next)
	return again
}

// backoff returns how long to wait before the n-th try; no time for n < 1.
func backoff(n int) time.Duration {
	if n < 1 {
		return 0
	}
	return min(longestWait, firstWait<<min(n-1, 10))
}
