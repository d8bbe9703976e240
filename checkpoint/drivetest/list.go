package drivetest

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

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
