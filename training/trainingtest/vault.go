//go:build unix

package trainingtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"outlast/training"
)

// A Vault keeps checkpoints in the run's folder, where a keeper does, and
// refuses what the contract of training.Vault forbids: two calls for one model
// at once, a folder that the worker did not stage, a checkpoint that nobody
// wrote. It may be told to fail.
type Vault struct {
	Run    *training.Run
	Memory string                                         // where else workers may stage; empty for nowhere
	FailOn func(call string, c training.Checkpoint) error // may be nil; call is newest, final, save, finish, supersede, flush

	mu       sync.Mutex
	busy     map[string]bool
	calls    []string // as in "save a 20"
	breaches []string
}

var _ training.Vault = (*Vault)(nil)

type manifest struct {
	Fingerprint string         `json:"fingerprint"`
	Writer      string         `json:"writer"`
	Step        int64          `json:"step"`
	Generation  int64          `json:"generation"`
	Final       bool           `json:"final"`
	Metrics     map[string]any `json:"metrics"`
}

// Calls returns what was asked of the vault, in order.
func (v *Vault) Calls() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.calls)
}

// Breaches returns what the supervisor did that it must not.
func (v *Vault) Breaches() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.breaches)
}

// enter notes a call and returns what to do at its end.
func (v *Vault) enter(call string, c training.Checkpoint) (leave func(), err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.busy == nil {
		v.busy = map[string]bool{}
	}
	v.calls = append(v.calls, fmt.Sprintf("%s %s %d", call, c.Model, c.Step))
	if v.busy[c.Model] {
		v.breaches = append(v.breaches, call+" of "+c.Model+" while another call for it runs")
	}
	if c.Model != "" && c.Fingerprint == "" {
		v.breaches = append(v.breaches, call+" of "+c.Model+" without a fingerprint")
	}
	if (call == "save" || call == "finish") && (c.Writer == "" || c.Generation < 1 || c.Step < 0) {
		v.breaches = append(v.breaches, fmt.Sprintf("%s of %s that nobody wrote: %+v", call, c.Model, c))
	}
	v.busy[c.Model] = true
	if v.FailOn != nil {
		err = v.FailOn(call, c)
	}
	return func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.busy[c.Model] = false
	}, err
}

func (v *Vault) breach(text string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.breaches = append(v.breaches, text)
	return errors.New(text)
}

// Newest implements training.Vault.
func (v *Vault) Newest(_ context.Context, model, fingerprint string) (training.Checkpoint, []string, error) {
	leave, err := v.enter("newest", training.Checkpoint{Model: model, Fingerprint: fingerprint})
	defer leave()
	if err != nil {
		return training.Checkpoint{}, nil, err
	}
	var best training.Checkpoint
	var notes []string
	entries, _ := os.ReadDir(v.Run.ModelPath(model, "checkpoints")) // none is none
	for _, e := range entries {
		path := v.Run.ModelPath(model, "checkpoints", e.Name())
		c, err := read(path, model)
		if err != nil {
			if !strings.HasSuffix(e.Name(), ".damaged") {
				notes = append(notes, fmt.Sprintf("%s: the checkpoint at step %s is damaged", model, e.Name()))
				must(os.Rename(path, path+".damaged"))
			}
			continue
		}
		if c.Fingerprint == fingerprint && (best.Path == "" || c.Step > best.Step) {
			best = c
		}
	}
	return best, notes, nil
}

// Final implements training.Vault.
func (v *Vault) Final(_ context.Context, model, fingerprint string) (training.Checkpoint, []string, error) {
	leave, err := v.enter("final", training.Checkpoint{Model: model, Fingerprint: fingerprint})
	defer leave()
	if err != nil {
		return training.Checkpoint{}, nil, err
	}
	c, err := read(v.Run.ModelPath(model, "final"), model)
	if err != nil || c.Fingerprint != fingerprint {
		return training.Checkpoint{}, nil, nil // no result, or one of other code
	}
	return c, nil, nil
}

// Save implements training.Vault.
func (v *Vault) Save(_ context.Context, c training.Checkpoint, staged string) (training.Checkpoint, error) {
	leave, err := v.enter("save", c)
	defer leave()
	if err != nil {
		return training.Checkpoint{}, err
	}
	onDisk := within(v.Run.ModelPath(c.Model, "staging"), staged)
	if !onDisk && (v.Memory == "" || !within(v.Memory, staged)) {
		return training.Checkpoint{}, v.breach("saved " + staged + ", which is not in its staging folder")
	}
	target := v.Run.ModelPath(c.Model, "checkpoints", strconv.FormatInt(c.Step, 10))
	must(os.MkdirAll(filepath.Dir(target), 0o755))
	must(os.RemoveAll(target))
	if !onDisk {
		err = os.CopyFS(target, os.DirFS(staged))
	} else {
		err = os.Rename(staged, target)
	}
	if err != nil {
		return training.Checkpoint{}, err
	}
	return write(target, c)
}

func within(dir, path string) bool { return strings.HasPrefix(path, dir+string(filepath.Separator)) }

// Finish implements training.Vault.
func (v *Vault) Finish(_ context.Context, c training.Checkpoint) (training.Checkpoint, error) {
	leave, err := v.enter("finish", c)
	defer leave()
	if err != nil {
		return training.Checkpoint{}, err
	}
	source := v.Run.ModelPath(c.Model, "checkpoints", strconv.FormatInt(c.Step, 10))
	half, target := v.Run.ModelPath(c.Model, "final.half"), v.Run.ModelPath(c.Model, "final")
	must(os.RemoveAll(half)) // of a kill in between: the source's manifest is in it
	if err := os.CopyFS(half, os.DirFS(source)); err != nil {
		return training.Checkpoint{}, err
	}
	c.Final = true
	if _, err := write(half, c); err != nil {
		return training.Checkpoint{}, err
	}
	must(os.RemoveAll(target))
	c.Path, c.Durability = target, "local"
	return c, os.Rename(half, target)
}

// Supersede implements training.Vault.
func (v *Vault) Supersede(model, fingerprint string) error {
	leave, err := v.enter("supersede", training.Checkpoint{Model: model, Fingerprint: fingerprint})
	defer leave()
	if err != nil {
		return err
	}
	for _, name := range []string{"checkpoints", "final"} {
		must(os.RemoveAll(v.Run.ModelPath(model, name)))
	}
	return nil
}

// Open implements training.Vault.
func (v *Vault) Open(_ context.Context, atLeast int64, writer string) (int64, error) {
	leave, err := v.enter("open", training.Checkpoint{Generation: atLeast, Writer: writer})
	defer leave()
	return atLeast, err
}

// Flush implements training.Vault.
func (v *Vault) Flush(context.Context) error {
	leave, err := v.enter("flush", training.Checkpoint{})
	defer leave()
	return err
}

// State returns what a checkpoint of a fake worker holds.
func State(path string) string {
	data, err := os.ReadFile(filepath.Join(path, stateFile))
	if err != nil {
		return err.Error()
	}
	return string(data)
}

func write(path string, c training.Checkpoint) (training.Checkpoint, error) {
	data, err := json.Marshal(manifest{c.Fingerprint, c.Writer, c.Step, c.Generation, c.Final, c.Metrics})
	must(err)
	c.Path, c.Durability = path, "local"
	return c, os.WriteFile(filepath.Join(path, "manifest.json"), data, 0o644)
}

func read(path, model string) (training.Checkpoint, error) {
	var m manifest
	data, err := os.ReadFile(filepath.Join(path, "manifest.json"))
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	return training.Checkpoint{
		Model: model, Fingerprint: m.Fingerprint, Writer: m.Writer, Path: path, Durability: "local",
		Step: m.Step, Generation: m.Generation, Final: m.Final, Metrics: m.Metrics,
	}, err
}
