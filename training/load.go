package training

import "time"

// A usage is what the processes of a worker have now.
type usage struct {
	memory float64 // MiB of the machine's memory, none of it a file's
	cpu    float64 // seconds of processor time so far
}

// A load is what a worker takes of the machine. The zero value is one of which
// nothing is known.
type load struct {
	memory float64 // MiB, now
	cores  float64 // lately
	known  bool    // cores is

	pid  int
	cpu  float64
	seen time.Time
}

// loadInterval is the least time that processor use is counted over.
const loadInterval = 500 * time.Millisecond

// saw takes note of the usage of worker pid. What it used before it had made any
// progress is the price of its start, and left out.
func (l *load) saw(pid int, u usage, now time.Time, started bool) {
	l.memory = u.memory
	if l.pid != pid || !started {
		*l = load{memory: u.memory, pid: pid, cpu: u.cpu, seen: now}
		return
	}
	took := now.Sub(l.seen)
	if took < loadInterval {
		return
	}
	cores := max(0, u.cpu-l.cpu) / took.Seconds()
	if l.known { // smoothed: one look may have caught a checkpoint
		cores = (cores + l.cores) / 2
	}
	l.cores, l.known, l.cpu, l.seen = cores, true, u.cpu, now
}
