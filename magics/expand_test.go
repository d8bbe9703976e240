package magics_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/magics"
)

func TestExpandAsksForWhatMayMeanSomething(t *testing.T) {
	for args, want := range map[string]string{
		"digits":                       "digits",
		"{run}":                        "<{run}>",
		"{run} --seed {n + 1}":         "<{run}> --seed <{n + 1}>",
		"$run.name-x":                  "<$run.name>-x",
		"a{d['k']}b":                   "a<{d['k']}>b",
		"{ {1: 2}[1] }":                "<{ {1: 2}[1] }>",
		"{{name}}":                     "<{{>name<}}>",
		"cost: 5$ and $ 3":             "cost: 5$ and $ 3",
		"$$HOME":                       "<$$>HOME",
		"{open":                        "{open",
		"close}":                       "close}",
		"{run} -- bash t.sh {name} $x": "<{run}> -- bash t.sh {name} $x",
		"-- {name}":                    "-- {name}",
		"--script {s} --seed 3":        "--script <{s}> --seed 3",
		"a--b {x}":                     "a--b <{x}>",
		"":                             "",
	} {
		i := magics.Invocation{Args: args}
		require.NoError(t, i.Expand(func(pieces []string) ([]string, error) {
			var answers []string
			for _, p := range pieces {
				answers = append(answers, "<"+p+">")
			}
			return answers, nil
		}), args)
		assert.Equal(t, want, i.Args)
	}
}

func TestExpandAsksNothingWithoutNeed(t *testing.T) {
	for _, args := range []string{"digits --json", "-- {name}", "5$"} {
		i := magics.Invocation{Args: args}
		assert.NoError(t, i.Expand(func([]string) ([]string, error) { return nil, errors.New("asked") }), args)
	}
}

func TestExpandTellsWhatWentWrong(t *testing.T) {
	i := magics.Invocation{Args: "{a} {b}"}
	assert.Error(t, i.Expand(func([]string) ([]string, error) { return nil, errors.New("python is gone") }))
	assert.Error(t, i.Expand(func([]string) ([]string, error) { return []string{"one"}, nil }), "an answer is missing")
	assert.Equal(t, "{a} {b}", i.Args)
}

func FuzzExpand(f *testing.F) {
	for _, seed := range []string{"{a} $b -- {c}", "{{}}$$", "{", "$", "a -- b", "é{ü}$ö"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, args string) {
		i := magics.Invocation{Args: args}
		err := i.Expand(func(pieces []string) ([]string, error) { return pieces, nil })
		if err != nil || i.Args != args {
			t.Fatalf("what stands for itself is not there again: %q, then %q (%v)", args, i.Args, err)
		}
		if own, _, found := strings.Cut(args, " -- "); found && i.Expand(func(p []string) ([]string, error) { return make([]string, len(p)), nil }) == nil {
			if !strings.HasSuffix(i.Args, args[len(own):]) {
				t.Fatalf("%q was changed behind --: %q", args, i.Args)
			}
		}
	})
}
