//go:build unix

package magics_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/magics"
)

func TestSplit(t *testing.T) {
	set := magics.All(deps(t))
	for name, c := range map[string]struct {
		code  string
		lines int
		calls []string // as typed, without the help flag
	}{
		"nothing":                          {"", 0, nil},
		"python":                           {"x = 1\n%status", 0, nil},
		"one line":                         {"%status", 1, []string{"%status"}},
		"arguments":                        {"%status digits --json\n", 1, []string{"%status digits --json"}},
		"colab's title":                    {"#@title Train\n\n%status", 3, []string{"%status"}},
		"python below":                     {"%status\nx = 1\n%stop", 1, []string{"%status"}},
		"several":                          {"%status\n\n# then\n%results digits\nx = 1", 4, []string{"%status", "%results digits"}},
		"comments below stay python's":     {"%status\n# note\n", 1, []string{"%status"}},
		"cell takes all":                   {"%%train digits\na = 1\nb = 2\n", 3, []string{"%%train digits"}},
		"cell without a body of ours":      {"%%shared\nimport torch\n", 1, []string{"%%shared"}},
		"title above a cell":               {"#@title x\n%%train digits\na = 1", 3, []string{"%%train digits"}},
		"a cell magic below a line magic":  {"%status\n%%train\na", 1, []string{"%status"}},
		"another magic":                    {"%matplotlib inline", 0, nil},
		"another magic first":              {"%matplotlib inline\n%status", 0, nil},
		"another cell magic":               {"%%time\n%status", 0, nil},
		"a line magic as a cell":           {"%%status\n", 0, nil},
		"a cell magic as a line":           {"%shared", 0, nil},
		"train as a line":                  {"%train --script x.py", 1, []string{"%train --script x.py"}},
		"indented is python's":             {"  %status", 0, nil},
		"assignment is python's":           {"s = %status", 0, nil},
		"a longer name":                    {"%statuses", 0, nil},
		"help":                             {"%train?", 1, []string{"%train"}},
		"help of a cell magic":             {"%%train?", 1, []string{"%%train"}},
		"a flag for help":                  {"%shared --help", 1, []string{"%shared --help"}},
		"a flag for help of the other":     {"%%status -h\nx = 1", 2, []string{"%%status -h"}},
		"help of a command that is run":    {"%train x -- prog --help", 1, []string{"%train x -- prog --help"}},
		"help with two marks":              {"%status??", 1, []string{"%status"}},
		"goes on behind a backslash":       {"%train --script a.py \\\n   --seed 3\nx", 2, []string{"%train --script a.py  --seed 3"}},
		"a backslash at the end":           {"%status \\", 1, []string{`%status \`}},
		"windows line ends":                {"%status\r\nx = 1\r\n", 1, []string{"%status"}},
		"tab behind the name":              {"%status\tdigits", 1, []string{"%status digits"}},
		"a percent sign alone":             {"%", 0, nil},
		"three percent signs":              {"%%%train", 0, nil},
		"help of what is not ours":         {"%matplotlib?", 0, nil},
		"an empty body":                    {"%%train digits", 1, []string{"%%train digits"}},
		"a question mark in the arguments": {"%status ?", 1, []string{"%status ?"}},
	} {
		t.Run(name, func(t *testing.T) {
			calls, lines := set.Split(c.code)
			assert.Equal(t, c.lines, lines, "lines of ours")
			var typed []string
			for _, i := range calls {
				prompt := "%"
				if i.Cell {
					prompt = "%%"
				}
				typed = append(typed, strings.TrimSpace(prompt+i.Name+" "+i.Args))
			}
			assert.Equal(t, c.calls, typed)
		})
	}
}

func TestEveryMagicAnswersHoweverHelpIsAskedFor(t *testing.T) {
	set := magics.All(deps(t))
	for _, m := range set {
		for _, line := range []string{"%NAME?", "%%NAME?", "%NAME??", "%NAME --help", "%%NAME --help", "%NAME -h", "%%NAME -h"} {
			calls, lines := set.Split(strings.ReplaceAll(line, "NAME", m.Name))
			require.Len(t, calls, 1, "%s of %s", line, m.Name)
			assert.Equal(t, 1, lines)
			assert.True(t, calls[0].Help, "%s of %s", line, m.Name)
			assert.Equal(t, m.Name, calls[0].Name)
		}
	}
	calls, _ := set.Split("%train x -- prog --help")
	assert.False(t, calls[0].Help, "the command's own")
}

func TestSplitGivesACellMagicItsBody(t *testing.T) {
	calls, _ := magics.All(deps(t)).Split("# first\n%%train digits\n\na = 1\n")
	require.Len(t, calls, 1)
	assert.Equal(t, "\na = 1\n", calls[0].Body)
}

func TestWordsAreThoseOfAShell(t *testing.T) {
	for args, want := range map[string][]string{
		`a  b`:                {"a", "b"},
		`"two words" 'and $'`: {"two words", "and $"},
		`a\ b`:                {"a b"},
		``:                    nil,
	} {
		got, err := magics.Invocation{Args: args}.Words()
		require.NoError(t, err, args)
		assert.ElementsMatch(t, want, got, args)
	}
	_, err := magics.Invocation{Args: `"open`}.Words()
	assert.Error(t, err)
}

func FuzzSplit(f *testing.F) {
	for _, seed := range []string{
		"%status", "%%train x\nbody", "#@title\n\n%status \\\n a\n%train?\nx", "%\n%%\n%%%", "%%shared\n", "\\\n%status\\", "%status\r\n\r\n%stop\r",
	} {
		f.Add(seed)
	}
	set := magics.All(deps(f))
	f.Fuzz(func(t *testing.T, code string) {
		calls, lines := set.Split(code)
		if lines < 0 || lines > len(strings.SplitAfter(code, "\n")) {
			t.Fatalf("%d lines of a cell that has fewer: %q", lines, code)
		}
		if (len(calls) == 0) != (lines == 0) {
			t.Fatalf("%d calls in %d lines: %q", len(calls), lines, code)
		}
		last := 0
		for _, c := range calls {
			if set.Lookup(c.Name) == nil || c.Lines <= last || c.Lines > lines {
				t.Fatalf("%+v of %d lines: %q", c, lines, code)
			}
			last = c.Lines
		}
		own := strings.Join(strings.SplitAfter(code, "\n")[:lines], "")
		again, n := set.Split(own)
		if n != lines || len(again) != len(calls) {
			t.Fatalf("split again: %d calls in %d lines, then %d in %d: %q", len(calls), lines, len(again), n, code)
		}
	})
}
