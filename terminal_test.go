package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"outlast/magics"
)

func TestALogHasEveryLineOnceAndTheWholeAtTheEnd(t *testing.T) {
	var out bytes.Buffer
	live := newTerminal(&out).Live()
	lines := func(l ...string) func() []string { return func() []string { return l } }
	live.Update(magics.View{Text: "table 1", Log: lines("a: running")})
	live.Update(magics.View{Text: "table 2", Log: lines("a: running")})
	live.Update(magics.View{Text: "table 3", Log: lines("a: done", "b: running")})
	live.Update(magics.View{Text: "table 4", Final: true, Log: lines("a: done", "b: done")})
	assert.Equal(t, "a: running\na: done\nb: running\ntable 4\n", out.String())
}

func TestAViewWithoutALogIsWrittenWhenItChanges(t *testing.T) {
	var out bytes.Buffer
	live := newTerminal(&out).Live()
	for _, text := range []string{"one", "one", "two"} {
		live.Update(magics.View{Text: text})
	}
	assert.Equal(t, "one\ntwo\n", out.String())
}

func TestConsolesAreKnownByTheirConnectionFile(t *testing.T) {
	for file, want := range map[string]bool{
		"/run/user/0/jupyter/kernel-4711.json":                          true,  // jupyter console, qtconsole
		"/run/jupyter/kernel-0b1e7a2c-5f0e-4b8e-9c0d-1d5a6f7e8a9b.json": false, // a server
		"/tmp/tmpab12cd.json":                                           false, // nbclient
		"/tmp/kernel-.json":                                             false,
		"kernel-12a.json":                                               false,
	} {
		assert.Equal(t, want, isConsole(file), file)
	}
}

func TestWhatIsShownOnceFitsAndIsNotDrawnOver(t *testing.T) {
	var out bytes.Buffer
	view := magics.View{Text: "wide", Fit: func(width, _ int) string { return fmt.Sprint("in ", width) }}
	assert.Equal(t, "in 40", fit(view, 40))
	assert.Equal(t, "wide", fit(view, 0))
	console := newTerminal(&out)
	console.once = true
	live := console.Live()
	live.Update(magics.View{Text: "1", Log: func() []string { return []string{"a: running"} }})
	live.Update(magics.View{Text: "2", Final: true, Log: func() []string { return nil }})
	assert.Equal(t, "a: running\n2\n", out.String())
}

func TestWhereNobodyKnowsTheWidthTheTextIsShownAsItIs(t *testing.T) {
	var out bytes.Buffer
	newTerminal(&out).Show(magics.View{Text: "as it is", Fit: func(int, int) string { return "fitted" }})
	assert.Equal(t, "as it is\n", out.String())
}

func TestLinesAreCutToTheScreen(t *testing.T) {
	lines := []string{"short", strings.Repeat("ä", 12), "third", "fourth"}
	assert.Equal(t, []string{"short", strings.Repeat("ä", 9) + "…", "third", "fourth"}, fitted(lines, 10, 24))
	assert.Equal(t, []string{"short", strings.Repeat("ä", 12), "…"}, fitted(lines, 80, 4), "a line is left for the cursor")
	assert.Equal(t, lines, fitted(lines, 0, 0), "a size that nobody knows")
}

func TestANarrowerScreenHasWrappedWhatWasDrawn(t *testing.T) {
	lines := []string{"12345", "1234567890", "12345678901"}
	assert.Equal(t, 3, height(lines, 80))
	assert.Equal(t, 4, height(lines, 10))
	assert.Equal(t, 1+2+3, height(lines, 5))
	assert.Equal(t, 3, height(lines, 0))
}
