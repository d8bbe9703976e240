package drive

import (
	"slices"
	"strings"
	"sync"
	"time"

	"outlast/checkpoint/durable"
)

// An index is what this process knows of Drive: which ids the folders and files
// of a path have. It does no input or output, and its methods may be called
// concurrently.
//
// It is never the last word on what is absent: who misses something asks Drive.
type index struct {
	mu      sync.Mutex
	folders map[string]*folder  // by path below My Drive; "" is My Drive
	files   map[string][]known  // by path, newest version first
	dead    map[string]struct{} // ids that are gone: late listings still show them
	myDrive string              // its real id; empty if not asked
}

// A folder is a path that people see as one; Drive may have several of its name.
type folder struct {
	ids    []string  // new files go into the first
	mine   bool      // this program made the first, or it carries the mark
	listed time.Time // when its content was known completely; zero if never
	users  int       // Puts at work in it or below
	doubt  bool      // Drive said that it is in the trash
	placed time.Time // when it was known to be where its path says; zero: not in this process
}

// A known object is one with the time when Drive last vouched for it.
type known struct {
	object
	seen time.Time
}

func newIndex() *index {
	return &index{
		folders: map[string]*folder{"": {ids: []string{"root"}}}, // an alias that Drive has
		files:   map[string][]known{},
		dead:    map[string]struct{}{},
	}
}

// at returns the folder of a path, which is made in the index if it is missing.
// The caller holds the lock.
func (x *index) at(path string) *folder {
	f := x.folders[path]
	if f == nil {
		f = &folder{}
		x.folders[path] = f
	}
	return f
}

// folderIDs returns the ids of a folder, none if it is not known.
func (x *index) folderIDs(path string) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	if f := x.folders[path]; f != nil {
		return slices.Clone(f.ids)
	}
	return nil
}

// addFolder adds an id to a folder. A folder just made is known to be empty.
func (x *index) addFolder(path, id string, mine, made bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, dead := x.dead[id]; dead {
		return
	}
	f := x.at(path)
	if slices.Contains(f.ids, id) {
		f.mine = f.mine || mine && f.ids[0] == id
		return
	}
	f.ids = append(f.ids, id)
	if len(f.ids) == 1 {
		f.mine = mine
	}
	if made && len(f.ids) == 1 {
		f.listed = time.Now()
	}
}

// loseFolders forgets the folder at path and everything below it: Drive says
// that it is gone.
func (x *index) loseFolders(path string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for p, f := range x.folders {
		if p == path || strings.HasPrefix(p, path+"/") {
			for _, id := range f.ids {
				x.dead[id] = struct{}{}
			}
			f.ids, f.listed, f.mine, f.doubt, f.placed = nil, time.Time{}, false, false, time.Time{}
		}
	}
	if parent := x.folders[parentOf(path)]; parent != nil {
		parent.listed = time.Time{}
	}
}

// suspect says that a folder is in the trash, or after a look that it is not.
func (x *index) suspect(path string, doubt bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if f := x.folders[path]; f != nil {
		f.doubt = doubt
	}
}

// suspected reports whether a folder was said to be in the trash.
func (x *index) suspected(path string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	f := x.folders[path]
	return f != nil && f.doubt
}

// listedAt returns when the content of a folder was known completely.
func (x *index) listedAt(path string) time.Time {
	x.mu.Lock()
	defer x.mu.Unlock()
	if f := x.folders[path]; f != nil {
		return f.listed
	}
	return time.Time{}
}

// setListed says that the content of a folder is known as of a time.
func (x *index) setListed(path string, at time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if f := x.folders[path]; f != nil && f.listed.Before(at) {
		f.listed = at
	}
}

// use keeps the folders down to path from being tidied away until the returned
// function is called.
func (x *index) use(path string) (release func()) {
	count := func(n int) {
		x.mu.Lock()
		defer x.mu.Unlock()
		for p := path; p != ""; p = parentOf(p) {
			x.at(p).users += n
		}
	}
	count(1)
	return func() { count(-1) }
}

// takeEmpty takes a folder out of the index if nothing is known in it, nobody
// uses it and it is ours, and returns its ids. From then on no listing brings
// them back.
func (x *index) takeEmpty(path string) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	f := x.folders[path]
	if f == nil || f.users > 0 || !f.mine {
		return nil
	}
	below := path + "/"
	for p := range x.files {
		if strings.HasPrefix(p, below) {
			return nil
		}
	}
	for p, sub := range x.folders {
		if strings.HasPrefix(p, below) && (len(sub.ids) > 0 || sub.users > 0) {
			return nil
		}
	}
	delete(x.folders, path)
	for _, id := range f.ids {
		x.dead[id] = struct{}{}
	}
	return f.ids
}

// revive takes an id back that was thought to be gone.
func (x *index) revive(id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.dead, id)
}

// subfolders returns the paths of the known folders directly in one.
func (x *index) subfolders(path string) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var subs []string
	for p, f := range x.folders {
		if p != "" && parentOf(p) == path && len(f.ids) > 0 {
			subs = append(subs, p)
		}
	}
	return slices.Sorted(slices.Values(subs))
}

// isDead reports whether an id is known to be gone.
func (x *index) isDead(id string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	_, dead := x.dead[id]
	return dead
}

// doubt marks all files as not vouched for: they come from a journal.
func (x *index) doubt() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, versions := range x.files {
		for i := range versions {
			versions[i].seen = time.Time{}
		}
	}
}

// bury says that an id is gone, or of no use.
func (x *index) bury(id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.dead[id] = struct{}{}
}

// setUnlisted says that what is known of a folder is out of date.
func (x *index) setUnlisted(path string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if f := x.folders[path]; f != nil {
		f.listed = time.Time{}
	}
}

// having returns the id of a file with a content, other than the one at path.
func (x *index) having(want durable.Digest, path string) (id string, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for p, versions := range x.files {
		if p != path && versions[0].holds(want) {
			return versions[0].ID, true
		}
	}
	return "", false
}
