package training

import (
	"fmt"
	"strings"
	"time"
)

// The exit statuses by which a shell says that its child was ended by a signal.
const (
	shellSignals = 128
	lastSignal   = 31
)

// evidence is all that is known of an attempt that has ended.
type evidence struct {
	finished *Event
	failed   *Event
	paused   bool // it said that it saved and ends
	complete bool // its last progress was the last step
	asked    bool // we asked it to pause
	abrupt   bool // if its status is 0: before its end

	exit     int    // -1 if a signal ended it
	signal   string // its name, or empty
	own      bool   // the signal was of its own doing
	oomKills int64  // by the kernel, since it began, around us

	unsaved error         // why its newest checkpoint is not safe
	silent  time.Duration // we ended it after so long without a sign of life
	refused string        // what it did that no worker may do
	said    string        // the end of what it printed
}

// verdict says how the attempt ended: by what we decided, then by what the
// worker says, then by its exit status, its text, its signal and the kernel's
// count of processes that it killed for their memory.
func (e evidence) verdict() outcome {
	end := e.judge()
	end.exit, end.signal = e.exit, e.signal
	return end
}

func (e evidence) judge() outcome {
	switch {
	case e.refused != "":
		return outcome{cause: CauseError, message: e.refused}
	case e.finished != nil:
		return e.saved(outcome{cause: CauseDone})
	case e.failed != nil:
		return e.complaint()
	case isFull(e.unsaved):
		return e.saved(outcome{})
	case e.silent > 0:
		return outcome{cause: CauseHang, message: fmt.Sprintf("it gave no sign of life for %s and was ended", short(e.silent))}
	case e.exit == 0 && !e.paused:
		if e.asked && !e.complete { // a program that ends politely when it is asked to
			return outcome{cause: CausePaused}
		}
		if e.abrupt && e.unsaved == nil {
			return outcome{cause: CauseCrash, message: "it ended with status 0 before its end (os._exit, say), so its last state is lost. Call job.finish before that"}
		}
		return e.saved(outcome{cause: CauseDone})
	case e.asked:
		return outcome{cause: CausePaused}
	case e.paused, e.exit == exitPaused:
		return outcome{cause: CauseKilled, message: "somebody else asked it to pause"}
	}
	return e.ended()
}

// saved returns end, unless what it stands on could not be saved.
func (e evidence) saved(end outcome) outcome {
	switch {
	case e.unsaved == nil:
		return end
	case isFull(e.unsaved):
		return outcome{cause: CauseDiskFull, message: "the disk is full: " + e.unsaved.Error()}
	}
	return outcome{cause: CauseCrash, message: "a checkpoint could not be saved: " + e.unsaved.Error()}
}

// complaint judges what the worker itself says of its end.
func (e evidence) complaint() outcome {
	f := e.failed
	text := f.Type + ": " + f.Message
	trace := strings.TrimSpace(f.Traceback)
	if trace == "" {
		trace = text
	}
	end, known := recognise(text)
	known = known && !usersOwn(f.Type)
	if c, ok := failures()[f.Failure]; ok { // it knows
		if !known || end.cause != c {
			end = outcome{cause: c}
		}
	} else if !known {
		return outcome{cause: CauseError, message: trace}
	}
	if end.cause == CauseDeviceOOM && f.Memory != nil {
		end.memory = *f.Memory
		if end.shortage != ShortageUnclear {
			end.shortage = end.memory.shortage()
		}
	}
	if end.message = plainly(end); end.cause == CauseError || end.cause == CauseCrash {
		end.message = trace
	}
	return end
}

// usersOwn reports whether an exception of this type speaks of the program and
// not of the machine, whatever it says.
func usersOwn(exception string) bool {
	switch exception {
	case "ValueError", "TypeError", "KeyError", "IndexError", "AttributeError", "NameError", "AssertionError", "NotImplementedError":
		return true
	}
	return false
}

// failureDiskFull is the kind of a failure, and of a note, that says so.
const failureDiskFull = "disk_full"

// failures are the kinds of the event failed for which the worker knows the
// cause.
func failures() map[string]Cause {
	return map[string]Cause{
		"oom": CauseDeviceOOM, "host_oom": CauseHostOOM, failureDiskFull: CauseDiskFull, "device_lost": CauseDeviceLost,
	}
}

// ended judges an end without a word on the events.
func (e evidence) ended() outcome {
	exit, signal, own := e.exit, e.signal, e.own
	if n := exit - shellSignals; n > 0 && n <= lastSignal { // a shell around it says so
		signal, own = signalName(n)
	}
	if signal != "" && !own {
		if e.oomKills > 0 {
			return outcome{cause: CauseHostOOM, message: "the machine ran out of memory, and the kernel ended its process"}
		}
		return outcome{cause: CauseKilled, message: "its process was ended by a signal from outside: " + signal}
	}
	if end, known := recognise(lastRaised(e.said)); known && end.cause != CauseError {
		end.message = plainly(end)
		return end
	}
	if signal != "" {
		return outcome{cause: CauseCrash, message: "its process crashed: " + signal}
	}
	if trace, ok := traceback(e.said); ok {
		return outcome{cause: CauseError, message: trace}
	}
	return outcome{cause: CauseCrash, message: fmt.Sprintf("its process ended with status %d; its log says more", exit)}
}

// plainly says a cause that was recognised.
func plainly(end outcome) string {
	switch end.cause {
	case CauseDeviceOOM:
		text := map[Shortage]string{
			ShortageOwn:       "the device ran out of memory",
			ShortageCap:       "it met the memory limit set for it",
			ShortageNeighbour: "another process has the device's memory",
			ShortageScattered: "the device's memory lies idle in pieces that are too small",
			ShortageUnclear:   "a library of the device found no memory",
		}[end.shortage]
		if figures := end.memory.words(); figures != "" {
			text += " (" + figures + ")"
		}
		return text
	case CauseHostOOM:
		return "the machine ran out of memory (not the GPU)"
	case CauseDiskFull:
		return "the disk is full"
	case CauseDeviceLost:
		return "the GPU is gone or does not answer"
	case CauseCrash:
		return "the GPU's driver ended its work"
	case CauseDone, CausePaused, CauseKilled, CauseLost, CauseHang, CauseError:
	}
	return ""
}

// short writes a duration as people do.
func short(d time.Duration) string {
	text := d.Round(time.Second / 10).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if cut, ok := strings.CutSuffix(text, zero); ok {
			text = cut + zero[:1]
		}
	}
	return text
}
