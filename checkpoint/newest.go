package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"outlast/checkpoint/durable"
)

// Found is a checkpoint that has been verified. Path is empty if there is none.
type Found struct {
	Manifest Manifest
	Path     string
}

// Damage is a checkpoint that was put aside.
type Damage struct {
	Step  int64 // 0 if it is not known
	Final bool
	Path  string // where it is now
	Why   string
}

// Newest returns the newest checkpoint of model with this fingerprint whose
// files are what its manifest says. Those that are not are put aside, under
// another name, and reported. An error says that this cannot be known now; it
// leaves everything in its place.
func (k *Keeper) Newest(model, fingerprint string) (Found, []Damage, error) {
	var damage []Damage
	if err := bringBack(k.model(model, checkpointsName)); err != nil {
		return Found{}, nil, fmt.Errorf("bring the replaced checkpoint of %s back: %w", model, err)
	}
	steps, err := k.steps(model)
	if err != nil {
		return Found{}, nil, fmt.Errorf("list checkpoints of %s: %w", model, err)
	}
	for _, step := range steps {
		path := k.step(model, step)
		m, err := Verify(path)
		if err == nil && m.Fingerprint == fingerprint && m.Step == step && m.Model == model {
			return Found{m, path}, damage, nil
		}
		if err == nil {
			continue
		}
		moved, err := putAside(path, err)
		if err != nil {
			return Found{}, damage, err
		}
		if moved.Why != ErrNoManifest.Error() || hasFiles(moved.Path) {
			moved.Step = step
			damage = append(damage, moved)
		}
	}
	return Found{}, damage, nil
}

// putAside renames the checkpoint at path if why says that it is damaged. Any
// other error is returned.
func putAside(path string, why error) (Damage, error) {
	var damaged *DamagedError
	if !errors.As(why, &damaged) && !errors.Is(why, ErrNoManifest) {
		return Damage{}, fmt.Errorf("verify %s: %w", path, why)
	}
	moved, err := aside(path, ".damaged")
	if err != nil {
		return Damage{}, fmt.Errorf("put damaged checkpoint %s aside: %w", path, err)
	}
	return Damage{Path: moved, Why: why.Error()}, nil
}

func hasFiles(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && len(entries) > 0
}

// Final returns the model's final checkpoint if it is there, verifies and has
// this fingerprint. A damaged one is put aside and reported.
func (k *Keeper) Final(model, fingerprint string) (Found, []Damage, error) {
	if err := bringBack(k.model(model)); err != nil {
		return Found{}, nil, fmt.Errorf("bring the replaced result of %s back: %w", model, err)
	}
	path := k.model(model, finalName)
	m, err := Verify(path)
	switch {
	case errors.Is(err, ErrNoManifest):
		return Found{}, nil, nil
	case err != nil:
		moved, err := putAside(path, err)
		if err != nil {
			return Found{}, nil, err
		}
		moved.Step, moved.Final = m.Step, true
		return Found{}, []Damage{moved}, nil
	case m.Fingerprint != fingerprint || m.Model != model:
		return Found{}, nil, nil
	}
	return Found{m, path}, nil, nil
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
		if n, ok := stepOf(e.Name()); ok && e.IsDir() {
			steps = append(steps, n)
		}
	}
	slices.SortFunc(steps, func(a, b int64) int { return cmp.Compare(b, a) })
	return steps, nil
}

// stepOf reads the step from a name like 40/model.pt. Only the way that we write
// a number is one: 040 is another folder.
func stepOf(name string) (int64, bool) {
	first, _, _ := strings.Cut(name, "/")
	step, err := strconv.ParseInt(first, 10, 64)
	return step, err == nil && step >= 0 && strconv.FormatInt(step, 10) == first
}

// revisionOf reads the step from the name of a folder in a store: 40, or 40.1 if
// the step was saved again.
func revisionOf(folder string) (step, revision int64, ok bool) {
	first, second, again := strings.Cut(folder, ".")
	step, ok = stepOf(first)
	if ok && again {
		revision, ok = stepOf(second)
		ok = ok && revision > 0
	}
	return step, revision, ok && !strings.Contains(folder, "/")
}

// replacedSuffix marks a folder that makes way for a new one of its name.
const replacedSuffix = ".replaced"

// moveIn renames from to to. A folder that is there already is put aside until
// the new one is sealed: it is a damaged one, one of an earlier generation, or
// the same step once more.
func moveIn(from, to string) error {
	if _, err := os.Lstat(to); err == nil {
		if err := clearReplaced(to); err != nil {
			return err
		}
		if _, err := aside(to, replacedSuffix); err != nil {
			return err
		}
	}
	return durable.Rename(from, to)
}

// clearReplaced removes what made way for the good checkpoint at path and is
// there yet, as a crash came between: bringBack knows one name only, and that is
// now due to path's own.
func clearReplaced(path string) error {
	if _, err := os.Lstat(path + replacedSuffix); err != nil {
		return nil //nolint:nilerr // mostly nothing is there
	}
	if _, err := Verify(path); err != nil {
		return nil //nolint:nilerr // what made way may be better
	}
	return dropReplaced(path)
}

// dropReplaced removes what made way for path, which is sealed now.
func dropReplaced(path string) error {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filepath.Base(path)+replacedSuffix) {
			if err := removeCheckpoint(filepath.Join(filepath.Dir(path), e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// bringBack undoes, in dir, what a crash ended between putting a checkpoint
// aside and sealing the one that takes its place: it may be the last.
func bringBack(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, found := strings.CutSuffix(e.Name(), replacedSuffix)
		if _, isStep := stepOf(name); !found || !isStep && name != finalName {
			continue
		}
		path := filepath.Join(dir, name)
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
