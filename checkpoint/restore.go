package checkpoint

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"outlast/checkpoint/durable"
)

// errStale says that a checkpoint is of an earlier version of its model.
var errStale = errors.New("it is of an earlier version of the model")

// The run's own files in a store.
const (
	runFile    = "run.json"
	ledgerFile = "ledger.jsonl"
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
	Restored map[string]int64 // model → step
	Notes    []string         // in plain words, for the user
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
// files, and of each model the final checkpoint or the newest that verifies.
// What is on this disk already and newer is kept. Nothing is written outside
// dir/run.
func Restore(ctx context.Context, store Store, run, dir string) (Report, error) {
	r := restorer{store: store, run: run, dir: filepath.Join(dir, run), report: Report{Restored: map[string]int64{}}}
	if err := r.all(ctx); err != nil {
		var already *RestoreError
		if errors.As(err, &already) {
			return r.report, err
		}
		return r.report, &RestoreError{run, err, "check the store's address, and try again: what has arrived is kept"}
	}
	return r.report, nil
}

type restorer struct {
	store  Store
	run    string
	dir    string
	report Report
	wanted map[string]string // model → fingerprint in the plan
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

func (r *restorer) all(ctx context.Context) error {
	if !filepath.IsLocal(r.run) || strings.ContainsAny(r.run, `/\`) {
		return fmt.Errorf("%q is no name of a run", r.run)
	}
	local := filepath.Join(r.dir, runFile)
	if plan, err := os.ReadFile(local); err == nil {
		r.wanted = fingerprints(plan)
		return r.models(ctx) // the local plan is the user's latest word
	}
	plan, err := r.read(ctx, runFile)
	if errors.Is(err, ErrNotFound) {
		names, listErr := Runs(ctx, r.store)
		if listErr != nil {
			return listErr
		}
		return &RestoreError{r.run, errors.New("the store has no such run"), "it has: " + strings.Join(names, ", ")}
	}
	if err != nil {
		return err
	}
	r.wanted = fingerprints(plan)
	if err := r.models(ctx); err != nil {
		return err
	}
	if ledger, err := r.read(ctx, ledgerFile); err == nil {
		if _, err := durable.WriteFile(filepath.Join(r.dir, ledgerFile), bytes.NewReader(ledger), nil); err != nil {
			return err
		}
	} else if !errors.Is(err, ErrNotFound) {
		return err
	}
	// The plan comes last: a folder without one is no run, so a restore that was
	// interrupted is simply done again.
	_, err = durable.WriteFile(local, bytes.NewReader(plan), nil)
	return err
}

func (r *restorer) read(ctx context.Context, name string) ([]byte, error) {
	f, err := r.store.Get(ctx, path.Join(r.run, name))
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	data, err := io.ReadAll(io.LimitReader(f, maxRunFile+1))
	if err == nil && len(data) > maxRunFile {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxRunFile)
	}
	return data, err
}

// remote is what the store has of one model.
type remote struct {
	final bool
	steps map[int64][]string
}

func (r *restorer) models(ctx context.Context) error {
	prefix := path.Join(r.run, modelsName) + "/"
	entries, err := r.store.List(ctx, prefix)
	if err != nil {
		return err
	}
	found := map[string]*remote{}
	for _, e := range entries {
		model, below, ok := strings.Cut(strings.TrimPrefix(e.Name, prefix), "/")
		if !ok || !filepath.IsLocal(model) {
			continue
		}
		if found[model] == nil {
			found[model] = &remote{steps: map[int64][]string{}}
		}
		if below == path.Join(finalName, ManifestName) {
			found[model].final = true
		}
		if rest, ok := strings.CutPrefix(below, checkpointsName+"/"); ok && strings.HasSuffix(rest, "/"+ManifestName) {
			if step, ok := stepOf(rest); ok {
				found[model].steps[step] = append(found[model].steps[step], e.Name)
			}
		}
	}
	for _, model := range slices.Sorted(maps.Keys(found)) {
		if err := r.model(ctx, model, found[model]); err != nil {
			return fmt.Errorf("model %s: %w", model, err)
		}
	}
	return nil
}

// model brings the best checkpoint of one model: the final one, else the newest
// whose content is what its manifest says.
func (r *restorer) model(ctx context.Context, model string, found *remote) error {
	base := path.Join(modelsName, model)
	var folders []string
	if found.final {
		folders = append(folders, path.Join(base, finalName))
	}
	for _, step := range newestFirst(found.steps) {
		folders = append(folders, path.Join(base, checkpointsName, strconv.FormatInt(step, 10)))
	}
	for _, folder := range folders {
		if m, err := Verify(filepath.Join(r.dir, filepath.FromSlash(folder))); err == nil && !r.stale(model, m) {
			r.report.Restored[model] = m.Step
			return nil // it is here already
		}
		m, err := r.folder(ctx, model, folder)
		if errors.Is(err, errStale) {
			continue
		}
		var damaged *DamagedError
		if errors.As(err, &damaged) || errors.Is(err, ErrNotFound) {
			r.note("%s: the copy in %s is damaged (%v) and is not used; the one before it is tried.", model, folder, err)
			continue
		}
		if err != nil {
			return err
		}
		r.report.Restored[model] = m.Step
		what := fmt.Sprintf("the checkpoint at step %d", m.Step)
		if m.Final {
			what = "the finished model"
		}
		r.note("%s: %s was brought from the store and verified.", model, what)
		return r.records(ctx, base)
	}
	return nil
}

// records brings what a model has logged, unless this disk has it.
func (r *restorer) records(ctx context.Context, base string) error {
	for _, name := range []string{metricsName, logName} {
		target := filepath.Join(r.dir, filepath.FromSlash(base), name)
		if _, err := os.Stat(target); err == nil {
			continue
		}
		data, err := r.store.Get(ctx, path.Join(r.run, base, name))
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		_, err = durable.WriteFile(target, data, nil)
		data.Close() //nolint:errcheck // it was only read
		if err != nil {
			return err
		}
	}
	return nil
}

// folder brings one checkpoint: into a folder beside its place, each file
// compared with the manifest while it arrives, then in one move.
func (r *restorer) folder(ctx context.Context, model, name string) (Manifest, error) {
	f, err := r.store.Get(ctx, path.Join(r.run, name, ManifestName))
	if err != nil {
		return Manifest{}, err
	}
	m, err := ReadManifest(f)
	f.Close() //nolint:errcheck // it was only read
	if err != nil {
		return m, err
	}
	if r.stale(model, m) {
		return m, errStale
	}
	if step, ok := stepOf(path.Base(name)); ok && step != m.Step {
		return m, &DamagedError{ManifestName, fmt.Sprintf("it is of step %d", m.Step)}
	}
	target := filepath.Join(r.dir, filepath.FromSlash(name))
	half := target + ".half"
	if err := os.RemoveAll(half); err != nil {
		return m, err
	}
	for _, file := range m.Files {
		if err := r.file(ctx, path.Join(name, file.Path), filepath.Join(half, filepath.FromSlash(file.Path)), file); err != nil {
			os.RemoveAll(half) //nolint:errcheck // the next try does it again
			return m, err
		}
	}
	if err := durable.WriteJSON(filepath.Join(half, ManifestName), m); err != nil {
		return m, err
	}
	return m, moveIn(half, target)
}

func (r *restorer) file(ctx context.Context, name, target string, want File) error {
	in, err := r.store.Get(ctx, path.Join(r.run, name))
	if errors.Is(err, ErrNotFound) {
		return &DamagedError{want.Path, "it is missing"}
	}
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // it was only read
	// One byte more than announced is enough to know that it is wrong.
	_, err = durable.WriteFile(target, io.LimitReader(in, want.Size+1), &durable.Digest{Size: want.Size, SHA256: want.SHA256})
	if errors.Is(err, durable.ErrContent) {
		return &DamagedError{want.Path, "its content differs from the manifest"}
	}
	return err
}

func (r *restorer) note(format string, args ...any) {
	r.report.Notes = append(r.report.Notes, fmt.Sprintf(format, args...))
}

func newestFirst[V any](steps map[int64]V) []int64 {
	return slices.SortedFunc(maps.Keys(steps), func(a, b int64) int { return cmp.Compare(b, a) })
}

// manifestFirst orders names so that a manifest comes before the rest.
func manifestFirst(a, b string) int {
	isManifest := func(name string) int {
		if path.Base(name) == ManifestName {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(isManifest(a), isManifest(b)), strings.Compare(a, b))
}

// SweepHalf removes what an interrupted save, restore or copy left in a run's
// folder. Nobody may be working there.
func SweepHalf(run string) error {
	if err := os.RemoveAll(filepath.Join(run, "outbox")); err != nil {
		return err
	}
	below := os.DirFS(run) // its own name is no pattern
	halves, err := fs.Glob(below, path.Join(modelsName, "*", "*.half"))
	if err != nil {
		return err
	}
	more, err := fs.Glob(below, path.Join(modelsName, "*", checkpointsName, "*.half"))
	if err != nil {
		return err
	}
	for _, h := range append(halves, more...) {
		if err := os.RemoveAll(filepath.Join(run, filepath.FromSlash(h))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return durable.Sweep(run)
}
