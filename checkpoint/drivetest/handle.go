package drivetest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
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
	case OpAbout, OpToken, OpConsent:
	}
	return set(common)
}

// handle looks at a request and does what it asks for.
func (c *call) handle() (*answer, *apiError) {
	s := c.server
	switch c.op {
	case OpToken:
		return c.token()
	case OpConsent:
		return c.authorizePage()
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
