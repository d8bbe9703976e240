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
	"time"

	"golang.org/x/sync/errgroup"
)

// A StoredState says what is known of a checkpoint in a store.
type StoredState string

// What can be said of a checkpoint without reading its content: sealed or not.
// Scrub reads it, and says which it is.
const (
	StoredHalf     StoredState = "half"     // it has no manifest: a copy on its way, or the rest of one
	StoredSealed   StoredState = "sealed"   // its manifest is there, and what it lists
	StoredVerified StoredState = "verified" // its content was read, and is what its manifest says
	StoredDamaged  StoredState = "damaged"  // it is not what its manifest says
	StoredUnknown  StoredState = "unknown"  // it could not be read
)

// A Stored is one checkpoint in a store.
type Stored struct {
	Model      string      `json:"model"`
	Step       int64       `json:"step"`
	Final      bool        `json:"final"`
	Superseded bool        `json:"superseded"` // set aside: of a history that was left behind
	Folder     string      `json:"folder"`     // name in the store
	Generation int64       `json:"generation"`
	Writer     string      `json:"writer"`
	Created    time.Time   `json:"created"`
	Files      int         `json:"files"`
	Bytes      int64       `json:"bytes"` // as listed, with the manifest
	State      StoredState `json:"state"`
	Problem    string      `json:"problem,omitempty"`

	revision int64
	manifest Manifest
	names    []string         // of all files that are listed
	sizes    map[string]int64 // by path within the folder
}

// An Inventory is what a store has of one run.
type Inventory struct {
	Run         string   `json:"run"`
	Claim       *Claim   `json:"claim"` // who writes it; nil if nobody has said so
	Files       int      `json:"files"`
	Bytes       int64    `json:"bytes"`
	Checkpoints []Stored `json:"checkpoints"` // by model, the newest first, what was set aside last
}

// A Summary is what the names in a store say of a run.
type Summary struct {
	Run         string `json:"run"`
	Models      int    `json:"models"`
	Finished    int    `json:"finished"`    // models with a final checkpoint
	Checkpoints int    `json:"checkpoints"` // sealed ones that are not final
	Files       int    `json:"files"`
	Bytes       int64  `json:"bytes"`
}

// Summaries lists the runs of a store. It reads names only.
func Summaries(ctx context.Context, store Store) ([]Summary, error) {
	entries, err := store.List(ctx, "")
	if err != nil {
		return nil, err
	}
	runs := map[string][]Entry{}
	for _, e := range entries {
		if run, below, ok := strings.Cut(e.Name, "/"); ok {
			runs[run] = append(runs[run], Entry{below, e.Size})
		}
	}
	all := []Summary{}
	for run, entries := range runs {
		s := Summary{Run: run, Files: len(entries)}
		models, isRun := map[string]bool{}, false
		for _, e := range entries {
			s.Bytes += e.Size
			isRun = isRun || e.Name == runFile
		}
		for _, c := range group(run, entries) {
			models[c.Model] = true
			switch {
			case c.State == StoredHalf || c.Superseded:
			case c.Final:
				s.Finished++
			default:
				s.Checkpoints++
			}
		}
		if s.Models = len(models); isRun || s.Models > 0 {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b Summary) int { return strings.Compare(a.Run, b.Run) })
	return all, nil
}

// TakeInventory returns what a store has of a run. It reads manifests, no content.
func TakeInventory(ctx context.Context, store Store, run string) (Inventory, error) {
	inv := Inventory{Run: run}
	if !safeName(run) {
		return inv, &RestoreError{run, errors.New("it is no name of a run"), "a run's name is that of its folder in the store"}
	}
	entries, err := store.List(ctx, run+"/")
	if err != nil {
		return inv, fmt.Errorf("list %s: %w", run, err)
	}
	if len(entries) == 0 {
		return inv, (&restorer{store: store, run: run}).unknown(ctx)
	}
	for i := range entries {
		entries[i].Name = strings.TrimPrefix(entries[i].Name, run+"/")
		inv.Files, inv.Bytes = inv.Files+1, inv.Bytes+entries[i].Size
	}
	if inv.Claim, err = readClaim(ctx, store, run); err != nil {
		return inv, err
	}
	inv.Checkpoints = group(run, entries)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(copyLimit)
	for i := range inv.Checkpoints {
		g.Go(func() error { return inv.Checkpoints[i].look(ctx, store, run) })
	}
	err = g.Wait()
	slices.SortFunc(inv.Checkpoints, func(a, b Stored) int {
		return cmp.Or(strings.Compare(a.Model, b.Model), later(b.Superseded, a.Superseded), later(a.Final, b.Final),
			cmp.Compare(b.Step, a.Step), cmp.Compare(b.revision, a.revision), strings.Compare(a.Folder, b.Folder))
	})
	return inv, err
}

// later orders what is so before what is not.
func later(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// group gathers the files of a run, named from its folder on, by the checkpoint
// that they are of.
func group(run string, entries []Entry) []Stored {
	found := map[string]*Stored{}
	for _, e := range entries {
		s, file, ok := placeOf(e.Name)
		if !ok {
			continue
		}
		folder := path.Join(run, s.Folder)
		if found[folder] == nil {
			s.Folder, s.State, s.sizes = folder, StoredHalf, map[string]int64{}
			found[folder] = &s
		}
		c := found[folder]
		c.names = append(c.names, path.Join(run, e.Name))
		c.sizes[file] = e.Size
		c.Files, c.Bytes = c.Files+1, c.Bytes+e.Size
		if file == ManifestName {
			c.State = StoredSealed
		}
	}
	all := []Stored{}
	for _, s := range found {
		all = append(all, *s)
	}
	return all
}

// placeOf reads the name of a file below a run: models/M/checkpoints/40/model.pt
// or models/M/final/model.pt, 40.1 if the step was saved again, all also below models/M/superseded/WHOSE.
func placeOf(name string) (s Stored, file string, ok bool) {
	parts := strings.Split(name, "/")
	if len(parts) < 4 || parts[0] != modelsName || !safeName(parts[1]) {
		return s, "", false
	}
	s.Model = parts[1]
	at := 2
	if parts[at] == supersededName {
		s.Superseded, at = true, at+2
	}
	if len(parts) > at+1 && parts[at] == finalName {
		s.Final = true
		return s.at(parts, at+1)
	}
	if len(parts) > at+2 && parts[at] == checkpointsName {
		s.Step, s.revision, ok = revisionOf(parts[at+1])
		if ok {
			return s.at(parts, at+2)
		}
	}
	return s, "", false
}

func (s Stored) at(parts []string, end int) (Stored, string, bool) {
	s.Folder = path.Join(parts[:end]...)
	return s, path.Join(parts[end:]...), true
}

// look reads the manifest, and compares what is listed with it.
func (s *Stored) look(ctx context.Context, store Store, run string) error {
	if s.State == StoredHalf {
		s.Problem = ErrNoManifest.Error()
		return nil
	}
	data, err := fetch(ctx, store, path.Join(s.Folder, ManifestName), maxManifestBytes)
	if errors.Is(err, ErrNotFound) { // removed meanwhile
		s.State, s.Problem = StoredHalf, ErrNoManifest.Error()
		return nil
	}
	if errors.Is(err, errTooLarge) {
		s.damaged(err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the manifest of %s: %w", s.Folder, err)
	}
	m, err := ReadManifest(bytes.NewReader(data))
	if err != nil {
		s.damaged(err)
		return nil
	}
	if !s.Final && m.Step != s.Step || m.Model != s.Model || m.Run != run {
		s.damaged(fmt.Errorf("%s: it is of step %d of %s in %s", ManifestName, m.Step, m.Model, m.Run))
		return nil
	}
	s.manifest = m
	s.Step, s.Generation, s.Writer, s.Created = m.Step, m.Generation, m.Writer, m.Created
	for _, f := range m.Files {
		size, listed := s.sizes[f.Path]
		switch {
		case !listed:
			s.damaged(&DamagedError{f.Path, "it is missing"})
		case size != f.Size:
			s.damaged(&DamagedError{f.Path, fmt.Sprintf("it has %d bytes instead of %d", size, f.Size)})
		}
	}
	return nil
}

func (s *Stored) damaged(why error) {
	if s.State != StoredDamaged {
		s.State, s.Problem = StoredDamaged, why.Error()
	}
}
