package checkpoint

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"outlast/checkpoint/durable"
)

// The run's own files in a store.
const (
	runFile    = "run.json"
	ledgerFile = "ledger.jsonl"
	learntFile = "learnt.json" // what fits which device; a run goes on without it
)

// maxRunFile bounds run.json, which is read whole.
const maxRunFile = 256 << 20

// Runs returns the names of the runs in store.
func Runs(ctx context.Context, store Store) ([]string, error) {
	entries, err := store.List(ctx, "")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if dir, file := path.Split(e.Name); file == runFile && strings.Count(dir, "/") == 1 {
			names = append(names, strings.TrimSuffix(dir, "/"))
		}
	}
	slices.Sort(names)
	return names, nil
}

// A Report says what Restore found.
type Report struct {
	Restored   map[string]int64 // model → step
	Generation int64            // the highest that the store or the run's folder knows
	Notes      []string         // in plain words, for the user
}

// A RestoreError says why a run cannot be brought back, and what to do.
type RestoreError struct {
	Run  string
	Err  error
	Hint string
}

func (e *RestoreError) Error() string { return "restore " + e.Run + ": " + e.Err.Error() }

// Unwrap returns the reason.
func (e *RestoreError) Unwrap() error { return e.Err }

// Cure says what to do.
func (e *RestoreError) Cure() string { return e.Hint }

// Restore brings run from store into the data directory dir: the run's own
// files, and of each model the final checkpoint or the newest that verifies, of
// the history that has the highest generation. What is on this disk already and
// newer is kept; what is here of a history that was left behind is put aside.
// Nothing is written outside dir/run.
//
// Restore takes nothing over: whoever writes the run goes on until somebody with
// a higher generation than LastGeneration does.
func Restore(ctx context.Context, store Store, run, dir string) (Report, error) {
	r := &restorer{
		store: store, run: run, dir: filepath.Join(dir, run), slots: make(chan struct{}, copyLimit),
		report: Report{Restored: map[string]int64{}},
	}
	err := r.all(ctx)
	if err == nil {
		return r.report, nil
	}
	var already *RestoreError
	switch {
	case errors.As(err, &already):
		return r.report, err
	case errors.Is(err, syscall.ENOSPC):
		return r.report, &RestoreError{run, err, "make room on this disk, or give another folder with --dir: what has arrived is kept"}
	}
	return r.report, &RestoreError{run, err, "check the store's address, and try again: what has arrived is kept"}
}

type restorer struct {
	store  Store
	run    string
	dir    string
	slots  chan struct{}     // one for each file that may arrive at a time
	wanted map[string]string // model → fingerprint in the plan
	claim  *Claim            // in the store; nil if there is none
	past   lineage           // of the run's folder

	mu     sync.Mutex
	report Report
}

// fingerprints returns which fingerprint each model of a plan has. One that is
// not in it may have any.
func fingerprints(plan []byte) map[string]string {
	var p struct {
		Models []struct {
			Name        string `json:"name"`
			Fingerprint string `json:"fingerprint"`
		} `json:"models"`
	}
	if json.Unmarshal(plan, &p) != nil {
		return nil // whoever reads it next says what is wrong with it
	}
	all := map[string]string{}
	for _, m := range p.Models {
		all[m.Name] = m.Fingerprint
	}
	return all
}

// stale reports whether a checkpoint is of an earlier version of its model: the
// store keeps those, and training would not use it.
func (r *restorer) stale(model string, m Manifest) bool {
	want := r.wanted[model]
	return want != "" && m.Fingerprint != want
}

func (r *restorer) all(ctx context.Context) (err error) {
	if !safeName(r.run) {
		return fmt.Errorf("%q is no name of a run", r.run)
	}
	if r.claim, err = readClaim(ctx, r.store, r.run); err != nil {
		return err
	}
	if r.past, err = readLineage(r.dir); err != nil {
		return err
	}
	local := filepath.Join(r.dir, runFile)
	if plan, err := os.ReadFile(local); err == nil {
		r.wanted = fingerprints(plan)
		if err := r.models(ctx); err != nil { // the local plan is the user's latest word
			return err
		}
		return r.adopt()
	}
	plan, err := r.read(ctx, runFile)
	if errors.Is(err, ErrNotFound) {
		return r.unknown(ctx)
	}
	if err != nil {
		return err
	}
	r.wanted = fingerprints(plan)
	if err := r.models(ctx); err != nil {
		return err
	}
	for _, name := range []string{ledgerFile, learntFile} {
		if err := r.copyFile(ctx, name); err != nil {
			return err
		}
	}
	if err := r.adopt(); err != nil {
		return err
	}
	// The plan comes last: a folder without one is no run, so a restore that was
	// interrupted is simply done again.
	_, err = durable.WriteFile(local, bytes.NewReader(plan), nil)
	return err
}

// copyFile brings one of the run's own files, if the store has it.
func (r *restorer) copyFile(ctx context.Context, name string) error {
	content, err := r.read(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = durable.WriteFile(filepath.Join(r.dir, name), bytes.NewReader(content), nil)
	return err
}

// unknown says that the store does not have the run, and which it has.
func (r *restorer) unknown(ctx context.Context) error {
	names, err := Runs(ctx, r.store)
	if err != nil {
		return err
	}
	hint := "it has no run: check its address"
	if len(names) > 0 {
		hint = "it has: " + strings.Join(names, ", ")
	}
	return &RestoreError{r.run, errors.New("the store has no such run"), hint}
}

// adopt notes up to where the store's history is now that of this folder: who
// goes on from here may take the run over, and tell others' checkpoints from
// those that it began with.
func (r *restorer) adopt() error {
	past := r.past
	a := adoption{Highest: r.report.Generation, Steps: r.report.Restored}
	if r.claim != nil {
		a.Claim, a.Highest = *r.claim, max(r.claim.Generation, r.report.Generation)
	}
	own := r.claim != nil && slices.ContainsFunc(past.Claims, r.claim.is)
	if known := len(past.Adopted) > 0 && past.Adopted[len(past.Adopted)-1].same(a); !own && !known {
		past.Adopted = append(past.Adopted, a)
	}
	r.report.Generation = past.generation()
	return past.save(r.dir)
}

func (r *restorer) read(ctx context.Context, name string) ([]byte, error) {
	return fetch(ctx, r.store, path.Join(r.run, name), maxRunFile)
}

var errTooLarge = errors.New("it is too large to be what it should be")

// fetch returns the content of a file of a store that is not larger than limit.
func fetch(ctx context.Context, store Store, name string, limit int64) ([]byte, error) {
	f, err := store.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s: %w: more than %d bytes", name, errTooLarge, limit)
	}
	return data, err
}
