package drivetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// maxMetadata is how large the JSON of a request may be.
const maxMetadata = 1 << 20

// parameters are the ones that an operation takes, beside those that all take.
func parameters(op Op) map[string]bool {
	common := "alt fields prettyPrint key quotaUser "
	switch op {
	case OpIDs:
		common += "count space type"
	case OpList:
		common += "q pageSize pageToken orderBy spaces corpora driveId supportsAllDrives includeItemsFromAllDrives"
	case OpGet, OpDownload:
		common += "supportsAllDrives acknowledgeAbuse"
	case OpMake, OpCopy, OpUpdate:
		common += "supportsAllDrives keepRevisionForever"
	case OpCreate, OpOpen:
		common += "supportsAllDrives keepRevisionForever uploadType"
	case OpSend, OpAsk: // the address is Drive's own, and taken as it is
		common = "uploadType upload_id fields supportsAllDrives alt"
	case OpDelete:
		common += "supportsAllDrives"
	case OpAbout, OpToken:
	}
	return set(common)
}

// handle looks at a request and does what it asks for.
func (c *call) handle() (*answer, *apiError) {
	s := c.server
	switch c.op {
	case OpToken:
		return c.token()
	case OpSend, OpAsk:
		if err := c.check(); err != nil {
			return nil, err
		}
		return c.upload()
	}
	var meta *metadata
	var data []byte
	var err *apiError
	switch c.op { // bodies are read outside the lock: they may come slowly
	case OpMake, OpCopy, OpUpdate, OpOpen:
		meta, err = c.readMetadata(c.r.Body)
	case OpCreate:
		meta, data, err = c.readMultipart()
	}
	if err == nil {
		err = c.check()
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch c.op {
	case OpAbout:
		return c.about()
	case OpIDs:
		return c.generateIDs()
	case OpList:
		return c.list()
	case OpGet:
		return c.get()
	case OpDownload:
		return c.download()
	case OpMake:
		return c.make(meta, nil)
	case OpCreate:
		return c.create(meta, data)
	case OpOpen:
		return c.open(meta)
	case OpUpdate:
		return c.update(meta)
	case OpCopy:
		return c.copy(meta)
	case OpDelete:
		return c.delete()
	}
	return nil, s.violate(c.r, &apiError{code: http.StatusNotFound, raw: "Not Found", rawType: "text/html; charset=UTF-8"})
}

// check refuses parameters that are unknown, and tokens that are not valid.
func (c *call) check() *apiError {
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	known := parameters(c.op)
	for name, values := range c.r.URL.Query() {
		if !known[name] || len(values) != 1 && name != "fields" {
			return s.violate(c.r, errParameter(name))
		}
	}
	alt := c.r.URL.Query().Get("alt")
	if alt != "" && alt != "json" && (alt != "media" || c.op != OpDownload) {
		return s.violate(c.r, errParameter("alt"))
	}
	return c.authorize()
}

// metadata is what a client may say of a file.
type metadata struct {
	ID            string            `json:"id"`
	Name          *string           `json:"name"`
	MimeType      string            `json:"mimeType"`
	Description   string            `json:"description"`
	Parents       []string          `json:"parents"`
	AppProperties map[string]string `json:"appProperties"`
	Properties    map[string]string `json:"properties"`
	Trashed       *bool             `json:"trashed"`
}

func (c *call) readMetadata(r io.Reader) (*metadata, *apiError) {
	data, err := io.ReadAll(io.LimitReader(r, maxMetadata))
	if err != nil {
		panic(http.ErrAbortHandler) // the client has gone
	}
	var m metadata
	if len(bytes.TrimSpace(data)) == 0 {
		return &m, nil
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return nil, c.violate(errBad("Invalid JSON payload received. " + err.Error()))
	}
	return &m, c.checkProperties(&m)
}

func (c *call) violate(e *apiError) *apiError {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	return c.server.violate(c.r, e)
}

// checkProperties applies the documented limits.
func (c *call) checkProperties(m *metadata) *apiError {
	for _, properties := range []map[string]string{m.AppProperties, m.Properties} {
		if len(properties) > 30 {
			return c.violate(errBad("Too many properties"))
		}
		for key, value := range properties {
			if key == "" || len(key)+len(value) > 124 {
				return c.violate(errBad("Property " + key + " is too long"))
			}
		}
	}
	return nil
}

// reply answers with a file, cut to the fields asked for.
func (c *call) reply(f *file) (*answer, *apiError) {
	fields := c.r.URL.Query().Get("fields")
	if fields == "" {
		fields = "kind,id,name,mimeType"
	}
	object := c.server.resource(f)
	masked, err := mask(object, fields, fileSchema())
	if err != nil {
		return nil, c.server.violate(c.r, err)
	}
	return &answer{code: http.StatusOK, body: masked}, nil
}

func (c *call) about() (*answer, *apiError) {
	s := c.server
	fields := c.r.URL.Query().Get("fields")
	if fields == "" { // Drive insists
		return nil, s.violate(c.r, &apiError{
			code: http.StatusBadRequest, domain: "global", reason: "required",
			message: "The 'fields' parameter is required for this method.", location: "fields", locationTyp: "parameter",
		})
	}
	usage, trash := s.usage()
	quota := map[string]any{
		"usage": strconv.FormatInt(usage, 10), "usageInDrive": strconv.FormatInt(usage, 10),
		"usageInDriveTrash": strconv.FormatInt(trash, 10),
	}
	if s.opts.Limit > 0 {
		quota["limit"] = strconv.FormatInt(s.opts.Limit, 10)
	}
	object := map[string]any{
		"kind": "drive#about", "storageQuota": quota, "maxUploadSize": "5497558138880",
		"user": map[string]any{"kind": "drive#user", "displayName": "Ann", "emailAddress": s.opts.Account, "me": true, "permissionId": "1"},
	}
	masked, err := mask(object, fields, aboutSchema())
	if err != nil {
		return nil, s.violate(c.r, err)
	}
	return &answer{code: http.StatusOK, body: masked}, nil
}

func (c *call) generateIDs() (*answer, *apiError) {
	s := c.server
	query := c.r.URL.Query()
	count := 10
	if text := query.Get("count"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 1000 {
			return nil, s.violate(c.r, errValue("count"))
		}
		count = n
	}
	if space := query.Get("space"); space != "" && space != "drive" {
		return nil, s.violate(c.r, errValue("space"))
	}
	if kind := query.Get("type"); kind != "" && kind != "files" {
		return nil, s.violate(c.r, errValue("type"))
	}
	ids := make([]string, count)
	for i := range ids {
		ids[i] = s.newID()
		s.reserved[ids[i]] = true
	}
	object := map[string]any{"kind": "drive#generatedIds", "space": "drive", "ids": ids}
	fields := query.Get("fields")
	if fields == "" {
		fields = "*"
	}
	masked, err := mask(object, fields, idsSchema())
	if err != nil {
		return nil, s.violate(c.r, err)
	}
	return &answer{code: http.StatusOK, body: masked}, nil
}

func (c *call) get() (*answer, *apiError) {
	f := c.server.find(c.id)
	if f == nil {
		return nil, errNotFound(c.id)
	}
	return c.reply(f)
}

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
		if !s.reserved[m.ID] {
			return s.violate(c.r, errID())
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

func (c *call) list() (*answer, *apiError) {
	s := c.server
	query := c.r.URL.Query()
	q, err := parseQuery(query.Get("q"))
	if err != nil {
		return nil, s.violate(c.r, err)
	}
	for _, id := range q.parents() {
		if s.find(id) == nil {
			return nil, errNotFound(".") // Drive does not say which
		}
	}
	size := 100
	if text := query.Get("pageSize"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 1000 {
			return nil, s.violate(c.r, errValue("pageSize"))
		}
		size = n
	}
	fields := query.Get("fields")
	if fields != "" && (!strings.Contains(fields, "nextPageToken") || !strings.Contains(fields, "incompleteSearch")) {
		return nil, s.violate(c.r, errBad("a client that does not ask for nextPageToken and incompleteSearch misses files"))
	}
	left, apiErr := c.page(q, query.Get("pageToken"))
	if apiErr != nil {
		return nil, apiErr
	}
	return c.listPage(left, size, fields)
}

// page returns what is left of a listing. The order is that of no field.
func (c *call) page(q query, token string) ([]*file, *apiError) {
	s := c.server
	if token != "" {
		left, ok := s.pages[token]
		if !ok || c.fault.Kind == BadPage {
			return nil, errValue("pageToken")
		}
		return left, nil
	}
	lag := s.opts.ListLag
	if q.lags() {
		lag = max(lag, s.opts.Lag)
	}
	asOf := s.now().Add(-lag)
	var found []*file
	for _, id := range slices.Sorted(maps.Keys(s.files)) {
		f := s.files[id]
		if id == RootID || f.created.After(asOf) || !f.deleted.IsZero() && !f.deleted.After(asOf) {
			continue
		}
		if q.matches(f, s.inTrash(f, asOf)) {
			found = append(found, f)
		}
	}
	s.random.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] })
	return found, nil
}

// listPage answers with some of what is left. A page may be short, or empty,
// with more to come.
func (c *call) listPage(left []*file, size int, fields string) (*answer, *apiError) {
	s := c.server
	if s.opts.PageSize > 0 {
		size = min(size, s.random.IntN(s.opts.PageSize+1))
	}
	n := min(size, len(left))
	files := []map[string]any{}
	for _, f := range left[:n] {
		files = append(files, s.resource(f))
	}
	object := map[string]any{"kind": "drive#fileList", "incompleteSearch": c.fault.Kind == Incomplete, "files": files}
	if n < len(left) {
		s.serial++
		token := fmt.Sprintf("~!!~page%d", s.serial)
		s.pages[token] = left[n:]
		object["nextPageToken"] = token
	}
	if fields == "" {
		fields = "kind,nextPageToken,incompleteSearch,files(kind,id,name,mimeType)"
	}
	masked, err := mask(object, fields, listSchema())
	if err != nil {
		return nil, s.violate(c.r, err)
	}
	return &answer{code: http.StatusOK, body: masked}, nil
}

// merged is what an update makes of properties: those not named stay.
func merged(old, changes map[string]string) map[string]string {
	out := map[string]string{}
	maps.Copy(out, old)
	maps.Copy(out, changes)
	return out
}
