package checkpoint

import (
	"context"
	"path"

	"outlast/checkpoint/durable"
)

// A Confirmer is a Store that can say how safe a file is without being given it
// once more.
type Confirmer interface {
	// Confirm returns how safe the file called name with this content is. It may
	// be called concurrently. What is not there, or differs, is ErrNotFound.
	Confirm(ctx context.Context, name string, want durable.Digest) (Durability, error)
}

// confirm returns how safe a checkpoint is that the store has whole: as it has
// said before, or as it says now. Nobody's word makes it no safer than handed.
func (m *Mirror) confirm(ctx context.Context, it *item, manifest Manifest, ours []byte) (Durability, error) {
	if said, ok := m.known[it.key()]; ok && said.SHA256 == digestOf(ours).SHA256 {
		return said.Durability, nil
	}
	store, ok := m.Store.(Confirmer)
	if !ok {
		return Handed, nil
	}
	all := Mirrored
	for _, f := range append(manifest.Files, File{ManifestName, int64(len(ours)), digestOf(ours).SHA256}) {
		d, err := store.Confirm(ctx, path.Join(it.there, f.Path), durable.Digest{Size: f.Size, SHA256: f.SHA256})
		if err != nil {
			return "", err
		}
		all = all.atMost(d)
	}
	return all, nil
}
