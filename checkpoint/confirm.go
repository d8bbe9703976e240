package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"

	"outlast/checkpoint/durable"
)

// A Confirmer is a Store that can say how safe a file is without being given it
// once more.
type Confirmer interface {
	// Confirm returns how safe the file called name with this content is. It may
	// be called concurrently. What is not there, or differs, is ErrNotFound.
	Confirm(ctx context.Context, name string, want durable.Digest) (Durability, error)
}

// confirm returns how safe a checkpoint is whose manifest is in a folder of the
// store: as the store has said before, or as it says now. Nobody's word makes it
// no safer than handed. What is not whole there is ErrNotFound.
func (m *Mirror) confirm(ctx context.Context, it *item, folder string, manifest Manifest, ours []byte) (Durability, error) {
	if said, ok := m.known.Said[it.key()]; ok && said.SHA256 == digestOf(ours).SHA256 {
		return said.Durability, nil
	}
	return confirmFolder(ctx, m.Store, folder, manifest, ours)
}

// confirmFolder returns how safe the checkpoint in a folder of a store is.
func confirmFolder(ctx context.Context, s Store, folder string, manifest Manifest, ours []byte) (Durability, error) {
	store, ok := s.(Confirmer)
	if !ok {
		return Handed, nil
	}
	all := Mirrored
	for _, f := range append(manifest.Files, File{ManifestName, int64(len(ours)), digestOf(ours).SHA256}) {
		d, err := store.Confirm(ctx, path.Join(folder, f.Path), durable.Digest{Size: f.Size, SHA256: f.SHA256})
		if err != nil {
			return "", err
		}
		all = all.atMost(d)
	}
	return all, nil
}

// Confirm asks a store, whose address is url, how safe the results of a run in
// the data directory dir are, and notes what it says. It is for a run that nobody
// goes on with: a Mirror asks by itself.
func Confirm(ctx context.Context, store Store, url, run, dir string) error {
	runDir := filepath.Join(dir, run)
	models, err := modelsIn(runDir)
	if err != nil {
		return fmt.Errorf("confirm %s: %w", run, err)
	}
	known := readConfirmed(runDir, url)
	for _, model := range models {
		ours, manifest, err := manifestBytes(filepath.Join(runDir, modelsName, model, finalName))
		if err != nil || manifest.Model != model {
			continue // it has no result
		}
		folder := path.Join(run, folderOf(model, manifest.Step, true))
		theirs, err := fetch(ctx, store, path.Join(folder, ManifestName), maxManifestBytes)
		if errors.Is(err, ErrNotFound) || err == nil && !bytes.Equal(ours, theirs) {
			continue
		}
		var d Durability
		if err == nil {
			d, err = confirmFolder(ctx, store, folder, manifest, ours)
		}
		if errors.Is(err, ErrNotFound) { // the manifest alone is nothing
			continue
		}
		if err != nil {
			return fmt.Errorf("confirm %s: %w", folder, err)
		}
		known.add(&item{model: model, final: true}, ours, d)
	}
	return known.save(runDir)
}
