package training

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"time"
)

const (
	// packerLook is how often the packer looks when it measures. To look at every
	// process costs milliseconds: when there was no room for another model it looks
	// after longRest, and when none waits after longestRest.
	packerLook  = 250 * time.Millisecond
	longRest    = 2 * time.Second
	longestRest = 5 * time.Second
	// deviceLook is how often it asks for the memory of the device: that may take
	// a program of its own.
	deviceLook = 5 * time.Second
	// firstDoubt is how long it believes that more at once does not pay; it
	// doubles each time that turns out to be still so.
	firstDoubt = 15 * time.Minute
	// patientProgress is how long a worker may show no progress until the user is
	// told that it cannot be measured.
	patientProgress = 2 * time.Minute
	// lowWater is the part of the machine's memory below which the newest model
	// has to wait: before the kernel ends one.
	lowWater = 0.02
)

// A packer is the policy of --parallel auto. It lets one model more begin when
// there is room and those at work are measured, and stops where that does not
// make all of them together faster. Its fields are used under seats.mu.
type packer struct {
	s     *Supervisor
	seats *seats

	long time.Duration // a measurement that took so long is believed

	epoch    int       // that the meters measure
	at       time.Time // of the latest look
	since    time.Time // when it began
	ready    bool      // those at work are measured
	all      float64   // their speed, as a multiple of one alone; 0 if unknown
	good     int       // so many at once are known to pay
	gain     []float64 // speed by number at work, as far as it was measured
	tried    *seat     // the one more that is on trial
	doubt    time.Duration
	retry    time.Time // no further trial before
	peak     float64   // most memory of a worker, MiB
	busy     float64   // cores of a worker, lately
	free     float64   // of the machine's memory, MiB
	total    float64
	device   DeviceMemory
	idle     float64   // free on the device when nobody was at work
	asked    time.Time // for device
	short    shortOf   // why no more began, lately
	why      string
	settled  bool // it has just been found that there is no room
	told     map[string]bool
	messages []string
}

// A DeviceMemory is the memory of the device that workers use, in MiB.
type DeviceMemory struct{ Free, Total float64 }

func newPacker(s *Supervisor) *packer {
	return &packer{s: s, long: longWindow, good: 1, gain: []float64{0, 1}, doubt: firstDoubt, told: map[string]bool{}}
}

var _ policy = (*packer)(nil)

// place implements policy.
func (p *packer) place(m Model, taken []*seat) place {
	at, limit := p.onDevice(m)
	if len(taken) == 0 || at.alone {
		return at
	}
	at.ok = false
	more := len(taken) + 1
	untried := more > p.good
	if p.total == 0 || untried && (!p.ready || p.epoch != p.seats.epoch || more > p.good+1 || p.at.Before(p.retry)) {
		return at
	}
	r := room{free: p.free, total: p.total, cores: float64(runtime.GOMAXPROCS(0)), peak: p.peak, busy: p.busy}
	for _, t := range taken {
		l := t.load
		if !l.known {
			l.cores = p.busy // it has just begun
		}
		r.crew = append(r.crew, l)
	}
	if limit > 0 {
		r.device = &deviceRoom{free: p.device.Free, idle: p.idle, next: limit}
		for _, t := range taken {
			r.device.caps = append(r.device.caps, t.fraction*p.device.Total)
		}
	}
	p.short, p.why = r.admit()
	at.ok = p.short == shortOfNothing
	return at
}

// onDevice returns m's place by the device alone, and its cap there in MiB; 0 if
// there is no device. A model of which no peak is known has the device to itself,
// as its cap could not be changed later.
func (p *packer) onDevice(m Model) (place, float64) {
	set := p.s.Run.plan.Settings
	if !set.onDevice() {
		return place{ok: true}, 0
	}
	peak, known := p.s.learnt.peak(m, set)
	limit := capFor(peak)
	if !known || p.device.Total == 0 || limit+contextMiB > deviceShare*p.idle/2 {
		return place{ok: true, alone: true}, 0
	}
	return place{ok: true, fraction: limit / p.device.Total}, limit
}

// watch measures until ctx ends.
func (p *packer) watch(ctx context.Context) {
	for {
		p.seats.mu.Lock()
		wait := time.NewTimer(p.rest(time.Now()))
		p.seats.mu.Unlock()
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-wait.C:
		}
		p.look(ctx, time.Now())
	}
}

// rest returns how long to wait until the next look.
func (p *packer) rest(now time.Time) time.Duration {
	switch {
	case p.tried == nil && len(p.seats.waiting) == 0:
		return longestRest
	case p.tried == nil && (p.settled || now.Before(p.retry)):
		return longRest
	}
	return packerLook
}

// look takes a look at the machine and at those at work, and draws conclusions.
func (p *packer) look(ctx context.Context, now time.Time) {
	workers := map[*seat]int{}
	p.seats.mu.Lock()
	for _, t := range p.seats.taken {
		if pid := t.meter.worker(); pid != 0 {
			workers[t] = pid
		}
	}
	ask := p.s.Device != nil && p.s.Run.plan.Settings.onDevice() && now.Sub(p.asked) >= deviceLook
	p.seats.mu.Unlock()

	var groups []int
	for _, pid := range workers {
		groups = append(groups, pid)
	}
	used, ok := groupsUsage(groups)
	free, total, known := hostMemory("/")
	var device DeviceMemory
	if ask {
		var err error
		if device, err = p.s.Device(ctx); err != nil {
			p.s.Log.InfoContext(ctx, "memory of the device not known", "error", err)
			device = DeviceMemory{}
		}
	}

	p.seats.mu.Lock()
	if ask {
		if p.asked, p.device = now, device; len(p.seats.taken) == 0 {
			p.idle = device.Free
		}
	}
	if p.free, p.total = free, total; !ok || !known {
		p.total = 0
		p.say("system", "What models need cannot be measured on this system, so they are trained one at a time. --parallel N does not measure.")
	}
	p.take(workers, used, now)
	p.judge(now)
	p.guard()
	p.explain(now)
	p.seats.tell()
	messages := p.messages
	p.messages = nil
	p.seats.mu.Unlock()
	for _, text := range messages {
		p.s.note("", text)
	}
}

// take notes what workers use.
func (p *packer) take(workers map[*seat]int, used map[int]usage, now time.Time) {
	busy := 0.0
	for _, t := range p.seats.taken {
		pid := workers[t]
		if pid == 0 {
			continue
		}
		t.load.saw(pid, used[pid], now, t.meter.trains())
		p.peak = max(p.peak, t.load.memory)
		busy = max(busy, t.load.cores)
	}
	if busy > 0 {
		p.busy = busy
	}
}

// judge measures those at work, and decides about the one on trial.
func (p *packer) judge(now time.Time) {
	taken := p.seats.taken
	p.at = now
	if p.epoch != p.seats.epoch {
		if p.tried != nil && p.all > 0 { // what was seen of the trial has to do
			p.decide(worth(p.all, p.gain[len(p.gain)-1], true), now)
		}
		p.epoch, p.since, p.ready, p.all, p.tried = p.seats.epoch, now, false, 0, nil
		if len(taken) == p.good+1 {
			p.tried = taken[len(taken)-1]
		}
		for _, t := range taken {
			t.meter.restart(now)
		}
		return
	}
	rates, bases, long := make([]float64, len(taken)), make([]float64, len(taken)), true
	for i, t := range taken {
		pace, ok := t.meter.pace(p.long)
		if !ok {
			return
		}
		rates[i], bases[i] = pace.rate, t.base
		long = long && pace.span >= p.long
	}
	switch len(taken) {
	case 0:
		return
	case 1:
		taken[0].base, p.ready, p.all = rates[0], true, 1
		return
	}
	all, ok := together(rates, bases)
	if p.ready, p.all = ok, all; !ok {
		return
	}
	for i, t := range taken {
		t.base = bases[i]
	}
	if p.tried != nil {
		p.ready = false
		p.decide(worth(all, p.gain[len(p.gain)-1], long), now)
	}
}

// decide acts on what the trial has brought.
func (p *packer) decide(brought payoff, now time.Time) {
	before := p.gain[len(p.gain)-1]
	switch brought {
	case unclear:
		return
	case pays:
		p.good++
		p.gain = append(p.gain, p.all)
		p.ready, p.doubt = true, firstDoubt
		p.say(fmt.Sprintf("pays %d", p.good), fmt.Sprintf("%d models at once train %.1f times as fast as one alone.", p.good, p.all))
	case doesNotPay:
		p.retry = now.Add(p.doubt)
		p.doubt *= 2
		p.say("pays not", fmt.Sprintf("%d models at once are not worth it: together they train %.2f times as fast as one alone, and %d %.2f times. So %d at once.",
			p.good+1, p.all, p.good, before, p.good))
		p.tried.cancel(errEvicted)
	}
	p.tried = nil
}

// guard has the newest wait before the machine's memory is used up.
func (p *packer) guard() {
	n := len(p.seats.taken)
	if n < 2 || p.total == 0 || p.free >= max(leastReserve/2, lowWater*p.total) {
		return
	}
	if newest := p.seats.taken[n-1]; newest.ctx.Err() == nil {
		p.seats.ceiling = n - 1
		newest.cancel(errEvicted)
		p.say(fmt.Sprintf("low %d", n), fmt.Sprintf("The machine has only %s of memory left: %s waits, and from now on at most %d are trained at once.", size(p.free), newest.model.Name, n-1))
	}
}

// explain says why no more models are trained at once.
func (p *packer) explain(now time.Time) {
	if n := len(p.seats.taken); n > 0 && p.short != shortOfNothing {
		text := fmt.Sprintf("%d at once: %s.", n, p.why)
		if n == 1 {
			text = fmt.Sprintf("One model at a time: %s.", p.why)
		}
		p.say(string(p.short), text)
	}
	p.settled, p.short = p.short != shortOfNothing, shortOfNothing
	if len(p.seats.taken) == 1 && now.Sub(p.since) > patientProgress {
		if t := p.seats.taken[0]; t.meter.worker() != 0 && !t.meter.trains() && len(p.seats.waiting) > 0 {
			p.say("mute", "One model at a time: "+t.model.Name+" does not tell its progress yet, so it cannot be measured whether more at once would be faster.")
		}
	}
}

// say tells the user something once.
func (p *packer) say(topic, text string) {
	if !p.told[topic] {
		p.told[topic] = true
		p.messages = append(p.messages, text)
	}
}

// onDevice reports whether models are trained on a device with a memory of its
// own.
func (s Settings) onDevice() bool {
	return s.Device != "" && !strings.HasPrefix(s.Device, "cpu")
}
