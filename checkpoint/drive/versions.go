package drive

import (
	"slices"
	"strings"
	"time"
)

// versions returns what is known under a path, newest first.
func (x *index) versions(path string) []object {
	x.mu.Lock()
	defer x.mu.Unlock()
	objects := make([]object, 0, len(x.files[path]))
	for _, k := range x.files[path] {
		objects = append(objects, k.object)
	}
	return objects
}

// add adds a version, or renews what is known of it. One that is gone stays
// gone.
func (x *index) add(path string, o object) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, dead := x.dead[o.ID]; dead {
		return
	}
	kept := slices.DeleteFunc(x.files[path], func(k known) bool { return k.ID == o.ID })
	kept = append(kept, known{o, time.Now()})
	objects := map[string]known{}
	order := make([]object, 0, len(kept))
	for _, k := range kept {
		objects[k.ID] = k
		order = append(order, k.object)
	}
	newestFirst(order)
	for i, o := range order {
		kept[i] = objects[o.ID]
	}
	x.files[path] = kept
}

// remove forgets a version for good.
func (x *index) remove(path, id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.dead[id] = struct{}{}
	left := slices.DeleteFunc(x.files[path], func(k known) bool { return k.ID == id })
	if len(left) == 0 {
		delete(x.files, path)
		return
	}
	x.files[path] = left
}

// below returns the newest version of every path that begins with prefix.
func (x *index) below(prefix string) map[string]object {
	x.mu.Lock()
	defer x.mu.Unlock()
	found := map[string]object{}
	for path, versions := range x.files {
		if strings.HasPrefix(path, prefix) && versions[0].sound() {
			found[path] = versions[0].object
		}
	}
	return found
}

// unseen returns the versions directly in a folder that are not among ids and
// that nobody has vouched for since a time, by path.
func (x *index) unseen(folder string, ids map[string]bool, since time.Time) map[string][]object {
	x.mu.Lock()
	defer x.mu.Unlock()
	missing := map[string][]object{}
	for path, versions := range x.files {
		if parentOf(path) != folder {
			continue
		}
		for _, k := range versions {
			if !ids[k.ID] && k.seen.Before(since) {
				missing[path] = append(missing[path], k.object)
			}
		}
	}
	return missing
}
