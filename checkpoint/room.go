package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// MakeRoom removes, of every model, what nobody needs to go on: what is older
// than the newest checkpoint that verifies, but for the best, and results of
// earlier code that were put aside. It returns the bytes of what it has removed; the disk may get them
// later, as copies that wait for the store keep their content.
//
// Nobody may be saving meanwhile.
func (k *Keeper) MakeRoom(ctx context.Context) (freed uint64, err error) {
	models, err := os.ReadDir(filepath.Join(k.Dir, modelsName))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("make room: %w", err)
	}
	for _, m := range models {
		n, err := k.makeRoom(ctx, m.Name())
		freed += n
		if err != nil {
			return freed, fmt.Errorf("make room for %s: %w", m.Name(), err)
		}
	}
	return freed, nil
}

func (k *Keeper) makeRoom(ctx context.Context, model string) (freed uint64, err error) {
	superseded := k.model(model, supersededName)
	freed += sizeOf(superseded)
	if err := os.RemoveAll(superseded); err != nil {
		return 0, err
	}
	steps, err := k.steps(model)
	if err != nil {
		return freed, err
	}
	for i, step := range steps {
		if err := ctx.Err(); err != nil {
			return freed, err
		}
		newest, err := Verify(k.step(model, step))
		if err != nil {
			continue // what is wrong with it is said when it is wanted
		}
		best := k.best(model, newest.Fingerprint, steps)
		for _, old := range steps[i+1:] {
			if old == best {
				continue
			}
			n := sizeOf(k.step(model, old))
			if err := removeCheckpoint(k.step(model, old)); err != nil {
				return freed, err
			}
			freed += n
		}
		n := k.asideSize(model, step)
		freed += n
		return freed, k.pruneAside(model, step)
	}
	return freed, nil
}

// asideSize returns the bytes of what pruneAside would remove.
func (k *Keeper) asideSize(model string, oldest int64) (size uint64) {
	entries, err := os.ReadDir(k.model(model, checkpointsName))
	if err != nil {
		return 0 // pruneAside says why
	}
	for _, e := range entries {
		number, _, aside := strings.Cut(e.Name(), ".")
		if step, err := strconv.ParseInt(number, 10, 64); err == nil && aside && step < oldest {
			size += sizeOf(k.model(model, checkpointsName, e.Name()))
		}
	}
	return size
}

// sizeOf returns the bytes of the files below dir, as far as they can be seen.
func sizeOf(dir string) (size uint64) {
	filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error { //nolint:errcheck // what is gone has no size
		if err != nil || !d.Type().IsRegular() {
			return nil //nolint:nilerr // see above
		}
		if info, err := d.Info(); err == nil {
			size += uint64(info.Size()) //nolint:gosec // sizes are not negative
		}
		return nil
	})
	return size
}
