package kernel

import (
	"fmt"
	"os"
	"strings"
)

// A death is how a child ended.
type death struct {
	state   *os.ProcessState
	memory  int64  // the most that it or one of its children used, in bytes; 0: unknown
	kills   kills  // for lack of memory, while it lived
	instead string // why it is no child any more, if it did not end by itself
	cure    string // what to do; empty: what the end itself suggests
}

// kills is how often the system has killed for lack of memory.
type kills struct {
	before, after int64
	known         bool
}

// variablesGone is what is said of every child that had run.
const variablesGone = "Its variables are gone. A new one starts now; cells can be run again."

// String says what happened, and why as far as that is certain.
func (d death) String() string {
	if d.instead != "" {
		return d.instead
	}
	how, name := signalOf(d.state)
	var text string
	switch {
	case name == "":
		text = fmt.Sprintf("it ended by itself, with exit status %d", d.state.ExitCode())
	case d.outOfMemory():
		text = fmt.Sprintf("memory ran out, and the system killed it (%s, signal %d; oom_kill went from %d to %d)", name, how, d.kills.before, d.kills.after)
	case name == killSignal && d.kills.known:
		text = fmt.Sprintf("somebody killed it (%s, signal %d); it was not the system for lack of memory", name, how)
	case name == killSignal:
		text = fmt.Sprintf("it was killed (%s, signal %d); whether memory ran out is not known here", name, how)
	case crashed(name):
		text = fmt.Sprintf("compiled code crashed in it (%s, signal %d)", name, how)
	default:
		text = fmt.Sprintf("it was ended by %s (signal %d)", name, how)
	}
	if d.memory > 0 {
		text += "; the most memory it had was " + size(d.memory)
	}
	return text
}

const killSignal = "SIGKILL"

func (d death) outOfMemory() bool {
	_, name := signalOf(d.state)
	return name == killSignal && d.kills.known && d.kills.after > d.kills.before
}

// crashed reports whether a signal is a fault in the code that got it.
func crashed(name string) bool {
	switch name {
	case "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGSYS", "SIGTRAP":
		return true
	}
	return false
}

// more returns what else is to be said of g's end: its consequences, its last
// words, and what to do.
func (d death) more(g *generation) []string {
	var lines []string
	up := g.up.Load()
	if up {
		lines = append(lines, variablesGone)
	}
	_, name := signalOf(d.state)
	if g.child != nil && (!up || crashed(name)) {
		if tail := g.child.lastStderr(); tail != "" {
			lines = append(lines, "It said:", tail)
		}
	}
	if cure := d.remedy(name); cure != "" {
		lines = append(lines, "To do: "+cure+".")
	}
	return lines
}

// remedy returns what to do about a death by the signal called name.
func (d death) remedy(name string) string {
	switch {
	case d.cure != "":
		return d.cure
	case d.instead != "" || name == "":
		return ""
	case d.outOfMemory():
		return "use smaller batches or less data at once, delete what is not needed, or close other notebooks; training that %%train runs is not in this process"
	case crashed(name):
		return "run the cells again one by one to find the library that crashes, and try another version of it"
	}
	return ""
}

// size returns a number of bytes for people.
func size(bytes int64) string {
	const unit = 1024
	value, names := float64(bytes), []string{"B", "KiB", "MiB", "GiB", "TiB"}
	for value >= unit && len(names) > 1 {
		value, names = value/unit, names[1:]
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", value), ".0") + " " + names[0]
}
