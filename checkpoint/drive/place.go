package drive

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	driveapi "google.golang.org/api/drive/v3"
)

// defaultPlace is how long a folder is believed to be where it was. People move
// folders, and files that follow one by its id are not where the store's address
// leads.
const defaultPlace = time.Minute

// checkPlaces asks Drive now and then whether the folders down to p are still
// where their paths say. One that a person has moved while this process used it
// stops the work, until it is back; one that was moved before is left alone, and
// made anew.
func (s *Store) checkPlaces(ctx context.Context, p string) error {
	for _, at := range chain(p) {
		ids := s.index.folderIDs(at)
		if len(ids) == 0 {
			continue // what is below may be known by id
		}
		placed := s.index.placedAt(at)
		if time.Since(placed) < s.cfg.Place {
			continue
		}
		f, err := s.file(ctx, ids[0])
		if judged(err, gone) && placed.IsZero() { // or the journal is damaged: what is below is asked for itself
			s.index.dropFolder(at, ids[0])
			s.journal.note(record{Kind: recordFolder, Path: at, Gone: true, object: object{ID: ids[0]}}, false)
			continue
		}
		if judged(err, gone) {
			s.loseFolder(at)
			return nil
		}
		if err != nil {
			return finish("look at the folder "+at+" in Google Drive", err)
		}
		if f.Trashed { // that is asked when something is put there
			continue
		}
		if s.inPlace(ctx, at, f) {
			s.index.setPlaced(at)
			continue
		}
		if !placed.IsZero() {
			return &AccessError{
				"use the folder " + at + " in Google Drive", errors.New("it was moved, or has another name now: " + f.Name),
				"put it back, or pause the run and resume it with the --store that leads there",
			}
		}
		s.log.WarnContext(ctx, "drive folder was moved away, making another one", "path", at, "is_called", f.Name)
		s.leaveFolder(at)
		return nil
	}
	return nil
}

// chain returns the paths of a folder and of those above it, from the top.
func chain(p string) []string {
	var all []string
	for ; p != ""; p = parentOf(p) {
		all = append(all, p)
	}
	slices.Reverse(all)
	return all
}

// inPlace reports whether a folder is where its path says.
func (s *Store) inPlace(ctx context.Context, p string, f *driveapi.File) bool {
	above := s.index.folderIDs(parentOf(p))
	if parentOf(p) == "" {
		above = s.root(ctx)
	}
	return f.Name == path.Base(p) &&
		(len(above) == 0 || slices.ContainsFunc(f.Parents, func(id string) bool { return slices.Contains(above, id) }))
}

// root returns the real id of My Drive; none if this sign-in may not see it.
func (s *Store) root(ctx context.Context) []string {
	if id := s.index.realRoot(); id != "" {
		return []string{id}
	}
	f, err := s.file(ctx, "root")
	if err != nil {
		s.log.DebugContext(ctx, "my drive does not tell its id", "error", fmt.Sprint(clean(err)))
		return nil
	}
	s.index.setRealRoot(f.Id)
	return []string{f.Id}
}

// leaveFolder forgets a folder and all below it, which stays as it is.
func (s *Store) leaveFolder(p string) {
	for file, o := range s.index.versionsBelow(p + "/") {
		for _, one := range o {
			s.loseFile(file, one)
		}
	}
	for _, sub := range s.index.foldersBelow(p + "/") {
		s.loseFolder(sub)
	}
	s.loseFolder(p)
}

// The index's part of it.

// placedAt returns when a folder was known to be where its path says.
func (x *index) placedAt(p string) time.Time {
	x.mu.Lock()
	defer x.mu.Unlock()
	if f := x.folders[p]; f != nil {
		return f.placed
	}
	return time.Time{}
}

// dropFolder forgets one id of a folder.
func (x *index) dropFolder(p, id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if f := x.folders[p]; f != nil {
		f.ids = slices.DeleteFunc(f.ids, func(one string) bool { return one == id })
		f.listed = time.Time{}
	}
}

// setPlaced says that a folder is where its path says.
func (x *index) setPlaced(p string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if f := x.folders[p]; f != nil {
		f.placed = time.Now()
	}
}

func (x *index) realRoot() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.myDrive
}

func (x *index) setRealRoot(id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.myDrive = id
}

// versionsBelow returns the ids of all versions of files below a prefix, by path.
func (x *index) versionsBelow(prefix string) map[string][]string {
	x.mu.Lock()
	defer x.mu.Unlock()
	found := map[string][]string{}
	for p, versions := range x.files {
		if strings.HasPrefix(p, prefix) {
			for _, k := range versions {
				found[p] = append(found[p], k.ID)
			}
		}
	}
	return found
}

// foldersBelow returns the paths of the known folders below a prefix.
func (x *index) foldersBelow(prefix string) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var found []string
	for p, f := range x.folders {
		if strings.HasPrefix(p, prefix) && len(f.ids) > 0 {
			found = append(found, p)
		}
	}
	return found
}
