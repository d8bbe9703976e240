package checkpoint

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"outlast/checkpoint/durable"
)

// Files that say who writes a run.
const (
	claimName   = "generation.json" // in the store: who has taken the run over last
	lineageName = "lineage.json"    // on disk: which claims this folder's history includes
)

const claimFormat = 1

// A Claim says who writes a run. A store has the one of whoever took the run
// over last.
type Claim struct {
	Format     int       `json:"format"`
	Generation int64     `json:"generation"`
	Writer     string    `json:"writer"`
	Time       time.Time `json:"time"` // for people: clocks of two machines decide nothing
}

func (c Claim) is(other Claim) bool {
	return c.Generation == other.Generation && c.Writer == other.Writer
}

// A FencedError says that somebody else has taken a run over: what this runtime
// saves stays on its disk, and nothing of it goes to the store any more.
//
// A store has no compare-and-swap. Each copy begins and ends with a look at the
// store's claim; who takes over between that look and the manifest finds one
// checkpoint more, of a lower generation, which Restore does not prefer. On a
// network drive or a mounted cloud drive it may take until its caches agree.
type FencedError struct {
	Run string
	By  Claim
}

func (e *FencedError) Error() string {
	return fmt.Sprintf("copy run %s to its store: another runtime has taken it over (generation %d, writer %s, %s), and this one stops before it publishes",
		e.Run, e.By.Generation, e.By.Writer, e.By.Time.UTC().Format(time.DateTime+" MST"))
}

// Cure says what to do.
func (e *FencedError) Cure() string {
	return "let the other one work; to go on here instead, stop it and resume from the store: resume " + e.Run +
		" --store with the store's address. What was saved here stays on this disk"
}

// A lineage says which of what a store may hold is this folder's own history.
type lineage struct {
	Claims  []Claim    `json:"claims"`  // made from this folder
	Adopted []adoption `json:"adopted"` // what Restore has brought
}

// An adoption says up to where another's history is ours.
type adoption struct {
	Claim                    // that the store had then
	Highest int64            `json:"highest"` // generation of what was restored, or of the claim
	Steps   map[string]int64 `json:"steps"`   // model → the step it was restored at
}

func (a adoption) same(other adoption) bool {
	return a.is(other.Claim) && a.Highest == other.Highest && maps.Equal(a.Steps, other.Steps)
}

// knows reports whether the claim is one that this history includes: made here,
// or in the store when it was restored.
func (l lineage) knows(c Claim) bool {
	return slices.ContainsFunc(l.Claims, c.is) ||
		slices.ContainsFunc(l.Adopted, func(a adoption) bool { return a.is(c) })
}

// holds reports whether a checkpoint is of this history.
func (l lineage) holds(m Manifest) bool {
	if slices.ContainsFunc(l.Claims, func(c Claim) bool { return c.Writer == m.Writer }) {
		return true
	}
	return slices.ContainsFunc(l.Adopted, func(a adoption) bool {
		step, ok := a.Steps[m.Model]
		return ok && m.Generation <= a.Highest && m.Step <= step
	})
}

func (l lineage) generation() int64 {
	last := l.adopted()
	for _, c := range l.Claims {
		last = max(last, c.Generation)
	}
	return last
}

// adopted returns the highest generation of what was brought here.
func (l lineage) adopted() (last int64) {
	for _, a := range l.Adopted {
		last = max(last, a.Generation, a.Highest)
	}
	return last
}

func readLineage(runDir string) (lineage, error) {
	var l lineage
	data, err := os.ReadFile(filepath.Join(runDir, lineageName))
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &l)
	}
	if err != nil {
		return l, fmt.Errorf("read %s: %w", lineageName, err)
	}
	return l, nil
}

func (l lineage) save(runDir string) error {
	return durable.WriteJSON(filepath.Join(runDir, lineageName), l)
}

// Adopted reports whether Restore has brought something into a run's folder.
func Adopted(runDir string) bool {
	l, err := readLineage(runDir)
	return err == nil && len(l.Adopted) > 0
}

// LastGeneration returns the highest generation that is known in a run's folder:
// of its own writers, of what was restored, and of the checkpoints. Whoever
// takes the run over needs a higher one.
func LastGeneration(runDir string) (int64, error) {
	l, err := readLineage(runDir)
	if err != nil {
		return 0, err
	}
	last := l.generation()
	models, err := modelsIn(runDir)
	if err != nil {
		return 0, err
	}
	k := &Keeper{Dir: runDir}
	for _, model := range models {
		for _, path := range k.places(model) {
			if m, err := manifestOf(path); err == nil {
				last = max(last, m.Generation)
			}
		}
	}
	return last, nil
}

// writersIn returns those whose checkpoints are in a run's folder and whom past
// does not know: they had no store.
func writersIn(runDir string, past lineage) (unknown []Claim) {
	models, err := modelsIn(runDir)
	if err != nil {
		return nil // their checkpoints are then not pruned, which costs room only
	}
	k := &Keeper{Dir: runDir}
	for _, model := range models {
		for _, path := range k.places(model) {
			m, err := manifestOf(path)
			if c := (Claim{claimFormat, m.Generation, m.Writer, m.Created}); err == nil && !past.knows(c) && !slices.ContainsFunc(unknown, c.is) {
				unknown = append(unknown, c)
			}
		}
	}
	return unknown
}

// modelsIn returns the models that have a folder in a run's.
func modelsIn(runDir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(runDir, modelsName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var models []string
	for _, e := range entries {
		if e.IsDir() && safeName(e.Name()) {
			models = append(models, e.Name())
		}
	}
	return models, nil
}

// places returns the folders in which a model's checkpoints may be: the final
// one, then the newest first.
func (k *Keeper) places(model string) []string {
	places := []string{k.model(model, finalName)}
	steps, err := k.steps(model)
	if err != nil {
		return places
	}
	for _, step := range steps {
		places = append(places, k.step(model, step))
	}
	return places
}

// TakeOver says who writes the run from now on. It queues the run's own files
// and what this disk has saved and the store may lack. The generation is higher
// than LastGeneration; the writer is nobody else's.
func (m *Mirror) TakeOver(generation int64, writer string) error {
	m.init()
	past, err := readLineage(m.runDir())
	if err != nil {
		return err
	}
	if len(past.Adopted) == 0 { // nothing was ever brought here: who has saved here is ours
		past.Claims = append(past.Claims, writersIn(m.runDir(), past)...)
	}
	mine := Claim{claimFormat, generation, writer, time.Now().UTC().Truncate(time.Second)}
	// On this disk before it is in the store: a crash in between must not leave a
	// claim that we do not know as ours.
	past.Claims = append(past.Claims, mine)
	if err := past.save(m.runDir()); err != nil {
		return err
	}
	m.state.mu.Lock()
	m.state.writer, m.state.past = &mine, past
	m.state.mu.Unlock()
	m.Touch(runFile, ledgerFile)
	return nil
}

// own makes sure that the store's claim is ours. Without TakeOver there is none.
func (m *Mirror) own(ctx context.Context) error {
	m.state.mu.Lock()
	mine, past := m.state.writer, m.state.past
	m.state.mu.Unlock()
	if mine == nil {
		return nil
	}
	data, err := mine.encode()
	if err != nil {
		return err
	}
	if m.claimed && m.unchanged(ctx, data) {
		return nil
	}
	there, err := readClaim(ctx, m.Store, m.Name)
	switch {
	case err != nil:
		return err
	case there != nil && there.is(*mine) && m.claimed:
		return nil
	case there != nil && !past.knows(*there):
		return &FencedError{m.Name, *there}
	}
	m.met = m.met || there != nil && !there.is(*mine)
	// A claim of ours that is there already is put once more: it counts only when
	// what it replaces is gone, and that may be what has failed.
	if _, err := m.Store.Put(ctx, path.Join(m.Name, claimName), bytes.NewReader(data), digestOf(data)); err != nil {
		return err
	}
	m.catchUp(m.met)
	return nil
}

// encode returns a claim as it is in a store.
func (c Claim) encode() ([]byte, error) {
	data, err := json.MarshalIndent(c, "", "  ")
	return append(data, '\n'), err
}

// unchanged reports whether the store says that it has our claim yet, byte for
// byte. Where it can say so, that costs less than to read it, and tells as much:
// whoever takes over replaces it before anything else.
func (m *Mirror) unchanged(ctx context.Context, claim []byte) bool {
	store, ok := m.Store.(Confirmer)
	if !ok {
		return false
	}
	_, err := store.Confirm(ctx, path.Join(m.Name, claimName), digestOf(claim))
	return err == nil
}

// readClaim returns the claim on a run that a store has; nil if there is none.
// One that cannot be read is nobody's.
func readClaim(ctx context.Context, store Store, run string) (*Claim, error) {
	data, err := fetch(ctx, store, path.Join(run, claimName), maxMetricsBytes)
	if errors.Is(err, ErrNotFound) {
		return nil, nil //nolint:nilnil // that there is none is no error
	}
	if err != nil {
		return nil, err
	}
	var c Claim
	if json.Unmarshal(data, &c) != nil || c.Format != claimFormat || c.Generation < 0 {
		return nil, nil //nolint:nilnil,nilerr // likewise
	}
	return &c, nil
}

// isOurs reports whether a checkpoint in the store is of this run's history.
func (m *Mirror) isOurs(there Manifest) bool {
	m.state.mu.Lock()
	defer m.state.mu.Unlock()
	return m.state.writer == nil || m.state.past.holds(there)
}
