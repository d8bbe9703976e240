package drivetest

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A description is Google's own of the API, as far as it is needed.
type description struct {
	Resources map[string]struct {
		Methods map[string]struct {
			Parameters map[string]any
		}
	}
	Schemas map[string]struct {
		Properties map[string]any
	}
	Parameters map[string]any
}

// google reads the description that comes with Google's client for Go.
func google(t *testing.T) (d description) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "google.golang.org/api").Output()
	require.NoError(t, err)
	data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "drive", "v3", "drive-api.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &d))
	return d
}

// Nothing is accepted here that Drive does not know.
func TestEveryFieldAndParameterExists(t *testing.T) {
	d := google(t)
	for name, known := range map[string]schema{
		"File": fileSchema(), "FileList": listSchema(), "About": aboutSchema(), "GeneratedIds": idsSchema(),
	} {
		for field := range known.fields {
			assert.Contains(t, d.Schemas[name].Properties, field, name)
		}
	}
	for op, method := range map[Op]string{
		OpIDs: "generateIds", OpList: "list", OpGet: "get", OpDownload: "get", OpMake: "create", OpCreate: "create",
		OpOpen: "create", OpUpdate: "update", OpCopy: "copy", OpDelete: "delete",
	} {
		for parameter := range parameters(op) {
			_, common := d.Parameters[parameter]
			_, own := d.Resources["files"].Methods[method].Parameters[parameter]
			assert.True(t, common || own, "%s takes %s", op, parameter)
		}
	}
}

// request makes one, and returns status, headers and body.
func request(t *testing.T, method, url, body string, headers map[string]string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	require.NoError(t, err)
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode, resp.Header, string(text)
}

// session opens an upload of so many bytes.
func openSession(t *testing.T, s *Server, size string) string {
	t.Helper()
	code, header, _ := request(t, http.MethodPost, s.URL+"/upload/drive/v3/files?uploadType=resumable", `{"name":"f"}`,
		map[string]string{"X-Upload-Content-Length": size})
	require.Equal(t, http.StatusOK, code)
	return header.Get("Location")
}

// The resumable protocol, step by step, as it is documented and was seen live.
func TestResumableProtocol(t *testing.T) {
	s := Start(t, Options{})
	const size = "524298" // two units and ten bytes
	at := openSession(t, s, size)
	put := func(contentRange, body string) (int, http.Header, string) {
		return request(t, http.MethodPut, at, body, map[string]string{"Content-Range": contentRange})
	}
	unitBytes := strings.Repeat("x", unit)

	code, header, _ := put("bytes */"+size, "")
	require.Equal(t, http.StatusPermanentRedirect, code)
	require.NotContains(t, header, "Range", "nothing is there")
	code, header, _ = put("bytes 0-262143/"+size, unitBytes)
	require.Equal(t, http.StatusPermanentRedirect, code)
	require.Equal(t, "bytes=0-262143", header.Get("Range"))
	require.NotContains(t, header, "Location", "or clients follow it")

	code, header, body := put("bytes 524288-524297/"+size, "0123456789")
	require.Equal(t, http.StatusServiceUnavailable, code, "from too far on")
	require.Equal(t, "UploadServer", header.Get("Server"))
	require.Equal(t, "Invalid request.  According to the Content-Range header, the upload offset is 524288 byte(s), "+
		"which exceeds already uploaded size of 262144 byte(s).", body)

	for name, refused := range map[string][2]string{
		"no multiple of 256 KiB":     {"bytes 262144-262153/" + size, "0123456789"},
		"another size":               {"bytes 262144-524287/600000", unitBytes},
		"no header that makes sense": {"bytes banana", unitBytes},
		"length and range differ":    {"bytes 262144-524287/" + size, "short"},
	} {
		code, _, _ := put(refused[0], refused[1])
		require.Equal(t, http.StatusBadRequest, code, name)
	}
	require.Len(t, s.Violations(), 4)
	s.Forgive()

	require.Empty(t, s.Files(), "nothing shows before the last byte")
	code, _, _ = put("bytes 262144-524287/"+size, unitBytes)
	require.Equal(t, http.StatusPermanentRedirect, code)
	code, _, body = put("bytes 524288-524297/"+size, "0123456789")
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, body, `"name":"f"`)
	require.Len(t, s.Files(), 1)
	code, _, _ = put("bytes */"+size, "")
	require.Equal(t, http.StatusOK, code, "it is complete")
}

func TestSessionsExpire(t *testing.T) {
	s := Start(t, Options{})
	at := openSession(t, s, "10")
	s.Advance(8 * 24 * time.Hour)
	code, _, _ := request(t, http.MethodPut, at, "0123456789", map[string]string{"Content-Range": "bytes 0-9/10"})
	require.Equal(t, http.StatusNotFound, code)
}

func TestQueries(t *testing.T) {
	mine := &file{name: "it's", mimeType: "text/plain", parent: "p", appProperties: map[string]string{"run": "r1"}}
	for q, want := range map[string]bool{
		`name = 'it\'s'`:                                              true,
		`name != 'it\'s'`:                                             false,
		`'p' in parents and trashed = false`:                          true,
		`('q' in parents or 'p' in parents)`:                          true,
		`'q' in parents`:                                              false,
		`trashed=true`:                                                false,
		`mimeType = 'text/plain' and trashed != true`:                 true,
		`appProperties has { key='run' and value='r1' }`:              true,
		`appProperties has { key='run' and value='r2' }`:              false,
		`properties has { key='run' and value='r1' }`:                 false,
		`('p' in parents or 'q' in parents) and mimeType = 'no/such'`: false,
	} {
		parsed, err := parseQuery(q)
		require.Nil(t, err, q)
		require.Equal(t, want, parsed.matches(mine, false), q)
	}
	for _, q := range []string{
		`name`, `name = `, `name = it`, `name ~ 'x'`, `size > 5`, `'p' in owners`, `(name = 'x'`, `name = 'x' and`,
		`name = 'x' or name = 'y'`, `trashed = maybe`, `appProperties has { key='run' }`, `name = 'x' name = 'y'`,
	} {
		_, err := parseQuery(q)
		require.NotNil(t, err, q)
	}
}

func TestFields(t *testing.T) {
	file := map[string]any{"id": "1", "name": "n", "size": "5"}
	list := map[string]any{"kind": "k", "files": []map[string]any{file}, "nextPageToken": "t"}
	for fields, want := range map[string]map[string]any{
		"*":                         list,
		"kind":                      {"kind": "k"},
		"files(id),nextPageToken":   {"nextPageToken": "t", "files": []map[string]any{{"id": "1"}}},
		"nextPageToken, files/size": {"nextPageToken": "t", "files": []map[string]any{{"size": "5"}}},
		"files(id,name)":            {"files": []map[string]any{{"id": "1", "name": "n"}}},
		"files":                     {"files": []map[string]any{file}},
	} {
		got, err := mask(list, fields, listSchema())
		require.Nil(t, err, fields)
		require.Equal(t, want, got, fields)
	}
	for _, fields := range []string{"", "banana", "files(banana)", "files(id", "kind(id)", "files(id))", "etag"} {
		_, err := mask(list, fields, listSchema())
		require.NotNil(t, err, fields)
		require.Contains(t, err.message, "Invalid field selection")
	}
}

// A page may be empty with more to come, and the order is that of no field.
func TestPagesAreAwkward(t *testing.T) {
	s := Start(t, Options{PageSize: 1, Seed: 3})
	for range 20 {
		s.Plant(RootID, "file", []byte("x"), nil)
	}
	seen, empty, token := 0, 0, ""
	for {
		_, _, body := request(t, http.MethodGet, s.URL+"/drive/v3/files?pageToken="+token, "", nil)
		var page struct {
			NextPageToken string
			Files         []any
		}
		require.NoError(t, json.Unmarshal([]byte(body), &page))
		seen += len(page.Files)
		if len(page.Files) == 0 && page.NextPageToken != "" {
			empty++
		}
		if token = page.NextPageToken; token == "" {
			break
		}
	}
	require.Equal(t, 20, seen)
	require.Positive(t, empty)
}
