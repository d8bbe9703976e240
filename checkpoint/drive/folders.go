package drive

import (
	"context"
	"path"
	"slices"

	driveapi "google.golang.org/api/drive/v3"
)

// ensureFolder returns the id of the folder at a path, which is made if it is
// missing. The caller uses the path.
func (s *Store) ensureFolder(ctx context.Context, p string) (string, error) {
	if s.index.suspected(p) {
		if err := s.lookAtFolder(ctx, p); err != nil {
			return "", err
		}
	}
	if ids := s.index.folderIDs(p); len(ids) > 0 {
		return ids[0], nil
	}
	unlock, err := s.names.lock(ctx, "folder\x00"+p)
	if err != nil {
		return "", err
	}
	defer unlock()
	for range s.cfg.Tries { // somebody may keep deleting the folder above
		if ids := s.index.folderIDs(p); len(ids) > 0 {
			return ids[0], nil
		}
		var parent string
		if parent, err = s.ensureFolder(ctx, parentOf(p)); err != nil {
			return "", err
		}
		if err = s.listOnce(ctx, parentOf(p)); err != nil {
			return "", err
		}
		if ids := s.index.folderIDs(p); len(ids) > 0 {
			return ids[0], nil
		}
		var id string
		id, err = s.makeFolder(ctx, p, parent)
		if !judged(err, gone) {
			return id, finish("make the folder "+p+" in Google Drive", err)
		}
		s.loseFolder(parentOf(p))
	}
	return "", finish("make the folder "+p+" in Google Drive", err)
}

// lookAtFolder finds out why a folder is in the trash. Where Outlast has tidied
// it away, on another machine perhaps, it is forgotten; where a person has put
// it, nothing is uploaded to it until it is taken out. Neither is so if it is
// out by now.
func (s *Store) lookAtFolder(ctx context.Context, p string) error {
	top, tidied := "", false
	for at := p; at != ""; at = parentOf(at) {
		ids := s.index.folderIDs(at)
		if len(ids) == 0 {
			break
		}
		f, err := s.file(ctx, ids[0])
		if judged(err, gone) {
			s.loseFolder(at)
			return nil
		}
		if err != nil {
			return finish("look at the folder "+p+" in Google Drive", err)
		}
		if !f.Trashed {
			break
		}
		top, tidied = at, f.AppProperties[markKey] == markTidied || f.Properties[markKey] == markTidied
	}
	switch {
	case top == "":
		s.index.suspect(p, false)
	case tidied:
		s.loseFolder(top)
	default:
		s.index.suspect(p, true)
		return trashedProblem(top)
	}
	return nil
}

// listOnce lists a folder unless its content is known.
func (s *Store) listOnce(ctx context.Context, p string) error {
	if !s.index.listedAt(p).IsZero() {
		return nil
	}
	return s.listFolders(ctx, []string{p})
}

// makeFolder makes a folder. Its id is generated first, so that an answer that
// gets lost does not lead to a second one.
func (s *Store) makeFolder(ctx context.Context, p, parent string) (string, error) {
	id, err := s.ids.take(ctx)
	if err != nil {
		return "", err
	}
	folder := &driveapi.File{
		Id: id, Name: path.Base(p), MimeType: folderType, Parents: []string{parent},
		AppProperties: map[string]string{markKey: markFile}, Properties: map[string]string{markKey: markFile},
	}
	made := false
	err = s.do(ctx, "make the folder "+p+" in Google Drive", func() error {
		_, err := s.api.Files.Create(folder).Context(ctx).SupportsAllDrives(true).Fields("id").Do()
		made = err == nil
		return err
	})
	if judged(err, refused) { // an id that lay about for too long
		s.ids.drop()
		return "", err
	}
	if err != nil && !judged(err, taken) { // taken: an earlier try has made it
		return "", err
	}
	s.log.DebugContext(ctx, "drive folder made", "path", p)
	s.knowFolder(p, id, true, made)
	return id, nil
}

func trashedProblem(p string) error {
	return &AccessError{
		What: "save to the folder " + p + " in Google Drive",
		Err:  errInTrash,
		Hint: "take it out of the trash, or choose another --store",
	}
}

// tidy removes the folder at p, and those above it, that a Delete left empty,
// down to the store's own. They go to the trash, where they take no room: what
// another program may have put there is invisible to this one, and would be
// lost with a folder that is deleted. It is for looks only, so nothing here is
// an error.
func (s *Store) tidy(ctx context.Context, p string) {
	for ; p != s.cfg.Folder && len(p) > len(s.cfg.Folder); p = parentOf(p) {
		ids := s.index.takeEmpty(p)
		if len(ids) == 0 {
			return
		}
		for _, id := range ids {
			if !s.isEmpty(ctx, id) {
				s.index.revive(id)
				s.knowFolder(p, id, true, false)
				return
			}
			s.journal.note(record{Kind: recordFolder, Path: p, Gone: true, object: object{ID: id}}, false)
			// Whatever Drive answers, nothing is put into it any more.
			if err := s.trash(ctx, id); err != nil {
				s.log.DebugContext(ctx, "empty folder is left in drive", "path", p, "error", err)
				return
			}
		}
	}
}

// isEmpty reports whether Drive shows nothing in a folder, but for what is
// known to be gone.
func (s *Store) isEmpty(ctx context.Context, id string) bool {
	children, complete, err := s.children(ctx, "'"+quote(id)+"' in parents and trashed = false")
	return err == nil && complete && !slices.ContainsFunc(children, func(f *driveapi.File) bool { return !s.index.isDead(f.Id) })
}

// trash moves a folder to the trash, and says on it that it was not a person
// who did.
func (s *Store) trash(ctx context.Context, id string) error {
	marks := map[string]string{markKey: markTidied}
	trashed := &driveapi.File{Trashed: true, AppProperties: marks, Properties: marks}
	err := s.do(ctx, "tidy up in Google Drive", func() error {
		_, err := s.api.Files.Update(id, trashed).Context(ctx).SupportsAllDrives(true).Fields("id").Do()
		return err
	})
	if judged(err, gone) {
		return nil
	}
	return err
}
