package drive

import (
	"context"
	"fmt"

	"outlast/checkpoint"
	"outlast/checkpoint/durable"
)

var _ checkpoint.Confirmer = (*Store)(nil)

// Confirm implements checkpoint.Confirmer: it asks Drive for size and SHA-256.
func (s *Store) Confirm(ctx context.Context, name string, want durable.Digest) (checkpoint.Durability, error) {
	p, err := s.path(name)
	if err != nil {
		return "", err
	}
	unlock, err := s.names.lock(ctx, p)
	if err != nil {
		return "", err
	}
	defer unlock()
	defer s.index.use(parentOf(p))()
	if err := s.knowVersions(ctx, p); err != nil {
		return "", fmt.Errorf("confirm %s: %w", name, err)
	}
	o, err := (&put{store: s, name: name, path: p, want: want}).present(ctx)
	switch {
	case err != nil:
		return "", fmt.Errorf("confirm %s: %w", name, err)
	case o.ID == "":
		return "", fmt.Errorf("confirm %s: %w", name, checkpoint.ErrNotFound)
	}
	return checkpoint.Mirrored, nil
}
