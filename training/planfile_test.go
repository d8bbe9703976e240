package training_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/training"
)

// update rewrites the golden files; look at what changed.
var update = flag.Bool("update", false, "rewrite testdata/plans/*.txt") //nolint:gochecknoglobals // flags are

// TestPlanFiles reads every plan of testdata/plans as the command line does. What
// is wrong with it, and what to do, stands beside it in a golden file; of a plan
// that is right, what was read.
func TestPlanFiles(t *testing.T) {
	plans, err := filepath.Glob("testdata/plans/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, plans)
	here, err := filepath.Abs("testdata/plans")
	require.NoError(t, err)
	for _, path := range plans {
		t.Run(filepath.Base(path), func(t *testing.T) {
			p, err := training.ReadPlan(path)
			if err == nil {
				p.Seal()
				err = p.Validate()
			}
			var got string
			if err == nil {
				got = portray(t, p)
			} else {
				var wrong *training.PlanError
				require.ErrorAs(t, err, &wrong)
				require.NotEmpty(t, wrong.Cure())
				got = wrong.Error() + "\n" + wrong.Cure() + "\n"
			}
			got = strings.ReplaceAll(got, here, "HERE")
			got = strings.ReplaceAll(got, filepath.Dir(here), "ABOVE")
			golden := strings.TrimSuffix(path, ".yaml") + ".txt"
			if *update {
				require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), got)
		})
	}
}

// portray shows a plan without what differs from machine to machine.
func portray(t *testing.T, p *training.Plan) string {
	t.Helper()
	for i := range p.Models {
		require.Len(t, p.Models[i].Fingerprint, 64)
		p.Models[i].Fingerprint = ""
	}
	data, err := json.MarshalIndent(p, "", "  ")
	require.NoError(t, err)
	return string(data) + "\n"
}

func TestAPlanFileThatIsNotThere(t *testing.T) {
	_, err := training.ReadPlan("testdata/plans/none.yaml")
	var wrong *training.PlanError
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, "testdata/plans/none.yaml", wrong.File)
	require.NotEmpty(t, wrong.Cure())
}

func TestModelLists(t *testing.T) {
	tests := map[string]struct {
		text string
		want []training.Model
		err  string
	}{
		"names":                    {`["a", "b"]`, []training.Model{{Name: "a"}, {Name: "b"}}, ""},
		"objects":                  {`[{"name": "a", "lr": 0.1}]`, []training.Model{{Name: "a", Params: map[string]any{"lr": 0.1}}}, ""},
		"with params":              {"- name: a\n  params: {lr: 0.1}\n  batch_size: 8\n", []training.Model{{Name: "a", Params: map[string]any{"lr": 0.1}, BatchSize: 8}}, ""},
		"an object in its order":   {"b: {lr: 1}\na: {}\n", []training.Model{{Name: "b", Params: map[string]any{"lr": uint64(1)}}, {Name: "a", Params: map[string]any{}}}, ""},
		"names without more":       {"b:\na:\n", []training.Model{{Name: "b"}, {Name: "a"}}, ""},
		"a small number":           {"[{name: a, lr: 1e-5, id: \"1e-5\"}]", []training.Model{{Name: "a", Params: map[string]any{"lr": 1e-5, "id": "1e-5"}}}, ""},
		"under models":             {"models: [a]", []training.Model{{Name: "a"}}, ""},
		"a number":                 {"3", nil, "m.yaml: it is no list of models"},
		"a list of numbers":        {"[1]", nil, "m.yaml: entry 1 is neither a name nor an object"},
		"no name":                  {"[{lr: 1}]", nil, "m.yaml: entry 1: it has no name"},
		"a batch that is none":     {"[{name: a, params: {}, batch_size: x}]", nil, "m.yaml: entry 1: its batch_size is no whole number of samples: x"},
		"half a sample":            {"[{name: a, params: {}, batch_size: 16.5}]", nil, "m.yaml: entry 1: its batch_size is no whole number of samples: 16.5"},
		"a number and more":        {"[{name: a, params: {}, batch_size: 8x}]", nil, "m.yaml: entry 1: its batch_size is no whole number of samples: 8x"},
		"less than no samples":     {"[{name: a, params: {}, batch_size: -8}]", nil, "m.yaml: entry 1: its batch_size is no whole number of samples: -8"},
		"a key beside params":      {"[{name: a, params: {depth: 2}, lr: 0.1, batch: 8}]", nil, "m.yaml: entry 1: it has params, and beside them batch, lr"},
		"parameters that are none": {"a: 3", nil, "m.yaml: the parameters of a are no object"},
		"no YAML":                  {"[", nil, "m.yaml:1: sequence end token ']' not found"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := training.ParseModels([]byte(test.text), "m.yaml")
			if test.err != "" {
				require.EqualError(t, err, test.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.want, got)
		})
	}
}

// What is written beside params would be left out, and the model trained without.
func TestAKeyBesideParamsHasItsCure(t *testing.T) {
	_, err := training.ParseModels([]byte("[{name: a, params: {}, lr: 0.1}]"), "m.yaml")
	var wrong *training.PlanError
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, "put lr into params, or leave params out: then all keys beside name are parameters", wrong.Cure())
}

// Code and parameters make another model of it; how the machine trains it does
// not.
func TestFingerprints(t *testing.T) {
	seal := func(change func(*training.Plan)) string {
		p := &training.Plan{
			Run: "r", Code: training.Code{Kind: training.CodeCell, Source: "x = 1", Shared: []string{"import torch"}},
			Settings: training.Settings{EffectiveBatch: 16, BatchSize: 4, LoRARank: 8, Seed: 1},
			Models:   []training.Model{{Name: "a", Params: map[string]any{"lr": 1.0, "n": 1}}},
		}
		change(p)
		p.Seal()
		return p.Models[0].Fingerprint
	}
	same := seal(func(*training.Plan) {})
	for name, change := range map[string]func(*training.Plan){
		"batch":      func(p *training.Plan) { p.Settings.BatchSize, p.Settings.GradAccum = 2, 8 },
		"precision":  func(p *training.Plan) { p.Settings.Precision = "bf16" },
		"store":      func(p *training.Plan) { p.Store = "/copies" },
		"what stays": func(p *training.Plan) { p.Settings.Keep, p.Settings.KeepBest = 9, "loss:min" },
		"run's name": func(p *training.Plan) { p.Run = "s" },
		"read again": func(p *training.Plan) {
			p.Seal()
			data, err := json.Marshal(p)
			require.NoError(t, err)
			*p = training.Plan{}
			d := json.NewDecoder(strings.NewReader(string(data)))
			d.UseNumber()
			require.NoError(t, d.Decode(p))
		},
	} {
		assert.Equal(t, same, seal(change), name)
	}
	for name, change := range map[string]func(*training.Plan){
		"code":            func(p *training.Plan) { p.Code.Source = "x = 2" },
		"shared cells":    func(p *training.Plan) { p.Code.Shared = nil },
		"a parameter":     func(p *training.Plan) { p.Models[0].Params["lr"] = 2.0 },
		"1 is not 1.0":    func(p *training.Plan) { p.Models[0].Params["n"] = 1.0 },
		"seed":            func(p *training.Plan) { p.Settings.Seed = 2 },
		"effective batch": func(p *training.Plan) { p.Settings.EffectiveBatch = 32 },
		"LoRA rank":       func(p *training.Plan) { p.Settings.LoRARank = 4 },
		"asked for anew":  func(p *training.Plan) { p.Models[0].Anew = 1 },
	} {
		assert.NotEqual(t, same, seal(change), name)
	}
}

func TestIntervals(t *testing.T) {
	for text, want := range map[string]training.Every{
		"60s": {Seconds: 60}, "2m": {Seconds: 120}, "1.5s": {Seconds: 1.5}, "200steps": {Steps: 200}, "1 steps": {Steps: 1},
	} {
		got, err := training.ParseEvery(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "60", "0s", "-1s", "0steps", "-5steps", "steps", "1.5steps", "soon"} {
		_, err := training.ParseEvery(text)
		require.Error(t, err, text)
	}
	require.Equal(t, "60 s", training.Every{Seconds: 60}.String())
	require.Equal(t, "5 steps", training.Every{Steps: 5}.String())
}

func TestPlansInMemoryAreValidatedToo(t *testing.T) {
	p := &training.Plan{Run: "r", Code: training.Code{Kind: training.CodeCell}, Models: []training.Model{{Name: "a"}, {Name: "A"}}}
	_, _, err := training.Create(t.TempDir(), p, false)
	var wrong *training.PlanError
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, `two models are called "A"`, wrong.Error())
	require.NotErrorIs(t, err, os.ErrNotExist)
}
