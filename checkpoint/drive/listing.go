package drive

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"
	"time"

	driveapi "google.golang.org/api/drive/v3"
	"google.golang.org/api/googleapi"

	"outlast/checkpoint"
)

// Bounds of listing.
const (
	pageSize    = 1000             // the most that Drive gives
	batch       = 40               // folders in one query: its length has a limit
	settle      = 10 * time.Minute // by then a listing shows what we know to be there
	pageRetries = 3                // of a listing whose page token is refused
)

// List implements checkpoint.Store. It asks Drive each time, and adds what this
// store knows by id though the listing lacks it: Drive's listings lag behind.
func (s *Store) List(ctx context.Context, prefix string) ([]checkpoint.Entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	root := s.cfg.Folder
	if prefix != "" {
		var err error
		if root, err = s.path(strings.TrimSuffix(prefix, "/")); err != nil {
			return nil, err
		}
	}
	if err := s.checkPlaces(ctx, root); err != nil {
		return nil, err
	}
	if err := s.find(ctx, root, true); err != nil {
		return nil, err
	}
	for level := []string{root}; len(level) > 0; {
		if err := s.listFolders(ctx, level); err != nil {
			return nil, err
		}
		var next []string
		for _, p := range level {
			next = append(next, s.index.subfolders(p)...)
		}
		level = next
	}
	var entries []checkpoint.Entry
	for p, o := range s.index.below(root + "/") {
		entries = append(entries, checkpoint.Entry{Name: s.name(p), Size: o.Size})
	}
	slices.SortFunc(entries, func(a, b checkpoint.Entry) int { return strings.Compare(a.Name, b.Name) })
	return entries, nil
}

// find makes the folder at path known, if it exists. With again, a folder that
// was listed before is listed anew for what it lacked then.
func (s *Store) find(ctx context.Context, p string, again bool) error {
	if len(s.index.folderIDs(p)) > 0 {
		return nil
	}
	parent := parentOf(p)
	if err := s.find(ctx, parent, again); err != nil {
		return err
	}
	if len(s.index.folderIDs(parent)) == 0 || !again && !s.index.listedAt(parent).IsZero() {
		return nil
	}
	return s.listFolders(ctx, []string{parent})
}

// listFolders brings the index up to date with what is directly in some
// folders.
func (s *Store) listFolders(ctx context.Context, paths []string) error {
	for group := range slices.Chunk(paths, batch) {
		began := time.Now()
		owner := map[string]string{} // id → path
		var terms []string
		for _, p := range group {
			for _, id := range s.index.folderIDs(p) {
				owner[id] = p
				terms = append(terms, "'"+quote(id)+"' in parents")
			}
		}
		if len(terms) == 0 {
			continue
		}
		query := "(" + strings.Join(terms, " or ") + ") and trashed = false"
		if !slices.ContainsFunc(group, func(p string) bool { return p == s.cfg.Folder || strings.HasPrefix(p, s.cfg.Folder+"/") }) {
			query += " and mimeType = '" + folderType + "'" // above the store, other people's files are none of our business
		}
		children, complete, err := s.children(ctx, query)
		if judged(err, gone) { // one of the folders is: Drive does not say which
			if err := s.dropGone(ctx, owner); err != nil {
				return err
			}
			return s.listFolders(ctx, paths)
		}
		if err != nil {
			return err
		}
		seen := s.takeIn(children, owner)
		for _, p := range group {
			if err := s.checkUnseen(ctx, p, seen, began); err != nil {
				return err
			}
			if complete {
				s.index.setListed(p, began)
			}
		}
	}
	return nil
}

// dropGone forgets those folders that Drive has no more. It is an error if there
// is none.
func (s *Store) dropGone(ctx context.Context, owner map[string]string) error {
	const what = "list the store in Google Drive"
	var err error
	dropped := false
	for id, p := range owner {
		if _, err = s.file(ctx, id); judged(err, gone) {
			s.loseFolder(p)
			dropped = true
		} else if err != nil {
			return finish(what, err)
		}
	}
	if !dropped {
		return &AccessError{what, errContradiction, "it is tried again"}
	}
	return nil
}

// takeIn adds what a listing shows to the index, and returns the ids.
func (s *Store) takeIn(children []*driveapi.File, owner map[string]string) map[string]bool {
	seen := map[string]bool{}
	for _, f := range children {
		for _, parent := range f.Parents {
			dir, asked := owner[parent]
			if !asked { // My Drive calls itself by its real id
				dir, asked = owner["root"]
			}
			if !asked || strings.Contains(f.Name, "/") || f.Name == "" || f.Name == "." || f.Name == ".." || s.index.isDead(f.Id) {
				continue
			}
			p := path.Join(dir, f.Name)
			switch {
			case f.MimeType == folderType:
				s.knowFolder(p, f.Id, ours(f), false)
			case ours(f):
				seen[f.Id] = true
				s.knowFile(p, objectOf(f))
			}
		}
	}
	return seen
}

// checkUnseen asks Drive for each file that a listing should have shown and did
// not: it may be gone, or the listing lags behind.
func (s *Store) checkUnseen(ctx context.Context, folder string, seen map[string]bool, now time.Time) error {
	for p, objects := range s.index.unseen(folder, seen, now.Add(-settle)) {
		for _, o := range objects {
			if _, err := s.confirm(ctx, p, o); err != nil && !errors.Is(err, checkpoint.ErrNotFound) {
				return err
			}
		}
	}
	return nil
}

// confirm asks Drive for one object by id, which is the one question that it
// answers without lag. ErrNotFound says that it is gone, or in the trash; then
// what has replaced it is known.
func (s *Store) confirm(ctx context.Context, p string, o object) (object, error) {
	f, err := s.file(ctx, o.ID)
	if judged(err, gone) || err == nil && (f.Trashed || !ours(f)) {
		if err := s.follow(ctx, p, o); err != nil {
			return object{}, err
		}
		return object{}, notFound(s.name(p))
	}
	if err != nil {
		return object{}, finish("look at "+s.name(p)+" in Google Drive", err)
	}
	o = objectOf(f)
	s.knowFile(p, o)
	return o, nil
}

// file gets an object's metadata by id.
func (s *Store) file(ctx context.Context, id string) (f *driveapi.File, err error) {
	err = s.do(ctx, "look at a file in Google Drive", func() error {
		f, err = s.api.Files.Get(id).Context(ctx).SupportsAllDrives(true).Fields(fileFields).Do()
		return err
	})
	return f, err
}

// children returns all pages of a query, and whether Drive vouches for them
// being all. A page token that is refused means to begin again.
func (s *Store) children(ctx context.Context, query string) (all []*driveapi.File, complete bool, err error) {
	for range pageRetries {
		all, complete = nil, true
		token := ""
		for {
			var page *driveapi.FileList
			page, err = s.page(ctx, query, token)
			if err != nil {
				break
			}
			all = append(all, page.Files...) // may be short, or empty, with more to come
			complete = complete && !page.IncompleteSearch
			if token = page.NextPageToken; token == "" {
				return all, complete, nil
			}
		}
		if token == "" || !judged(err, refused) {
			break
		}
	}
	return nil, false, finish("list the store in Google Drive", err)
}

func (s *Store) page(ctx context.Context, query, token string) (page *driveapi.FileList, err error) {
	err = s.do(ctx, "list the store in Google Drive", func() error {
		call := s.api.Files.List().Context(ctx).Q(query).PageSize(pageSize).Spaces("drive").
			SupportsAllDrives(true).IncludeItemsFromAllDrives(true).
			Fields("nextPageToken", "incompleteSearch", googleapi.Field("files("+fileFields+")"))
		if token != "" {
			call = call.PageToken(token)
		}
		page, err = call.Do()
		return err
	})
	return page, err
}

// quote prepares a string for a query.
func quote(text string) string {
	return strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text)
}

// judged reports whether err is an answer that comes to v.
func judged(err error, v verdict) bool {
	var answer *googleapi.Error
	return errors.As(err, &answer) && judgeAnswer(answer) == v
}
