package kernel

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"outlast/kernel/jupyter"
)

// A track is a lane whose hands write down what they are told to do.
type track struct {
	lane
	done []string
	made map[string]*execution
}

func newTrack() *track {
	k := &track{made: map[string]*execution{}}
	note := func(what string) func(*execution) {
		return func(x *execution) { k.done = append(k.done, what+x.cell.Code) }
	}
	k.lane = newLane(note(">"), note("run "))
	return k
}

// cell adds a cell: %x is ours, %x+ is ours with Python below it, %look and %now
// are what they say, x? is one whose errors abort nothing.
func (k *track) cell(code string) {
	x := &execution{cell: &Cell{Code: code}, route: &route{request: &jupyter.Message{}}, stops: !strings.HasSuffix(code, "?")}
	if strings.HasPrefix(code, "%") {
		x.claim = Claim{Lines: 1, Whole: !strings.HasSuffix(code, "+"), Looks: strings.HasPrefix(code, "%look"), Now: strings.HasPrefix(code, "%now")}
	}
	k.made[code] = x
	k.add(x)
}

// fail ends a cell with an error, as the proxy does.
func (k *track) fail(x *execution) {
	k.abort(k.doom(x))
	if x.claim.Lines == 0 {
		k.answered(x)
	} else {
		k.finished(x)
	}
}

func (k *track) abort(doomed []*execution) {
	for _, x := range doomed {
		k.done = append(k.done, "abort "+x.cell.Code)
	}
}

func (k *track) loseChild(up bool, had ...*execution) { k.abort(k.lost(had, up)) }

// saw returns what was done since the last call.
func (k *track) saw() string {
	text := strings.Join(k.done, ", ")
	k.done = nil
	return text
}

func TestCellsOfTheChildGoToItAsTheyCome(t *testing.T) {
	k := newTrack()
	k.cell("a")
	k.cell("b")
	assert.Equal(t, ">a, >b", k.saw())
}

func TestACellOfOursWaitsForWhatCameBeforeItAndHoldsWhatComesBehind(t *testing.T) {
	k := newTrack()
	for _, code := range []string{"a", "b", "%m", "c", "%n"} {
		k.cell(code)
	}
	assert.Equal(t, ">a, >b", k.saw())
	k.answered(k.made["a"])
	assert.Empty(t, k.saw(), "b is not answered")
	k.answered(k.made["b"])
	assert.Equal(t, "run %m", k.saw())
	k.finished(k.made["%m"])
	assert.Equal(t, ">c", k.saw())
	k.answered(k.made["c"])
	assert.Equal(t, "run %n", k.saw())
}

func TestAMixedCellHoldsTheOthersUntilItsPythonIsAnswered(t *testing.T) {
	k := newTrack()
	k.cell("%m+")
	k.cell("b")
	k.give(k.made["%m+"])
	assert.Equal(t, "run %m+", k.saw())
	k.answered(k.made["%m+"])
	assert.Equal(t, ">b", k.saw())
}

func TestAnErrorAbortsWhatWaitsBehindIt(t *testing.T) {
	for name, c := range map[string]struct {
		cells []string
		end   func(*track)
		want  string
	}{
		"of the child":                {[]string{"a", "%m", "b"}, func(k *track) { k.fail(k.made["a"]) }, "abort %m, abort b"},
		"of the child, not to stop":   {[]string{"a?", "%m", "b"}, func(k *track) { k.fail(k.made["a?"]) }, "run %m"},
		"of ours":                     {[]string{"%m", "a", "%n"}, func(k *track) { k.fail(k.made["%m"]) }, "abort a, abort %n"},
		"of ours, not to stop":        {[]string{"%m?", "a"}, func(k *track) { k.fail(k.made["%m?"]) }, ">a"},
		"in the Python below a magic": {[]string{"%m+", "a"}, func(k *track) { k.give(k.made["%m+"]); k.fail(k.made["%m+"]) }, "abort a"},
	} {
		t.Run(name, func(t *testing.T) {
			k := newTrack()
			for _, code := range c.cells {
				k.cell(code)
			}
			k.saw()
			c.end(k)
			assert.Equal(t, c.want, k.saw())
			k.cell("later")
			if !strings.HasPrefix(c.want, "run") {
				assert.Equal(t, ">later", k.saw(), "a cell that comes after the abort runs")
			}
		})
	}
}

func TestACellThatOnlyLooksIsAnsweredBesideOneThatWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newTrack()
		k.cell("a")
		k.cell("%look 1")
		assert.Equal(t, ">a", k.saw(), "so soon it may belong to a run of all cells")
		k.answered(k.made["a"])
		k.finished(k.made["%look 1"])
		k.saw()

		k.cell("b")
		time.Sleep(asideAfter + 1)
		k.cell("%look 2")
		assert.Equal(t, ">b, run %look 2", k.saw())
		assert.True(t, k.made["%look 2"].aside)
		k.fail(k.made["%look 2"])
		assert.Empty(t, k.saw(), "its error aborts nobody")

		k.cell("c")
		k.answered(k.made["b"])
		k.cell("%look 3")
		assert.Equal(t, ">c", k.saw(), "c has only just begun")
	})
}

func TestACellThatOnlyLooksWaitsBehindSeveral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newTrack()
		k.cell("a")
		k.cell("b")
		time.Sleep(asideAfter + 1)
		k.cell("%look")
		k.cell("%mixed look+")
		assert.Equal(t, ">a, >b", k.saw())
	})
}

func TestACellThatMustNotWaitDoesNot(t *testing.T) {
	k := newTrack()
	k.cell("a")
	k.cell("b")
	k.cell("%m")
	k.cell("%now")
	assert.Equal(t, ">a, >b, run %now", k.saw())
}

func TestTheLossOfTheChildFreesTheLane(t *testing.T) {
	k := newTrack()
	for _, code := range []string{"a", "b", "%m", "c"} {
		k.cell(code)
	}
	k.saw()
	k.loseChild(true, k.made["a"], k.made["b"])
	assert.Equal(t, "abort %m, abort c", k.saw())
	k.cell("%n")
	assert.Equal(t, "run %n", k.saw())
}

func TestTheLossOfTheChildSparesTheCellOfOursThatRuns(t *testing.T) {
	k := newTrack()
	k.cell("%m")
	k.cell("a")
	k.loseChild(true)
	assert.Equal(t, "run %m, abort a", k.saw())
	k.cell("b")
	assert.Empty(t, k.saw(), "%m still runs")
	k.finished(k.made["%m"])
	assert.Equal(t, ">b", k.saw())
}

func TestTheLossOfAChildThatHadNotAnsweredYetAbortsNothing(t *testing.T) {
	k := newTrack()
	k.cell("a") // waits for the next child
	k.cell("%m")
	k.loseChild(false)
	k.answered(k.made["a"])
	assert.Equal(t, ">a, run %m", k.saw())
}

func TestAnInterruptMeansTheCellsOfOursAndTheChildIfItWorks(t *testing.T) {
	for name, c := range map[string]struct {
		cells []string
		given bool
		all   bool // nothing is left for the child
	}{
		"nothing runs":                  {nil, false, false},
		"a cell of ours":                {[]string{"%m"}, false, true},
		"the child":                     {[]string{"a"}, false, false},
		"the Python of a mixed cell":    {[]string{"%m+"}, true, false},
		"the child, and we beside it":   {[]string{"a", "%now"}, false, false},
		"the magics of a mixed cell":    {[]string{"%m+"}, false, true},
		"two of ours, one beside other": {[]string{"%m", "%now"}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			k := newTrack()
			ended := 0
			for _, code := range c.cells {
				k.cell(code)
				k.made[code].end = func(error) { ended++ }
				if c.given {
					k.give(k.made[code])
				}
			}
			assert.Equal(t, c.all, k.interrupt(ErrInterrupted))
			if c.all {
				assert.Len(t, c.cells, ended)
			}
		})
	}
}

func TestRoutesAnswerInTurnWhoUsesOneIDTwice(t *testing.T) {
	table := routes{byID: map[string][]*route{}}
	ask := func(id string, sent int) *route {
		r := &route{request: &jupyter.Message{Header: jupyter.Header{ID: id}}, sent: sent}
		table.add(r)
		return r
	}
	first, second := ask("same", 1), ask("same", 1)
	assert.Same(t, first, table.get("same"))
	table.remove(first)
	table.remove(first)
	assert.Same(t, second, table.get("same"))
	other, later := ask("other", 1), ask("later", 2)
	again := ask("same", 1)
	assert.Equal(t, []*route{second, other, again}, table.takeSent(1), "in the order of their arrival")
	assert.Nil(t, table.get("same"))
	assert.Same(t, later, table.get("later"))
}

func TestRoutesForgetTheOldestThatNobodyAnswersButNoCell(t *testing.T) {
	table := routes{byID: map[string][]*route{}}
	cell := &route{request: &jupyter.Message{Header: jupyter.Header{ID: "cell"}}, cell: &execution{}}
	table.add(cell)
	for i := range 10 * maxRoutes {
		table.add(&route{request: &jupyter.Message{Header: jupyter.Header{ID: string(rune(i + 1))}}})
	}
	assert.LessOrEqual(t, len(table.order), 2*maxRoutes)
	assert.LessOrEqual(t, len(table.byID), 2*maxRoutes)
	assert.Same(t, cell, table.get("cell"))
}
