//go:build unix

package magics_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/magics"
)

// plainDeps connects magics to nothing, with names that are the same on every
// machine.
func plainDeps() *magics.Deps {
	return &magics.Deps{Version: "1.2.3", Dir: "/home/you/outlast-runs", RunName: "notebook", Session: &magics.Session{}}
}

func TestEveryMagicHasItsHelp(t *testing.T) {
	for _, m := range magics.All(plainDeps()) {
		t.Run(m.Name, func(t *testing.T) {
			help := m.Help()
			magics.Golden(t, "help/"+m.Name+".txt", help)
			for line := range strings.SplitSeq(help, "\n") {
				assert.LessOrEqual(t, len([]rune(line)), 140, "a terminal shows it: %s", line)
			}
			assert.False(t, strings.HasSuffix(m.Short, "."), "Help adds the full stop")
			assert.True(t, m.Line || m.Cell, "it can be typed")
		})
	}
}

func TestHelpIsAnsweredWithoutRunningAnything(t *testing.T) {
	for _, m := range magics.All(plainDeps()) {
		for _, flag := range []string{"--help", "-h"} {
			var out strings.Builder
			require.NoError(t, m.Run(t.Context(), []string{flag}, &magics.Call{Stdout: &out}), m.Name)
			assert.Equal(t, m.Help(), out.String(), m.Name)
		}
	}
}

func TestMistakesAreAnsweredWithTheSynopsis(t *testing.T) {
	d := plainDeps()
	for _, line := range []string{
		"status a b", "status --nosuch", "results a b", "results --json --csv", "results --plot x.gif", "results --zip x.tar",
		"logs", "logs a b c", "logs a --lines -1", "logs a -n x", "attach a b", "stop a b", "resume a b", "doctor now", "gpu_config now",
		"outlast now", "outlast restart now", "shared now", "keepalive perhaps", "train", "train a b", "train --keep 0 --script x",
		"train --nosuch", "status -- x", "train --seed x",
	} {
		t.Run(line, func(t *testing.T) {
			var c typed
			err := c.run(t.Context(), d, line)
			var usage *magics.UsageError
			require.ErrorAs(t, err, &usage)
			assert.NotEmpty(t, usage.Why)
			name, _, _ := strings.Cut(line, " ")
			assert.Equal(t, name, usage.Magic.Name)
			assert.Contains(t, usage.Magic.Usage("%"), "%"+name)
			assert.Empty(t, c.out.String()+c.screen.text(), "nothing is shown beside it")
		})
	}
}

func TestFlagsOfOneCallDoNotLeakIntoTheNext(t *testing.T) {
	for _, m := range magics.All(plainDeps()) {
		first, second := pflag.NewFlagSet("", pflag.ContinueOnError), pflag.NewFlagSet("", pflag.ContinueOnError)
		m.Bind(first)
		first.VisitAll(func(f *pflag.Flag) {
			for _, value := range []string{"true", "7", "7s"} {
				if f.Value.Set(value) == nil {
					return
				}
			}
		})
		m.Bind(second)
		second.VisitAll(func(f *pflag.Flag) { assert.Equal(t, f.DefValue, f.Value.String(), "%s --%s", m.Name, f.Name) })
	}
}

func TestTheSetKnowsItsMagicsByName(t *testing.T) {
	set := magics.All(plainDeps())
	assert.Equal(t, "train", set.Lookup("train").Name)
	assert.Nil(t, set.Lookup("trains"))
	seen := map[string]bool{}
	for _, m := range set {
		assert.False(t, seen[m.Name], "%s is there twice", m.Name)
		seen[m.Name] = true
		assert.Same(t, m, set.Lookup(m.Name))
	}
}

func TestOutlastListsEveryMagic(t *testing.T) {
	d := plainDeps()
	text := must(t, d, "outlast")
	for _, m := range magics.All(d) {
		assert.Contains(t, text, "%"+m.Name)
		assert.Contains(t, strings.Join(strings.Fields(text), " "), m.Short)
	}
	for line := range strings.SplitSeq(text, "\n") {
		assert.LessOrEqual(t, len([]rune(line)), 80, "a terminal shows it: %s", line)
	}
}

func TestOutlastRestartGivesAFreshPython(t *testing.T) {
	d := deps(t)
	nb := &notebook{}
	c := typed{notebook: nb}
	require.NoError(t, c.run(t.Context(), d, "outlast restart"))
	assert.True(t, nb.restarted)
	assert.Contains(t, c.out.String(), "A fresh Python has started; its variables are gone.")
	assert.NotContains(t, c.out.String(), "not touched", "no run is there")

	m := magics.All(d).Lookup("outlast")
	assert.True(t, m.Now("restart"), "it must not wait for the Python that hangs")
	assert.False(t, m.Now(""))
	assert.True(t, m.Looks)
}

func TestWhatOnlyLooksSaysSo(t *testing.T) {
	looks := map[string]bool{}
	for _, m := range magics.All(plainDeps()) {
		looks[m.Name] = m.Looks
	}
	for _, name := range []string{"status", "logs", "results", "doctor", "outlast", "attach", "stop", "replay", "keepalive"} {
		assert.True(t, looks[name], name)
	}
	for _, name := range []string{"train", "resume", "shared", "gpu_config", "drive"} {
		assert.False(t, looks[name], name)
	}
}

func TestCureIsThatOfTheOutermostHint(t *testing.T) {
	inner := &magics.Problem{What: "in", Err: io.EOF, Hint: "inner"}
	outer := &magics.Problem{What: "out", Err: inner, Hint: "outer"}
	assert.Equal(t, "outer", magics.CureOf(outer))
	assert.Equal(t, "out: in: EOF", outer.Error())
	assert.ErrorIs(t, outer, io.EOF)
	assert.Empty(t, magics.CureOf(errors.New("plain")))
	assert.Empty(t, magics.CureOf(context.Canceled))
}
