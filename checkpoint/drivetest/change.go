package drivetest

import (
	"maps"
	"net/http"
)

// reserve checks that a new file may have an id and a place, and fills in what
// the client has left out. The caller holds the lock.
func (c *call) reserve(m *metadata) *apiError {
	s := c.server
	if c.fault.Kind == StaleID {
		return errID()
	}
	if m.ID != "" {
		if _, used := s.files[m.ID]; used { // also one that was deleted
			return errTaken()
		}
		usable, given := s.reserved[m.ID]
		if !given {
			return s.violate(c.r, errID())
		}
		if !usable {
			return errID()
		}
	}
	if len(m.Parents) > 1 {
		return s.violate(c.r, errBad("A file can only have one parent."))
	}
	if len(m.Parents) == 0 {
		m.Parents = []string{RootID}
	}
	parent := s.find(m.Parents[0])
	if parent == nil {
		return errNotFound(m.Parents[0])
	}
	if parent.mimeType != folderType {
		return s.violate(c.r, errBad("The specified parent is not a folder."))
	}
	m.Parents[0] = parent.id
	return nil
}

// make makes a file. The caller holds the lock.
func (c *call) make(m *metadata, data *content) (*answer, *apiError) {
	f, err := c.add(m, data)
	if err != nil {
		return nil, err
	}
	return c.reply(f)
}

func (c *call) add(m *metadata, data *content) (*file, *apiError) {
	s := c.server
	if err := c.reserve(m); err != nil {
		return nil, err
	}
	if m.ID == "" {
		m.ID = s.newID()
	}
	delete(s.reserved, m.ID)
	f := &file{
		id: m.ID, name: "Untitled", mimeType: m.MimeType, parent: m.Parents[0], description: m.Description,
		appProperties: maps.Clone(m.AppProperties), properties: maps.Clone(m.Properties),
		created: s.now(), modified: s.now(), version: 1, content: data,
	}
	if m.Name != nil {
		f.name = *m.Name
	}
	if f.mimeType == "" {
		f.mimeType = "application/octet-stream"
	}
	if f.content == nil && f.mimeType != folderType {
		f.content = newContent()
	}
	s.files[f.id] = f
	return f, nil
}

func (c *call) update(m *metadata) (*answer, *apiError) {
	s := c.server
	f := s.find(c.id)
	if f == nil {
		return nil, errNotFound(c.id)
	}
	if m.ID != "" || m.Parents != nil || m.MimeType != "" {
		return nil, s.violate(c.r, &apiError{code: http.StatusForbidden, domain: "global", reason: "fieldNotWritable", message: "The resource body includes fields which are not directly writable."})
	}
	if m.Name != nil {
		f.name = *m.Name
	}
	if m.Trashed != nil {
		f.trashed = f.deleted
		if *m.Trashed {
			f.trashed = s.now()
		}
	}
	f.appProperties, f.properties = merged(f.appProperties, m.AppProperties), merged(f.properties, m.Properties)
	f.version++
	f.modified = s.now()
	return c.reply(f)
}

func (c *call) copy(m *metadata) (*answer, *apiError) {
	s := c.server
	from := s.find(c.id)
	if from == nil {
		return nil, errNotFound(c.id)
	}
	if from.content == nil {
		return nil, s.violate(c.r, &apiError{code: http.StatusForbidden, domain: "global", reason: "cannotCopyFile", message: "This file cannot be copied by the user."})
	}
	if err := c.quota(from.content.size); err != nil {
		return nil, err
	}
	if m.MimeType == "" {
		m.MimeType = from.mimeType
	}
	if m.Parents == nil {
		m.Parents = []string{from.parent}
	}
	return c.make(m, from.content)
}

func (c *call) delete() (*answer, *apiError) {
	s := c.server
	f := s.find(c.id)
	if f == nil || f.id == RootID {
		return nil, errNotFound(c.id)
	}
	s.remove(f)
	return &answer{code: http.StatusNoContent}, nil
}

// quota refuses what does not fit. The caller holds the lock.
func (c *call) quota(size int64) *apiError {
	usage, _ := c.server.usage()
	if limit := c.server.opts.Limit; limit > 0 && usage+size > limit {
		return errQuota()
	}
	return nil
}

// merged is what an update makes of properties: those not named stay.
func merged(old, changes map[string]string) map[string]string {
	out := map[string]string{}
	maps.Copy(out, old)
	maps.Copy(out, changes)
	return out
}
