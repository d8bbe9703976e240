package checkpoint

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"outlast/checkpoint/durable"
)

// prune removes the model's oldest checkpoints in the store beyond Keep, of
// those that are not newer than the one just copied into folder: manifest first,
// so that what is left of one is not taken for whole. What that one takes the
// place of goes as well. Those of another history stay, and so does the best.
func (m *Mirror) prune(ctx context.Context, it *item, folder string) error {
	if it.final {
		return nil
	}
	there, err := m.listed(ctx, it)
	if err != nil {
		return err
	}
	best, err := m.bestThere(ctx, it, folder, there)
	if err != nil {
		return err
	}
	counted := 0
	for _, c := range there {
		sealed := c.State != StoredHalf
		if sealed {
			ours, err := m.pruneable(ctx, c.Folder)
			if err != nil {
				return err
			}
			if !ours {
				continue
			}
		}
		replaced := c.Step == it.step && c.Folder != folder
		if counted < max(m.Keep, 1) && !replaced {
			if sealed {
				counted++
			}
			continue // what is not sealed may be so a moment later
		}
		if c.Folder == best && !replaced {
			continue
		}
		if err := deleteAll(ctx, m.Store, c.names); err != nil {
			return err
		}
		delete(m.ours, c.Folder)
		delete(m.scores, c.Folder)
	}
	return nil
}

// listed returns the model's checkpoints in the store up to it, the newest first.
func (m *Mirror) listed(ctx context.Context, it *item) ([]Stored, error) {
	entries, err := m.Store.List(ctx, path.Join(m.Name, modelsName, it.model, checkpointsName)+"/")
	if err != nil {
		return nil, err
	}
	for i := range entries {
		entries[i].Name = strings.TrimPrefix(entries[i].Name, m.Name+"/")
	}
	there := slices.DeleteFunc(group(m.Name, entries), func(s Stored) bool { return s.Step > it.step })
	slices.SortFunc(there, func(a, b Stored) int {
		return cmp.Or(cmp.Compare(b.Step, a.Step), strings.Compare(a.Folder, b.Folder))
	})
	return there, nil
}

// pruneable reports whether the checkpoint in a folder of the store is ours to
// remove. Each is looked at once.
func (m *Mirror) pruneable(ctx context.Context, folder string) (bool, error) {
	m.state.mu.Lock()
	alone := m.state.writer == nil
	m.state.mu.Unlock()
	if alone {
		return true, nil
	}
	if ours, ok := m.ours[folder]; ok {
		return ours, nil
	}
	data, err := m.read(ctx, path.Join(folder, ManifestName))
	if errors.Is(err, ErrNotFound) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	there, damaged := ReadManifest(bytes.NewReader(data))
	ours := damaged != nil || m.isOurs(there) // a damaged one is nobody's
	m.note(folder, ours)
	return ours, nil //nolint:nilerr // see above
}

func (m *Mirror) wrote(folder string) { m.note(folder, true) }

func (m *Mirror) note(folder string, ours bool) {
	if m.ours == nil {
		m.ours = map[string]bool{}
	}
	m.ours[folder] = ours
}

// deleteAll removes the files of one checkpoint, its manifest first.
func deleteAll(ctx context.Context, store Store, names []string) error {
	names = slices.SortedFunc(slices.Values(names), manifestFirst)
	if len(names) == 0 {
		return nil
	}
	if err := store.Delete(ctx, names[0]); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(copyLimit)
	for _, name := range names[1:] {
		g.Go(func() error { return store.Delete(ctx, name) })
	}
	return g.Wait()
}

// setAside copies a checkpoint of another history, which stands where ours is to
// be, to where nothing is pruned, and removes it from its place. What of it is
// damaged is not worth the place.
func (m *Mirror) setAside(ctx context.Context, folder string, old Manifest, manifest []byte) error {
	below := strings.TrimPrefix(folder, path.Join(m.Name, modelsName, old.Model)+"/")
	to := path.Join(m.Name, modelsName, old.Model, supersededName, historyName(old), below)
	names := []string{path.Join(folder, ManifestName)}
	for _, f := range old.Files {
		names = append(names, path.Join(folder, f.Path))
		err := m.move(ctx, path.Join(folder, f.Path), path.Join(to, f.Path), durable.Digest{Size: f.Size, SHA256: f.SHA256})
		if errors.Is(err, ErrNotFound) || errors.Is(err, durable.ErrContent) {
			m.Log.WarnContext(ctx, "the other history's checkpoint is damaged", "model", old.Model, "step", old.Step, "file", f.Path, "error", err)
			return nil
		}
		if err != nil {
			return err
		}
	}
	if _, err := m.Store.Put(ctx, path.Join(to, ManifestName), bytes.NewReader(manifest), digestOf(manifest)); err != nil {
		return err
	}
	m.Log.WarnContext(ctx, "another history's checkpoint was set aside", "model", old.Model, "step", old.Step, "to", to)
	return deleteAll(ctx, m.Store, names)
}

func (m *Mirror) move(ctx context.Context, from, to string, want durable.Digest) error {
	in, err := m.Store.Get(ctx, from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // it was only read
	_, err = m.Store.Put(ctx, to, in, want)
	return err
}

// historyName names whose checkpoint it is, for a folder: g2-1a2b3c4d.
func historyName(m Manifest) string {
	writer := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return -1
	}, m.Writer)
	return fmt.Sprintf("g%d-%s", m.Generation, writer[:min(8, len(writer))])
}
