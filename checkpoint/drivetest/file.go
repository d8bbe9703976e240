package drivetest

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

const folderType = "application/vnd.google-apps.folder"

// A file is a file or a folder.
type file struct {
	id, name, mimeType, parent string
	appProperties, properties  map[string]string
	description                string
	created, modified          time.Time
	trashed                    time.Time // explicitly; zero: it is not
	deleted                    time.Time // zero: it is there
	version                    int64
	content                    *content // nil for a folder
	foreign                    bool     // made by another program: its appProperties are not shown
}

// find returns what has an id. The caller holds the lock.
func (s *Server) find(id string) *file {
	if id == "root" {
		id = RootID
	}
	f := s.files[id]
	if f == nil || !f.deleted.IsZero() {
		return nil
	}
	return f
}

// inTrash reports whether a file, or a folder above it, was in the trash at a
// time.
func (s *Server) inTrash(f *file, at time.Time) bool {
	for ; f != nil; f = s.files[f.parent] {
		if !f.trashed.IsZero() && !f.trashed.After(at) {
			return true
		}
	}
	return false
}

// usage is how many bytes are taken. The caller holds the lock.
func (s *Server) usage() (all, trash int64) {
	for _, f := range s.files {
		if f.content == nil || !f.deleted.IsZero() {
			continue
		}
		all += f.content.size
		if s.inTrash(f, s.now()) {
			trash += f.content.size
		}
	}
	return all, trash
}

// resource is a file as Drive tells it: integers of 64 bits as strings.
func (s *Server) resource(f *file) map[string]any {
	r := map[string]any{
		"kind": "drive#file", "id": f.id, "name": f.name, "mimeType": f.mimeType,
		"createdTime":  f.created.UTC().Format("2006-01-02T15:04:05.000Z"),
		"modifiedTime": f.modified.UTC().Format("2006-01-02T15:04:05.000Z"),
		"trashed":      s.inTrash(f, s.now()), "explicitlyTrashed": !f.trashed.IsZero(),
		"version": strconv.FormatInt(f.version, 10), "ownedByMe": true, "spaces": []string{"drive"},
	}
	if f.parent != "" {
		r["parents"] = []string{f.parent}
	}
	if len(f.appProperties) > 0 && !f.foreign {
		r["appProperties"] = f.appProperties
	}
	if len(f.properties) > 0 {
		r["properties"] = f.properties
	}
	if f.description != "" {
		r["description"] = f.description
	}
	if f.content != nil {
		size := strconv.FormatInt(f.content.size, 10)
		r["size"], r["quotaBytesUsed"] = size, size
		r["md5Checksum"] = hexOf(f.content.md5)
		if !s.noSum {
			r["sha256Checksum"] = hexOf(f.content.sha)
		}
		r["headRevisionId"] = "0B" + f.id[:min(len(f.id), 20)]
		r["originalFilename"] = f.name
	}
	return r
}

// A File is what a test sees of one, past all lag and faults.
type File struct {
	ID, Name, Parent string
	Path             string // below My Drive
	Folder           bool
	Trashed          bool
	Size             int64
	SHA256           string
	AppProperties    map[string]string
}

// Files returns everything that is not deleted, but for My Drive itself, by path.
func (s *Server) Files() []File {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []File
	for _, f := range s.files {
		if f.id == RootID || !f.deleted.IsZero() {
			continue
		}
		v := File{
			ID: f.id, Name: f.name, Parent: f.parent, Path: s.path(f), Folder: f.content == nil,
			Trashed: s.inTrash(f, s.now()), AppProperties: f.appProperties,
		}
		if f.content != nil {
			v.Size, v.SHA256 = f.content.size, hexOf(f.content.sha)
		}
		all = append(all, v)
	}
	slices.SortFunc(all, func(a, b File) int { return strings.Compare(a.Path+a.ID, b.Path+b.ID) })
	return all
}

func (s *Server) path(f *file) string {
	p := f.name
	for f = s.files[f.parent]; f != nil && f.id != RootID; f = s.files[f.parent] {
		p = f.name + "/" + p
	}
	return p
}

// Content returns what is really stored under an id.
func (s *Server) Content(id string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.files[id].content.bytes()
}

// Rot flips one bit of a file, and leaves its checksums as they are.
func (s *Server) Rot(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[id].content.flip(s.random.Int64())
}

// Truncate takes bytes off the end of a file; it still says that it is whole.
func (s *Server) Truncate(id string, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.files[id].content
	if c.disk == nil {
		c.memory = c.memory[:size]
	} else if err := c.disk.Truncate(size); err != nil {
		panic(err) // the test's disk is broken
	}
}

// Trash moves something to the trash, as a person does.
func (s *Server) Trash(id string, into bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[id].trashed = time.Time{}
	if into {
		s.files[id].trashed = s.now()
	}
}

// Move moves something into another folder, or gives it another name, as a
// person does.
func (s *Server) Move(id, parent, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[id].parent, s.files[id].name, s.files[id].modified = parent, name, s.now()
}

// Remove deletes something for good, with all that is in it.
func (s *Server) Remove(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(s.files[id])
}

func (s *Server) remove(f *file) {
	f.deleted = s.now()
	for _, child := range s.files {
		if child.parent == f.id && child.deleted.IsZero() {
			s.remove(child)
		}
	}
}

// Plant adds a file that another program made, and returns its id. Its marks,
// if any, are visible to everybody.
func (s *Server) Plant(parent, name string, data []byte, marks map[string]string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := newContent()
	if err := c.add(s, data); err != nil {
		panic(err) // the test's disk is full
	}
	f := &file{
		id: s.newID(), name: name, mimeType: "application/octet-stream", parent: parent, properties: marks,
		created: s.now(), modified: s.now(), version: 1, content: c, foreign: true,
	}
	s.files[f.id] = f
	return f.id
}

// PlantFolder adds a folder that another program made, and returns its id.
func (s *Server) PlantFolder(parent, name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &file{id: s.newID(), name: name, mimeType: folderType, parent: parent, created: s.now(), modified: s.now(), version: 1, foreign: true}
	s.files[f.id] = f
	return f.id
}
