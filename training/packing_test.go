package training

import (
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParallelIsANumberOrAuto(t *testing.T) {
	for text, want := range map[string]Parallel{"auto": ParallelAuto, "1": 1, "2": 2, "64": 64} {
		got, err := ParseParallel(text)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Equal(t, text, got.String())
		data, err := json.Marshal(Settings{Parallel: got})
		require.NoError(t, err)
		var back Settings
		require.NoError(t, json.Unmarshal(data, &back))
		require.Equal(t, want, back.Parallel)
	}
	for _, text := range []string{"", "0", "-1", "65", "two", "1.5", "Auto", "9999999999999999999"} {
		_, err := ParseParallel(text)
		require.ErrorContains(t, err, "1 to 64, or auto", text)
	}
	var s Settings
	require.Error(t, json.Unmarshal([]byte(`{"parallel":"many"}`), &s))
	require.NoError(t, json.Unmarshal([]byte(`{}`), &s))
	require.Equal(t, "1", s.Parallel.String(), "one at a time is what is not said")
}

func TestThreadsAreTheShareOfTheCores(t *testing.T) {
	tests := map[string]struct {
		at    Parallel
		cores int
		want  int
	}{
		"one at a time":          {1, 8, 0},
		"nothing said":           {0, 8, 0},
		"measured":               {ParallelAuto, 8, 0},
		"two on two":             {2, 2, 1},
		"three on eight":         {3, 8, 2},
		"more than there are":    {4, 2, 1},
		"four on a large server": {4, 64, 16},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { assert.Equal(t, test.want, test.at.threads(test.cores)) })
	}
}

func TestTheDeviceIsDividedSoThatAllFit(t *testing.T) {
	assert.InDelta(t, 0.425, divided(0.85, 0, 2), 1e-9, "its size is not known")
	assert.InDelta(t, 0.425, divided(0, 0, 2), 1e-9, "nothing was said")
	for name, total := range map[string]float64{"T4": 15360, "L4": 23034, "A100-40": 40960, "H100": 81559} {
		for n := 2; n <= 8; n++ {
			part := divided(0.85, total, n)
			assert.Positive(t, part, name)
			assert.LessOrEqual(t, float64(n)*(part*total+contextMiB), total, "%d on %s", n, name)
		}
	}
}

// The figures of devices are those that drivers and torch report: a T4, an L4
// and an H100 when idle and when others have some of them.
func TestWhetherOneMoreMayBegin(t *testing.T) {
	at := func(memory, cores float64) load { return load{memory: memory, cores: cores, known: true} }
	colab := room{free: 11200, total: 12978, cores: 2, peak: 1900, busy: 0.9, crew: []load{at(1800, 0.9)}}
	with := func(r room, change func(*room)) room { change(&r); return r }
	onDevice := func(free, idle, next float64, caps ...float64) func(*room) {
		return func(r *room) { r.device = &deviceRoom{free: free, idle: idle, caps: caps, next: next} }
	}
	tests := map[string]struct {
		room room
		want shortOf
		says string
	}{
		"two on the cores of Colab":             {colab, shortOfNothing, ""},
		"a third has no core":                   {with(colab, func(r *room) { r.crew = append(r.crew, at(1800, 0.9)) }), shortOfCores, "keep 1.8 of 2 cores busy"},
		"one thread each, and a little more":    {with(colab, func(r *room) { r.busy, r.crew = 1.2, []load{at(1800, 1.2)} }), shortOfNothing, ""},
		"threads that wait keep all cores busy": {with(colab, func(r *room) { r.busy, r.crew = 1.95, []load{at(1800, 1.95)} }), shortOfNothing, ""},
		"more than cores, but light":            {with(colab, func(r *room) { r.busy, r.crew = 0.2, many(2, at(1800, 0.2)) }), shortOfNothing, ""},
		"it just fits":                          {room{free: 1900*1.2 + 649, total: 12978, cores: 2, peak: 1900, busy: 0.5, crew: []load{at(2280, 0.5)}}, shortOfNothing, ""},
		"it just does not":                      {room{free: 1900*1.2 + 648, total: 12978, cores: 2, peak: 1900, busy: 0.5, crew: []load{at(2280, 0.5)}}, shortOfMemory, "2.2 GiB of the machine's memory"},
		"those at work may grow":                {room{free: 3000, total: 12978, cores: 2, peak: 1900, busy: 0.5, crew: []load{at(300, 0.5)}}, shortOfMemory, "371 MiB are to spare"},
		"a small control group":                 {room{free: 700, total: 2048, cores: 2, peak: 500, busy: 0.5, crew: []load{at(500, 0.5)}}, shortOfMemory, ""},
		"two of 1.5 GiB on a T4":                {with(colab, onDevice(12900, 14910, capFor(1500), capFor(1500))), shortOfNothing, ""},
		"two of 6 GiB on a T4":                  {with(colab, onDevice(8300, 14910, capFor(6000), capFor(6000))), shortOfDevice, "another one is expected to need 7.5 GiB of the device"},
		"on a T4 that a notebook uses":          {with(colab, onDevice(4600, 6900, capFor(3000), capFor(3000))), shortOfDevice, ""},
		"on an L4 that others begin to use":     {with(colab, onDevice(3000, 22500, capFor(3000), capFor(3000))), shortOfDevice, ""},
		"a dozen on an H100":                    {room{free: 100e3, total: 128e3, cores: 16, peak: 3000, busy: 1, crew: many(11, at(3000, 1)), device: &deviceRoom{free: 30e3, idle: 80900, caps: many(11, capFor(4000)), next: capFor(4000)}}, shortOfNothing, ""},
		"on an H100 the memory is given away":   {room{free: 100e3, total: 128e3, cores: 32, peak: 3000, busy: 1, crew: many(14, at(3000, 1)), device: &deviceRoom{free: 30e3, idle: 80900, caps: many(14, capFor(4000)), next: capFor(4000)}}, shortOfDevice, ""},
		"caps count though little is used yet":  {with(colab, onDevice(14500, 14910, capFor(5000), capFor(6500))), shortOfDevice, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			short, why := test.room.admit()
			assert.Equal(t, test.want, short, why)
			assert.Contains(t, why, test.says)
		})
	}
}

func many[T any](n int, one T) []T {
	all := make([]T, n)
	for i := range all {
		all[i] = one
	}
	return all
}

func TestWhatIsWorthIt(t *testing.T) {
	tests := map[string]struct {
		all, before float64
		long        bool
		want        payoff
	}{
		"twice as fast":                   {1.9, 1, false, pays},
		"a little faster, at first sight": {1.15, 1, false, unclear},
		"a little faster":                 {1.15, 1, true, pays},
		"as fast":                         {1.01, 1, true, doesNotPay},
		"slower, at first sight":          {0.7, 1, false, unclear},
		"slower":                          {0.7, 1, true, doesNotPay},
		"a third brings nothing":          {1.95, 1.9, true, doesNotPay},
		"a third brings a half":           {2.4, 1.9, false, pays},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { assert.Equal(t, test.want, worth(test.all, test.before, test.long)) })
	}
}

func TestHowFastTheyAreTogether(t *testing.T) {
	bases := []float64{100, 0}
	all, ok := together([]float64{90, 8}, bases)
	require.True(t, ok)
	assert.InDelta(t, 1.8, all, 1e-9, "the one that was measured alone speaks for the other")
	assert.InDelta(t, 8/0.9, bases[1], 1e-9, "so fast it would be alone")
	bases = append(bases, 0)
	all, ok = together([]float64{60, 8 / 0.9 * 0.6, 30}, bases)
	require.True(t, ok)
	assert.InDelta(t, 1.8, all, 1e-9)
	_, ok = together([]float64{60, 30}, []float64{0, 0})
	assert.False(t, ok, "nobody was measured alone")
	_, ok = together([]float64{0, 0}, []float64{5, 0})
	assert.False(t, ok, "nobody moves")
}

func TestAMeterWaitsUntilItCanTell(t *testing.T) {
	var m meter
	at := time.Unix(0, 0)
	m.begin(at)
	m.started(7)
	require.Equal(t, 7, m.worker())
	require.False(t, m.trains())
	step := func(n int64, after time.Duration) (pace, bool) {
		m.mark(n, at.Add(after))
		return m.pace(longWindow)
	}
	_, ok := step(1, 100*time.Millisecond)
	require.False(t, ok, "it is warming up")
	require.True(t, m.trains())
	step(11, 300*time.Millisecond)
	_, ok = step(41, 1200*time.Millisecond)
	require.False(t, ok, "less than a second")
	p, ok := step(51, 1300*time.Millisecond)
	require.True(t, ok)
	require.InDelta(t, 40, p.rate, 1e-9)
	m.restart(at.Add(2 * time.Second))
	_, ok = m.pace(longWindow)
	require.False(t, ok)
	step(60, 3*time.Second)
	_, ok = step(63, 8*time.Second)
	require.False(t, ok, "few steps need longer")
	p, ok = step(66, 14*time.Second)
	require.True(t, ok)
	require.InDelta(t, 6.0/11, p.rate, 1e-9)
}

func TestALoadIsThatOfTrainingAndNotOfItsStart(t *testing.T) {
	var l load
	at := time.Unix(100, 0)
	l.saw(7, usage{memory: 300, cpu: 2}, at, false)
	require.InDelta(t, 300, l.memory, 0)
	l.saw(7, usage{memory: 310, cpu: 9}, at.Add(time.Second), false)
	require.False(t, l.known, "it has imported and compiled")
	l.saw(7, usage{memory: 400, cpu: 9.2}, at.Add(1200*time.Millisecond), true)
	require.False(t, l.known, "too short a time")
	l.saw(7, usage{memory: 400, cpu: 10}, at.Add(2*time.Second), true)
	require.True(t, l.known)
	require.InDelta(t, 1, l.cores, 1e-9)
	l.saw(7, usage{memory: 350, cpu: 10}, at.Add(3*time.Second), true)
	require.InDelta(t, 0.5, l.cores, 1e-9, "one look does not count alone")
	l.saw(8, usage{memory: 10, cpu: 1}, at.Add(4*time.Second), true)
	require.Equal(t, load{memory: 10, pid: 8, cpu: 1, seen: at.Add(4 * time.Second)}, l, "another worker")
}

func TestEachKillOfTheKernelAccountsForOneAttempt(t *testing.T) {
	var k killCount
	k.begin(5)
	k.begin(5)
	assert.EqualValues(t, 1, k.end(6, true), "this one")
	assert.EqualValues(t, 0, k.end(6, true), "somebody else has killed that one")
	k.begin(8)
	assert.EqualValues(t, 0, k.end(8, true), "what was before does not count")
	k.begin(8)
	assert.EqualValues(t, 1, k.end(9, false), "a process of it")
}

// benches returns seats of which the i-th has a model of that number, and the
// packer that measures them, on a machine with room for all.
func benches(t *testing.T, models int) (*packer, []Model) {
	t.Helper()
	plan := Plan{Run: "digits", Code: Code{Kind: CodeCommand, Command: []string{"x"}}, Settings: Settings{Device: "cpu"}}
	for i := range models {
		plan.Models = append(plan.Models, Model{Name: string(rune('a' + i))})
	}
	s := &Supervisor{Run: &Run{dir: t.TempDir(), plan: plan}, Log: slog.New(slog.DiscardHandler), learnt: &lessons{}}
	p := newPacker(s)
	p.seats = newSeats(p)
	p.free, p.total, p.peak, p.busy = 64e3, 128e3, 100, 0.01
	return p, plan.Models
}

// train lets those at work train for so long at these rates, with a look of the
// packer at each tenth of a second; it returns the end.
func train(p *packer, from time.Time, d time.Duration, rates ...float64) time.Time {
	p.seats.mu.Lock()
	defer p.seats.mu.Unlock()
	for at := from; at.Before(from.Add(d)); at = at.Add(100 * time.Millisecond) {
		for i, t := range p.seats.taken {
			t.meter.mark(int64(rates[i]*at.Sub(time.Unix(0, 0)).Seconds()), at)
			t.load = load{memory: 100, cores: 0.01, known: true}
		}
		p.judge(at)
	}
	return from.Add(d)
}

// offered returns the seat that is given now, if any.
func offered(p *packer, i int, m Model) *seat {
	w := &wish{index: i}
	p.seats.waiting = []*wish{w}
	one, _ := p.seats.offer(context.Background(), w, m)
	if one != nil {
		one.begin(time.Unix(0, 0))
	}
	p.seats.waiting = nil
	return one
}

func TestThePackerTriesOneMoreAtATime(t *testing.T) {
	p, models := benches(t, 4)
	at := time.Unix(0, 0)
	first := offered(p, 0, models[0])
	require.NotNil(t, first, "one may always begin")
	require.Nil(t, offered(p, 1, models[1]), "it is not measured")
	at = train(p, at, 2*time.Second, 100)
	second := offered(p, 1, models[1])
	require.NotNil(t, second)
	require.Nil(t, offered(p, 2, models[2]), "the trial is not over")
	at = train(p, at, 2*time.Second, 95, 40)
	require.Equal(t, 2, p.good)
	third := offered(p, 2, models[2])
	require.NotNil(t, third)
	at = train(p, at, 2*time.Second, 60, 25, 25)
	require.False(t, third.evicted(), "it takes longer to tell that it does not pay")
	at = train(p, at, longWindow, 60, 25, 25)
	require.True(t, third.evicted())
	require.False(t, second.evicted())
	third.leave()
	at = train(p, at, 2*time.Second, 95, 40)
	require.Nil(t, offered(p, 2, models[2]), "no more for a while")
	second.leave()
	train(p, at, 2*time.Second, 95)
	again := offered(p, 2, models[2])
	require.NotNil(t, again, "two are known to pay")
	require.Equal(t, []string{
		"2 models at once train 1.9 times as fast as one alone.",
		"3 models at once are not worth it: together they train 1.79 times as fast as one alone, and 2 1.90 times. So 2 at once.",
	}, p.messages)
	p.retry = at
	require.Nil(t, offered(p, 3, models[3]), "those at work are not measured yet")
}

// Short models end before a long measurement is over; what was seen has to do.
func TestATrialThatEndsEarlyIsJudgedByWhatWasSeen(t *testing.T) {
	p, models := benches(t, 3)
	first := offered(p, 0, models[0])
	at := train(p, time.Unix(0, 0), 2*time.Second, 100)
	require.NotNil(t, offered(p, 1, models[1]))
	at = train(p, at, 2*time.Second, 50, 50)
	require.Equal(t, 1, p.good)
	first.leave()
	train(p, at, time.Second, 100)
	require.Equal(t, 1, p.good)
	require.True(t, p.retry.After(at), "it did not pay")
	require.Nil(t, offered(p, 2, models[2]))
}

func TestTheNewestWaitsBeforeMemoryIsUsedUp(t *testing.T) {
	p, models := benches(t, 2)
	p.good = 2
	first, second := offered(p, 0, models[0]), offered(p, 1, models[1])
	p.free = 100
	p.guard()
	require.True(t, second.evicted())
	require.False(t, first.evicted())
	require.Equal(t, 1, p.seats.ceiling)
	require.Contains(t, p.messages[0], "The machine has only 100 MiB of memory left: b waits")
	second.leave()
	p.free = 64e3
	require.Nil(t, offered(p, 1, models[1]), "not again")
}

func TestOneThatIsToBeAloneIsNotLeftForEver(t *testing.T) {
	p, models := benches(t, 3)
	p.good = 3
	first, second := offered(p, 0, models[0]), offered(p, 1, models[1])
	got := make(chan *seat, 1)
	go func() {
		one, _ := second.after(t.Context(), answer{alone: true}) // the error would be of the context
		got <- one
	}()
	for waits := 0; waits == 0; {
		p.seats.mu.Lock()
		waits = len(p.seats.waiting)
		p.seats.mu.Unlock()
	}
	w := &wish{index: 2}
	p.seats.mu.Lock()
	p.seats.waiting = append(p.seats.waiting, w)
	p.seats.mu.Unlock()
	none, _ := p.seats.offer(t.Context(), w, models[2])
	require.Nil(t, none, "it is not its turn")
	first.leave()
	alone := <-got
	require.True(t, alone.alone)
	none, _ = p.seats.offer(t.Context(), w, models[2])
	require.Nil(t, none, "somebody is alone")
	alone.leave()
	one, _ := p.seats.offer(t.Context(), w, models[2])
	require.NotNil(t, one)
}

func TestPeaksOfTheRunSpeakForOthers(t *testing.T) {
	l := &lessons{path: t.TempDir() + "/learnt.json"}
	set := Settings{Device: "cuda:0", DeviceName: "Tesla T4", Precision: "fp16"}
	other := set
	other.DeviceName = "NVIDIA L4"
	_, ok := l.peak(Model{Name: "x"}, set)
	require.False(t, ok)
	for name, peak := range map[string]float64{"a": 1000, "b": 1200, "c": 9000} {
		require.NoError(t, l.learn(Model{Name: name}, set, lesson{Fits: true, PeakMiB: peak}))
	}
	peak, ok := l.peak(Model{Name: "x"}, set)
	require.True(t, ok)
	require.InDelta(t, 1200, peak, 0, "one giant does not keep the others apart")
	peak, _ = l.peak(Model{Name: "c"}, set)
	require.InDelta(t, 9000, peak, 0, "what it had itself counts more")
	_, ok = l.peak(Model{Name: "x"}, other)
	require.False(t, ok, "another device")
}
