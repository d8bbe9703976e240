package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"golang.org/x/sync/errgroup"

	"outlast/checkpoint/durable"
)

// Scrub reads everything that a store has of a run and compares it with the
// manifests. It calls each, if that is given, for every checkpoint when it is
// through with it, one at a time and in the order of the inventory. What cannot
// be read now is unknown, and no reason to stop; an error is one that is.
func Scrub(ctx context.Context, store Store, run string, each func(Stored)) (Inventory, error) {
	inv, err := TakeInventory(ctx, store, run)
	if err != nil {
		return inv, err
	}
	for i := range inv.Checkpoints {
		if err := inv.Checkpoints[i].scrub(ctx, store); err != nil {
			return inv, err
		}
		if each != nil {
			each(inv.Checkpoints[i])
		}
	}
	return inv, nil
}

// scrub reads the content of a checkpoint and says what it is worth. What the
// listing has said is not believed where the content says otherwise.
func (s *Stored) scrub(ctx context.Context, store Store) error {
	if s.manifest.Format == 0 {
		return ctx.Err() // half, or its manifest is damaged
	}
	s.State, s.Problem = StoredVerified, ""
	why := make([]error, len(s.manifest.Files))
	g := new(errgroup.Group)
	g.SetLimit(copyLimit)
	for i, f := range s.manifest.Files {
		g.Go(func() error {
			why[i] = compare(ctx, store, path.Join(s.Folder, f.Path), f)
			return nil
		})
	}
	g.Wait() //nolint:errcheck // each has its own
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, err := range why {
		var damaged *DamagedError
		switch {
		case errors.As(err, &damaged):
			s.damaged(err)
		case err != nil && s.State == StoredVerified:
			s.State, s.Problem = StoredUnknown, err.Error()
		}
	}
	return nil
}

// compare reads a file of the store and says how it differs from f: a
// *DamagedError. Any other error says that nobody knows.
func compare(ctx context.Context, store Store, name string, f File) error {
	in, err := store.Get(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return &DamagedError{f.Path, "it is missing"}
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", f.Path, err)
	}
	defer in.Close() //nolint:errcheck // it was only read
	d, err := durable.Hash(io.LimitReader(in, f.Size+1))
	switch {
	case err != nil:
		return fmt.Errorf("read %s: %w", f.Path, err)
	case d.Size != f.Size:
		return &DamagedError{f.Path, fmt.Sprintf("it does not have %d bytes", f.Size)}
	case d.SHA256 != f.SHA256:
		return &DamagedError{f.Path, "its SHA-256 differs"}
	}
	return nil
}
