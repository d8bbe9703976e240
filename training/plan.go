// Package training works off runs: lists of models, each trained by worker
// processes of its own under a detached supervisor, until all have ended.
//
// It does not know how checkpoints are kept (a Vault is given to it), what a
// GPU is (settings arrive as plain values), or that notebooks exist.
package training

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// CodeKind says what trains a model.
type CodeKind string

// The kinds of code.
const (
	CodeCell    CodeKind = "cell"    // a notebook's cell, after its shared cells
	CodeScript  CodeKind = "script"  // a Python file
	CodeCommand CodeKind = "command" // any program
)

// Code is what trains one model of a plan.
type Code struct {
	Kind    CodeKind `json:"kind"`
	Name    string   `json:"name,omitempty"`    // file name, for tracebacks; a script's path
	Source  string   `json:"source,omitempty"`  // of a cell or script
	Command []string `json:"command,omitempty"` // with {name} and {PARAM} to fill in
	Shared  []string `json:"shared,omitempty"`  // cells that run first
}

// Every says how often to save: after so many seconds or steps, whichever is
// set.
type Every struct {
	Seconds float64 `json:"seconds,omitempty"`
	Steps   int64   `json:"steps,omitempty"`
}

func (e Every) String() string {
	if e.Steps > 0 {
		return fmt.Sprintf("%d steps", e.Steps)
	}
	return fmt.Sprintf("%g s", e.Seconds)
}

// ParseEvery reads a duration such as 60s or 2m, or a number of steps such as
// 200steps.
func ParseEvery(text string) (Every, error) {
	if n, ok := strings.CutSuffix(text, "steps"); ok {
		steps, err := strconv.ParseInt(strings.TrimSpace(n), 10, 64)
		if err == nil && steps > 0 {
			return Every{Steps: steps}, nil
		}
	} else if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return Every{Seconds: d.Seconds()}, nil
	}
	return Every{}, fmt.Errorf("an interval is written 60s or 200steps, not %q", text)
}

// Settings say how to train. Effective batch, LoRA rank and seed change the
// result and are part of each model's fingerprint; the rest follows the machine.
type Settings struct {
	EffectiveBatch  int               `json:"effective_batch"` // samples per optimizer step
	BatchSize       int               `json:"batch_size"`      // samples per forward pass
	GradAccum       int               `json:"grad_accum"`
	Precision       string            `json:"precision"`
	LoRARank        int               `json:"lora_rank"`
	Device          string            `json:"device"`
	MemoryFraction  float64           `json:"memory_fraction,omitempty"`
	Env             map[string]string `json:"env,omitempty"` // of the workers
	Seed            int64             `json:"seed"`
	CheckpointEvery Every             `json:"checkpoint_every"`
	Keep            int               `json:"keep"`
	KeepBest        string            `json:"keep_best,omitempty"`   // metric:min or metric:max; kept besides
	Retries         int               `json:"retries"`               // after crashes
	HangAfter       float64           `json:"hang_after,omitempty"`  // seconds without a sign of life; 0: never
	MaxHours        float64           `json:"max_hours,omitempty"`   // for each start of a supervisor; 0: no limit
	Parallel        Parallel          `json:"parallel,omitempty"`    // models trained at once; 0: one
	DeviceName      string            `json:"device_name,omitempty"` // such as "Tesla T4"; what was learnt is about it
	Asked           Asked             `json:"asked,omitzero"`
}

// Asked is what the user fixed of what else follows the machine. Whoever goes on
// with the run asks for it again, of what may be another machine.
type Asked struct {
	Precision      string  `json:"precision,omitempty"`
	BatchSize      int     `json:"batch_size,omitempty"`
	MemoryFraction float64 `json:"memory_fraction,omitempty"`
}

// A Model is one entry of a plan.
type Model struct {
	Name        string         `json:"name"`
	Params      map[string]any `json:"params,omitempty"`
	BatchSize   int            `json:"batch_size,omitempty"` // 0: the settings'
	GradAccum   int            `json:"grad_accum,omitempty"`
	Anew        int            `json:"anew,omitempty"`    // how often it was asked for afresh
	Threads     int            `json:"threads,omitempty"` // for what computes in parallel; 0: as the code likes
	Fingerprint string         `json:"fingerprint"`
}

// A Plan is what a run is to do.
type Plan struct {
	Run      string   `json:"run"`
	Code     Code     `json:"code"`
	Store    string   `json:"store,omitempty"`
	Python   string   `json:"python,omitempty"`
	Dir      string   `json:"cwd,omitempty"` // where workers run
	File     string   `json:"-"`             // that it was read from, for errors
	Settings Settings `json:"settings"`
	Models   []Model  `json:"models"`
	// Versions are those of what computes, by name; they are no part of a
	// fingerprint. Files of older versions have none.
	Versions map[string]string `json:"versions,omitempty"`
}

// A PlanError is a mistake in a plan: where, what, and what to do.
type PlanError struct {
	File    string // empty if the plan is in no file
	Line    int    // 1-based; 0 if unknown
	Problem string
	Hint    string
}

func (e *PlanError) Error() string {
	switch {
	case e.File == "":
		return e.Problem
	case e.Line == 0:
		return e.File + ": " + e.Problem
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Problem)
}

// Cure says what to do.
func (e *PlanError) Cure() string { return e.Hint }

// safeName is what can name a folder on every system and in every cloud drive.
var safeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// reserved are names that Windows keeps for devices.
var reserved = regexp.MustCompile(`(?i)^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?$`)

func checkName(what, name string) *PlanError {
	if safeName.MatchString(name) && !reserved.MatchString(name) && !strings.HasSuffix(name, ".") {
		return nil
	}
	return &PlanError{
		Problem: fmt.Sprintf("%s %q cannot name a folder", what, name),
		Hint:    "use letters, digits, dot, dash and underscore, beginning with a letter or digit, at most 100",
	}
}

// Validate returns the first mistake in p as a *PlanError.
func (p *Plan) Validate() error {
	if err := p.validate(); err != nil {
		err.File = p.File
		return err
	}
	return nil
}

func (p *Plan) validate() *PlanError {
	if err := checkName("the run's name", p.Run); err != nil {
		return err
	}
	if len(p.Models) == 0 {
		return &PlanError{Problem: "the plan has no models", Hint: "list at least one under models"}
	}
	seen := map[string]bool{}
	for _, m := range p.Models {
		if err := checkName("the model's name", m.Name); err != nil {
			return err
		}
		key := strings.ToLower(m.Name) // some file systems ignore case
		if seen[key] {
			return &PlanError{Problem: fmt.Sprintf("two models are called %q", m.Name), Hint: "give each model a name of its own; upper and lower case are the same"}
		}
		seen[key] = true
	}
	if p.Code.Kind == "" {
		return &PlanError{Problem: "the plan has no code", Hint: "name a script or a command"}
	}
	return nil
}

// Seal computes each model's fingerprint: the SHA-256 of everything that
// decides its result.
func (p *Plan) Seal() {
	for i := range p.Models {
		p.seal(&p.Models[i])
	}
}

func (p *Plan) seal(m *Model) {
	m.Params = normal(m.Params).(map[string]any)
	text, err := json.Marshal(map[string]any{
		"kind": p.Code.Kind, "source": p.Code.Source, "command": p.Code.Command, "shared": p.Code.Shared,
		"params": m.Params, "anew": m.Anew,
		"effective_batch": p.Settings.EffectiveBatch, "lora_rank": p.Settings.LoRARank, "seed": p.Settings.Seed,
	})
	if err != nil { // parameters came from JSON or YAML
		panic(err)
	}
	sum := sha256.Sum256(text)
	m.Fingerprint = hex.EncodeToString(sum[:])
}

// normal gives numbers the form that survives JSON: 1.0 stays a float for the
// Python that reads it.
func normal(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, each := range v {
			out[k] = normal(each)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, each := range v {
			out[i] = normal(each)
		}
		return out
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return strconv.FormatFloat(v, 'g', -1, 64) // JSON has no such number; Python's float() reads the text
		}
		text := strconv.FormatFloat(v, 'g', -1, 64)
		if v == math.Trunc(v) && !strings.ContainsAny(text, ".e") {
			text += ".0"
		}
		return json.Number(text)
	}
	return v
}

// decode reads JSON and keeps numbers as they are written.
func decode(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return d.Decode(v)
}
