//go:build drive

package drive

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	driveapi "google.golang.org/api/drive/v3"

	"outlast/checkpoint"
	"outlast/checkpoint/checkpointtest"
	"outlast/checkpoint/durable"
)

// These tests need a person with a Google account, and settle what only the real
// Drive can. Sign in, then:
//
//	go test -tags drive -run Live -v ./checkpoint/drive
//
// They make the folder "Outlast live test", and leave it empty in the trash.

// live opens a store in the account of whoever runs the test.
func live(t *testing.T, folder string) *Store {
	t.Helper()
	home, err := os.UserHomeDir()
	require.NoError(t, err)
	cfg := FromEnvironment(os.LookupEnv, home)
	cfg.Folder = "Outlast live test/" + folder
	s, err := New(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func TestLiveDriveIsAStore(t *testing.T) {
	n := 0
	checkpointtest.TestStore(t, func(t *testing.T) checkpoint.Store {
		n++
		return live(t, fmt.Sprintf("%d-%d", time.Now().Unix(), n))
	})
}

// TestLiveAnswers prints what the documentation leaves open, to be compared
// with what drivetest does where it says "unverified".
func TestLiveAnswers(t *testing.T) {
	s := live(t, fmt.Sprint(time.Now().Unix()))
	ask := func(what, method, url string, header map[string]string, body []byte) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
		require.NoError(t, err)
		for name, value := range header {
			req.Header.Set(name, value)
		}
		resp, err := s.client.Do(req)
		require.NoError(t, err)
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		t.Logf("%s: %s, Range %q\n%s", what, resp.Status, resp.Header.Get("Range"), text)
		return resp
	}
	files := s.base.String() + "/drive/v3/files"
	asJSON := map[string]string{"Content-Type": "application/json"}

	content := bytes.Repeat([]byte("live"), 3*chunkUnit/4)
	digest := durable.Digest{Size: int64(len(content)), SHA256: hexSum(content)}
	_, err := s.Put(t.Context(), "a", bytes.NewReader(content), digest)
	require.NoError(t, err)
	o := s.index.versions(s.cfg.Folder + "/a")[0]
	ask("create with a used id", http.MethodPost, files, asJSON, []byte(`{"id":"`+o.ID+`"}`))
	ask("create with an id that was not generated", http.MethodPost, files, asJSON, []byte(`{"id":"outlast"}`))
	id, err := s.ids.take(t.Context())
	require.NoError(t, err)
	ask("create a folder with a generated id", http.MethodPost, files, asJSON, []byte(`{"id":"`+id+`","mimeType":"`+folderType+`"}`))
	require.NoError(t, s.api.Files.Delete(id).Context(t.Context()).Do())
	ask("create with the id of what was deleted", http.MethodPost, files, asJSON, []byte(`{"id":"`+id+`"}`))

	last, err := s.ids.take(t.Context())
	require.NoError(t, err)
	resp := ask("open a session", http.MethodPost, s.uploadURL("resumable"), asJSON, []byte(`{"id":"`+last+`","name":"Outlast live test"}`))
	session := resp.Header.Get("Location")
	part := func(from, to int) map[string]string {
		return map[string]string{"Content-Range": fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(content))}
	}
	ask("first part", http.MethodPut, session, part(0, chunkUnit), content[:chunkUnit])
	ask("the first part again, with the second", http.MethodPut, session, part(0, 2*chunkUnit), content[:2*chunkUnit])
	ask("status", http.MethodPut, session, map[string]string{"Content-Range": fmt.Sprintf("bytes */%d", len(content))}, nil)
	ask("from too far on", http.MethodPut, session, part(len(content)-10, len(content)), content[len(content)-10:])
	ask("the rest", http.MethodPut, session, part(2*chunkUnit, len(content)), content[2*chunkUnit:])
	ask("the rest again", http.MethodPut, session, part(2*chunkUnit, len(content)), content[2*chunkUnit:])
	ask("status when it is done", http.MethodPut, session, map[string]string{"Content-Range": fmt.Sprintf("bytes */%d", len(content))}, nil)

	require.NoError(t, s.api.Files.Delete(last).Context(t.Context()).Do())

	parent := s.index.folderIDs(s.cfg.Folder)[0]
	for _, query := range []string{
		"name = 'a' and '" + parent + "' in parents", "'" + parent + "' in parents",
		"appProperties has { key='outlast' and value='1' } and '" + parent + "' in parents", "'no-such-folder' in parents",
	} {
		list, err := s.api.Files.List().Context(t.Context()).Q(query + " and trashed = false").Do()
		t.Logf("just made, by %s: %d, %v", strings.Fields(query)[0], count(list), err)
	}
	require.NoError(t, s.Delete(t.Context(), "a"))
}

func hexSum(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

func count(list *driveapi.FileList) int {
	if list == nil {
		return 0
	}
	return len(list.Files)
}
