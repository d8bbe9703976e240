package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"outlast/checkpoint/durable"
)

// Names below a model's folder.
const (
	checkpointsName = "checkpoints"
	finalName       = "final"
	supersededName  = "superseded"
	modelsName      = "models"
	metricsName     = "metrics.jsonl"
	logName         = "log.txt"
)

// A Keeper keeps the checkpoints of one run on the local disk. Calls for
// different models may be concurrent; those for one model may not.
type Keeper struct {
	Dir  string // the run's folder
	Keep int    // checkpoints of each model; at least 1
	Log  *slog.Logger
}

// Found is a checkpoint that has been verified. Path is empty if there is none.
type Found struct {
	Manifest Manifest
	Path     string
}

// Damage is a checkpoint that was put aside.
type Damage struct {
	Step int64
	Path string // where it is now
	Why  string
}

func (k *Keeper) model(model string, below ...string) string {
	return filepath.Join(append([]string{k.Dir, modelsName, model}, below...)...)
}

// Save takes the folder staged over as the checkpoint of m.Step: it hashes and
// syncs its files, moves it to its place, writes the manifest last, and removes
// the oldest checkpoints beyond Keep. It returns the manifest and the path.
func (k *Keeper) Save(ctx context.Context, m Manifest, staged string) (Manifest, string, error) {
	m.Final = false
	files, err := adopt(ctx, staged)
	if err != nil {
		return m, "", fmt.Errorf("save checkpoint %d of %s: %w", m.Step, m.Model, err)
	}
	target := k.model(m.Model, checkpointsName, strconv.FormatInt(m.Step, 10))
	if err := moveIn(staged, target); err != nil {
		return m, "", fmt.Errorf("save checkpoint %d of %s: %w", m.Step, m.Model, err)
	}
	if m, err = seal(target, m, files); err != nil {
		return m, "", fmt.Errorf("save checkpoint %d of %s: %w", m.Step, m.Model, err)
	}
	if err := errors.Join(dropReplaced(target), k.prune(m.Model, m.Step)); err != nil { // the new one is safe all the same
		k.Log.Warn("old checkpoint not removed", "model", m.Model, "error", err)
	}
	return m, target, nil
}

// adopt hashes and syncs every file below dir, and its folders.
func adopt(ctx context.Context, dir string) ([]File, error) {
	var files []File
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if d.IsDir() {
			return durable.SyncDir(path)
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if !d.Type().IsRegular() {
			return fmt.Errorf("%s is no regular file", name)
		}
		// Refused now: a manifest that lists such a name is not believed later.
		if name == ManifestName || !safePath(name) {
			return fmt.Errorf("a checkpoint's file may not be called %q", name)
		}
		digest, err := durable.SyncFile(path)
		if err != nil {
			return err
		}
		files = append(files, File{Path: name, Size: digest.Size, SHA256: digest.SHA256})
		return nil
	})
	return files, err
}

// replacedSuffix marks a folder that makes way for a new one of its name.
const replacedSuffix = ".replaced"

// moveIn renames from to to. A folder that is there already is put aside until
// the new one is sealed: it is a damaged one, one of an earlier generation, or
// the same step once more.
func moveIn(from, to string) error {
	if _, err := os.Lstat(to); err == nil {
		if _, err := aside(to, replacedSuffix); err != nil {
			return err
		}
	}
	return durable.Rename(from, to)
}

// dropReplaced removes what made way for path, which is sealed now.
func dropReplaced(path string) error {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filepath.Base(path)+replacedSuffix) {
			if err := os.RemoveAll(filepath.Join(filepath.Dir(path), e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// bringBack undoes a Save that a crash ended between putting the earlier
// checkpoint of its step aside and sealing its own: that one may be the last.
func (k *Keeper) bringBack(model string) error {
	dir := k.model(model, checkpointsName)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		step, found := strings.CutSuffix(e.Name(), replacedSuffix)
		if !found {
			continue
		}
		path := filepath.Join(dir, step)
		if _, err := os.Lstat(filepath.Join(path, ManifestName)); err == nil {
			continue // it was sealed
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		if err := durable.Rename(path+replacedSuffix, path); err != nil {
			return err
		}
	}
	return nil
}

// aside renames path to itself with a suffix, numbered if that is taken.
func aside(path, suffix string) (string, error) {
	for n := 0; ; n++ {
		to := path + suffix
		if n > 0 {
			to += "-" + strconv.Itoa(n)
		}
		if _, err := os.Lstat(to); err == nil {
			continue
		}
		return to, durable.Rename(path, to)
	}
}

// seal writes the manifest, which makes the folder a checkpoint.
func seal(dir string, m Manifest, files []File) (Manifest, error) {
	m.Format, m.Files, m.Created = manifestFormat, files, time.Now().UTC().Truncate(time.Millisecond)
	if m.Files == nil {
		m.Files = []File{}
	}
	return m, durable.WriteJSON(filepath.Join(dir, ManifestName), m)
}

// steps returns the step folders of a model, newest first.
func (k *Keeper) steps(model string) ([]int64, error) {
	entries, err := os.ReadDir(k.model(model, checkpointsName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var steps []int64
	for _, e := range entries {
		if n, err := strconv.ParseInt(e.Name(), 10, 64); err == nil && e.IsDir() {
			steps = append(steps, n)
		}
	}
	slices.SortFunc(steps, func(a, b int64) int { return cmp.Compare(b, a) })
	return steps, nil
}

// Newest returns the newest checkpoint of model with this fingerprint whose
// files are what its manifest says. Those that are not are put aside, under
// another name, and reported.
func (k *Keeper) Newest(model, fingerprint string) (Found, []Damage, error) {
	var damage []Damage
	if err := k.bringBack(model); err != nil {
		return Found{}, nil, fmt.Errorf("bring the replaced checkpoint of %s back: %w", model, err)
	}
	steps, err := k.steps(model)
	if err != nil {
		return Found{}, nil, fmt.Errorf("list checkpoints of %s: %w", model, err)
	}
	for _, step := range steps {
		path := k.model(model, checkpointsName, strconv.FormatInt(step, 10))
		m, err := Verify(path)
		if err == nil && m.Fingerprint == fingerprint && m.Step == step {
			return Found{m, path}, damage, nil
		}
		if err == nil {
			continue
		}
		moved, asideErr := aside(path, ".damaged")
		if asideErr != nil {
			return Found{}, damage, fmt.Errorf("put damaged checkpoint %s aside: %w", path, asideErr)
		}
		if !errors.Is(err, ErrNoManifest) || hasFiles(moved) {
			damage = append(damage, Damage{step, moved, err.Error()})
		}
	}
	return Found{}, damage, nil
}

func hasFiles(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && len(entries) > 0
}

// Finish makes the checkpoint of m.Step the model's final one. It may be called
// again: the result is the same.
func (k *Keeper) Finish(ctx context.Context, m Manifest) (Manifest, string, error) {
	fail := func(err error) (Manifest, string, error) {
		return m, "", fmt.Errorf("finish %s: %w", m.Model, err)
	}
	source := k.model(m.Model, checkpointsName, strconv.FormatInt(m.Step, 10))
	from, err := Verify(source)
	if err != nil {
		return fail(err)
	}
	half := k.model(m.Model, finalName+".half")
	if err := os.RemoveAll(half); err != nil {
		return fail(err)
	}
	for _, f := range from.Files {
		if err := ctx.Err(); err != nil {
			return fail(err)
		}
		if err := link(filepath.Join(source, f.Path), filepath.Join(half, f.Path)); err != nil {
			return fail(err)
		}
	}
	if err := durable.MkdirAll(half); err != nil {
		return fail(err)
	}
	if err := syncDirs(half); err != nil {
		return fail(err)
	}
	m.Final = true
	if m, err = seal(half, m, from.Files); err != nil {
		return fail(err)
	}
	target := k.model(m.Model, finalName)
	if err := moveIn(half, target); err != nil {
		return fail(err)
	}
	if err := dropReplaced(target); err != nil { // the new one is safe all the same
		k.Log.Warn("replaced result not removed", "model", m.Model, "error", err)
	}
	return m, target, nil
}

// syncDirs makes the entries of dir and of the folders below it durable.
func syncDirs(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return durable.SyncDir(path)
	})
}

// link gives the content of from a second name. Checkpoints are never written
// to, so that the two may share it; where links are not to be had it is copied.
func link(from, to string) error {
	if err := durable.MkdirAll(filepath.Dir(to)); err != nil {
		return err
	}
	if os.Link(from, to) == nil {
		return nil
	}
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	_, err = durable.WriteFile(to, f, nil)
	return err
}

// Final returns the model's final checkpoint if it is there, verifies and has
// this fingerprint. A damaged one is put aside and reported.
func (k *Keeper) Final(model, fingerprint string) (Found, []Damage, error) {
	path := k.model(model, finalName)
	m, err := Verify(path)
	var damaged *DamagedError
	switch {
	case errors.Is(err, ErrNoManifest):
		return Found{}, nil, nil
	case errors.As(err, &damaged):
		moved, asideErr := aside(path, ".damaged")
		if asideErr != nil {
			return Found{}, nil, fmt.Errorf("put damaged %s aside: %w", path, asideErr)
		}
		return Found{}, []Damage{{m.Step, moved, err.Error()}}, nil
	case err != nil:
		return Found{}, nil, err
	case m.Fingerprint != fingerprint:
		return Found{}, nil, nil
	}
	return Found{m, path}, nil, nil
}

// Supersede puts the results of a model's earlier code or parameters aside, in
// superseded/ under the fingerprint they had.
func (k *Keeper) Supersede(model, fingerprint string) error {
	to := k.model(model, supersededName, fingerprint[:min(12, len(fingerprint))])
	if _, err := os.Lstat(to); err == nil {
		if _, err := aside(to, ".older"); err != nil {
			return err
		}
	}
	for _, name := range []string{checkpointsName, finalName, metricsName, logName} {
		from := k.model(model, name)
		if _, err := os.Lstat(from); err != nil {
			continue
		}
		if err := durable.Rename(from, filepath.Join(to, name)); err != nil {
			return fmt.Errorf("put the earlier results of %s aside: %w", model, err)
		}
	}
	return nil
}

// prune removes the oldest checkpoints beyond Keep, and what was put aside
// before those that stay. Newer ones than saved, which was written just now, do
// not count: they belong to other code, or to nobody.
func (k *Keeper) prune(model string, saved int64) error {
	steps, err := k.steps(model)
	if err != nil {
		return err
	}
	steps = slices.DeleteFunc(steps, func(step int64) bool { return step > saved })
	if len(steps) == 0 {
		return nil
	}
	keep := min(max(k.Keep, 1), len(steps))
	for _, step := range steps[keep:] {
		path := k.model(model, checkpointsName, strconv.FormatInt(step, 10))
		// The manifest goes first: a crash leaves no half checkpoint that looks whole.
		if err := os.Remove(filepath.Join(path, ManifestName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return k.pruneAside(model, steps[keep-1])
}

// pruneAside removes what was put aside of steps before oldest.
func (k *Keeper) pruneAside(model string, oldest int64) error {
	dir := k.model(model, checkpointsName)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		number, _, isAside := strings.Cut(e.Name(), ".")
		if step, err := strconv.ParseInt(number, 10, 64); err != nil || !isAside || step >= oldest {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
