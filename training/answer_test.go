package training

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// play lets attempts end like this, one after the other, and returns what is
// done about the last one, and the fits that were tried.
func play(p *patience, fit Fit, ends ...outcome) (last answer, tried []string) {
	for _, end := range ends {
		last = p.answer(end, false, fit)
		fit = last.fit
		tried = append(tried, fit.String())
	}
	return last, tried
}

func times(n int, end outcome) []outcome {
	all := make([]outcome, n)
	for i := range all {
		all[i] = end
	}
	return all
}

func TestAnswers(t *testing.T) {
	fit := Fit{BatchSize: 8, GradAccum: 2}
	for name, test := range map[string]struct {
		ends []outcome
		want ModelState
	}{
		"done":                       {times(1, outcome{cause: CauseDone}), ModelDone},
		"paused":                     {times(1, outcome{cause: CausePaused}), ModelPaused},
		"an error":                   {times(1, outcome{cause: CauseError}), ModelFailed},
		"crashes within the retries": {times(2, outcome{cause: CauseCrash}), ModelPending},
		"one crash too many":         {times(3, outcome{cause: CauseCrash}), ModelFailed},
		"kills":                      {times(maxFruitless-1, outcome{cause: CauseKilled}), ModelPending},
		"kills without end":          {times(maxFruitless, outcome{cause: CauseKilled}), ModelFailed},
		"no process to be had":       {times(maxFruitless-1, outcome{cause: CauseKilled, unstarted: true}), ModelPending},
		"none for long":              {times(maxFruitless, outcome{cause: CauseKilled, unstarted: true}), ModelFailed},
		"hangs":                      {times(2, outcome{cause: CauseHang}), ModelPending},
		"hangs without end":          {times(3, outcome{cause: CauseHang}), ModelFailed},
		"a full disk":                {times(maxFull, outcome{cause: CauseDiskFull}), ModelPending},
		"another full disk":          {times(maxFull+1, outcome{cause: CauseDiskFull}), ModelFailed},
		"a device that is gone":      {times(2, outcome{cause: CauseDeviceLost}), ModelPaused},
		"no memory in the machine":   {times(3, outcome{cause: CauseHostOOM}), ModelFailed},
		"a neighbour":                {times(maxWaits, outcome{cause: CauseDeviceOOM, shortage: ShortageNeighbour}), ModelPending},
		"a neighbour that stays":     {times(maxWaits+1, outcome{cause: CauseDeviceOOM, shortage: ShortageNeighbour}), ModelFailed},
		"a library says so":          {times(1, outcome{cause: CauseDeviceOOM, shortage: ShortageUnclear}), ModelPending},
		"a library says so again":    {times(2, outcome{cause: CauseDeviceOOM, shortage: ShortageUnclear}), ModelFailed},
	} {
		t.Run(name, func(t *testing.T) {
			last, _ := play(&patience{retries: 2}, fit, test.ends...)
			assert.Equal(t, test.want, last.state)
		})
	}
}

// Kills, hangs and full disks are counted by themselves: none uses up what
// crashes have left.
func TestOnlyCrashesUseUpRetries(t *testing.T) {
	p := &patience{retries: 1}
	for _, cause := range []Cause{CauseKilled, CauseLost, CauseHang, CauseDiskFull, CauseHostOOM, CauseDeviceOOM, CauseDeviceLost} {
		p.answer(outcome{cause: cause}, false, Fit{BatchSize: 8, GradAccum: 1})
	}
	require.Equal(t, 1, p.retries)
	require.Equal(t, ModelPending, p.answer(outcome{cause: CauseCrash}, true, Fit{}).state)
	require.Equal(t, ModelFailed, p.answer(outcome{cause: CauseCrash}, true, Fit{}).state, "getting further gives no retries back")
}

func TestProgressForgivesWhatIsCountedInARow(t *testing.T) {
	p := &patience{}
	for range 10 * maxFruitless {
		require.Equal(t, ModelPending, p.answer(outcome{cause: CauseKilled}, true, Fit{}).state)
		require.Equal(t, ModelPending, p.answer(outcome{cause: CauseHang}, true, Fit{}).state)
	}
}

func TestDeviceMemoryIsUsedMoreSparinglyStepByStep(t *testing.T) {
	own := outcome{cause: CauseDeviceOOM, memory: memory{Tried: 1024, Allocated: 14336, Total: 15360}}
	last, tried := play(&patience{}, Fit{BatchSize: 8, GradAccum: 2}, times(5, own)...)
	require.Equal(t, []string{
		"batch 4 × accumulation 4", "batch 2 × accumulation 8", "batch 1 × accumulation 16",
		"batch 1 × accumulation 16, gradient checkpointing", "batch 1 × accumulation 16, gradient checkpointing",
	}, tried)
	require.Equal(t, ModelFailed, last.state)
	require.Equal(t, "It does not fit, not even one sample at a time with gradient checkpointing. It needs more than 15.0 GiB; the device has 15.0 GiB.", last.say)
	first, _ := play(&patience{}, Fit{BatchSize: 8, GradAccum: 2}, own)
	require.Contains(t, first.say, "not the same bit for bit")
}

func TestTheEffectiveBatchStays(t *testing.T) {
	for _, fit := range []Fit{{BatchSize: 15, GradAccum: 4}, {BatchSize: 7, GradAccum: 1}, {BatchSize: 64, GradAccum: 1}, {BatchSize: 6, GradAccum: 5}} {
		effective := fit.BatchSize * fit.GradAccum
		for next, ok := fit.smaller(); ok; next, ok = next.smaller() {
			require.Equal(t, effective, next.BatchSize*next.GradAccum)
			require.True(t, next.BatchSize <= fit.BatchSize/2 || next.GradCheckpointing)
			fit = next
		}
		require.Equal(t, 1, fit.BatchSize)
	}
}

func TestWhoseMemoryItWasDecidesTheAnswer(t *testing.T) {
	fit := Fit{BatchSize: 8, GradAccum: 2}
	neighbour, tried := play(&patience{}, fit, times(3, outcome{cause: CauseDeviceOOM, shortage: ShortageNeighbour})...)
	assert.Equal(t, fit.String(), tried[2], "to shrink would not help")
	assert.Equal(t, 4*time.Second, neighbour.wait)
	_, tried = play(&patience{}, fit, times(2, outcome{cause: CauseDeviceOOM, shortage: ShortageScattered})...)
	assert.Equal(t, []string{"batch 8 × accumulation 2", "batch 4 × accumulation 4"}, tried, "a new process first")
	_, tried = play(&patience{}, fit, outcome{cause: CauseDeviceOOM, shortage: ShortageCap})
	assert.Equal(t, []string{"batch 4 × accumulation 4"}, tried)
}

func TestHostMemoryIsSavedAtTheLoadersNotAtTheBatch(t *testing.T) {
	last, tried := play(&patience{}, Fit{BatchSize: 8, GradAccum: 2}, times(3, outcome{cause: CauseHostOOM})...)
	require.Equal(t, []string{
		"batch 8 × accumulation 2, at most 2 loader processes", "batch 8 × accumulation 2, at most 0 loader processes", "batch 8 × accumulation 2, at most 0 loader processes",
	}, tried)
	require.Contains(t, last.say, "more memory than this machine has")
}

func TestWaits(t *testing.T) {
	p := &patience{}
	var waits []time.Duration
	for range 12 {
		waits = append(waits, p.answer(outcome{cause: CauseKilled}, false, Fit{}).wait)
	}
	s := time.Second
	require.Equal(t, []time.Duration{0, 0, 0, s, 2 * s, 4 * s, 8 * s, 16 * s, 32 * s, 60 * s, 60 * s, 60 * s}, waits)
	require.Equal(t, uint64(64<<20), (&patience{}).answer(outcome{cause: CauseDiskFull}, false, Fit{}).space)
	require.Equal(t, longestWait, backoff(1000), "and no overflow")
}

func TestADeviceThatIsGoneStopsTheRun(t *testing.T) {
	p := &patience{}
	once := p.answer(outcome{cause: CauseDeviceLost}, false, Fit{})
	require.Equal(t, ModelPending, once.state)
	twice := p.answer(outcome{cause: CauseDeviceLost}, false, Fit{})
	require.True(t, twice.halt)
	require.True(t, strings.HasPrefix(twice.say, "The run is paused"))
}

func TestATighterFit(t *testing.T) {
	two, none := 2, 0
	planned := Fit{BatchSize: 16, GradAccum: 4}
	for name, test := range map[string]struct {
		learnt Fit
		want   string
	}{
		"smaller":             {Fit{BatchSize: 4, GradAccum: 16}, "batch 4 × accumulation 16"},
		"larger":              {Fit{BatchSize: 32, GradAccum: 1}, "batch 16 × accumulation 4"},
		"no divisor":          {Fit{BatchSize: 5, GradAccum: 3}, "batch 4 × accumulation 16"},
		"other memory":        {Fit{BatchSize: 16, GradAccum: 4, LoaderWorkers: &two}, "batch 16 × accumulation 4, at most 2 loader processes"},
		"recomputing":         {Fit{BatchSize: 1, GradAccum: 64, GradCheckpointing: true}, "batch 1 × accumulation 64, gradient checkpointing"},
		"a file without more": {Fit{}, "batch 16 × accumulation 4"},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, planned.tighter(test.learnt).String()) })
	}
	planned.LoaderWorkers = &none
	require.Equal(t, 0, *planned.tighter(Fit{LoaderWorkers: &two}).LoaderWorkers)
}
