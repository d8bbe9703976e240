// Package drivetest is a Google Drive for tests: version 3 of its API on a
// loopback address, as far as a store of files needs it.
//
// It is stricter than Drive, because a generous fake hides faults: what it does
// not know is refused, listings lag, come in no order and on short pages,
// uploads keep less than they were sent, and any request can be made to fail in
// the ways that Drive is known to. What no public record of the real service
// confirms is marked "unverified" where it is done. Package drive is tested
// against it, and tests/test_fake_drive.py holds it against Google's own client
// for Python.
package drivetest

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// RootID is the id of My Drive itself. Clients may also call it "root".
const RootID = "0AFakeDriveRootFolder"

// Options of a Server. The zero value is a Drive without faults, lag or limit.
type Options struct {
	Account     string        // e-mail address; empty means ann@example.com
	Limit       int64         // of the storage, in bytes; 0 means none
	Lag         time.Duration // until a query for names or properties sees a change
	ListLag     time.Duration // until a query for parents alone sees one
	PageSize    int           // most files on a page; 0 means as many as were asked for
	Auth        bool          // a token of the token server is needed; without, none may be sent
	TokenLife   time.Duration // of tokens from the token server, by the clock of Advance; 0 means 1 h
	SessionLife time.Duration // of an unfinished upload; 0 means a week
	Percent     int           // of requests that fail in a random way
	Seed        uint64        // of everything random
	Dir         string        // for the content of large files
	Discard     bool          // large content is hashed and not kept: for benchmarks
}

// A Server is one Drive. It is safe for concurrent use.
type Server struct {
	URL  string // set by Start and Listen
	opts Options

	mu         sync.Mutex
	random     *rand.Rand
	offset     time.Duration // of the clock
	files      map[string]*file
	reserved   map[string]bool // ids given out and not used yet; false: too late for that
	sessions   map[string]*session
	pages      map[string][]*file
	tokens     map[string]time.Time // valid until
	refused    map[string]bool      // tokens that were withdrawn
	clients    map[string]Client    // by id; empty: any is taken
	consent    Consent
	codes      map[string]*grant // a person's yes
	grants     map[string]*grant // by every refresh token, the used ones included
	refreshes  []string
	rotate     bool
	faults     []*Fault
	counts     map[Op]int
	injected   map[Kind]int
	violations []string
	serial     int
	noSum      bool

	stalled   chan struct{} // closed by the first request that comes to a stop
	stallOnce sync.Once
}

// New returns a Drive that is empty.
func New(o Options) *Server {
	if o.Account == "" {
		o.Account = "ann@example.com"
	}
	if o.SessionLife == 0 {
		o.SessionLife = 7 * 24 * time.Hour
	}
	if o.TokenLife == 0 {
		o.TokenLife = time.Hour
	}
	s := &Server{
		opts: o, random: rand.New(rand.NewPCG(o.Seed, 1)),
		files: map[string]*file{}, reserved: map[string]bool{}, sessions: map[string]*session{},
		pages: map[string][]*file{}, tokens: map[string]time.Time{}, refused: map[string]bool{},
		clients: map[string]Client{}, codes: map[string]*grant{}, grants: map[string]*grant{},
		counts: map[Op]int{}, injected: map[Kind]int{}, stalled: make(chan struct{}),
	}
	s.files[RootID] = &file{id: RootID, name: "My Drive", mimeType: folderType}
	return s
}

// Start returns a Drive that serves until the test ends. What a client did that
// Drive would refuse fails the test.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	s := New(o)
	server := httptest.NewServer(s)
	s.URL = server.URL
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		require.Empty(t, s.Violations(), "requests that Drive would refuse")
	})
	return s
}

// Advance puts the clock forward.
func (s *Server) Advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offset += d
}

// now is the Drive's clock. The caller holds the lock.
func (s *Server) now() time.Time { return time.Now().Add(s.offset) }

// Count returns how many requests there were for one operation, or for all if
// op is empty; requests for tokens are in neither.
func (s *Server) Count(op Op) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if op != "" {
		return s.counts[op]
	}
	sum := 0
	for op, n := range s.counts {
		if op != OpToken && op != OpConsent {
			sum += n
		}
	}
	return sum
}

// ResetCounts begins to count anew.
func (s *Server) ResetCounts() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.counts)
}

// Violations returns what a client did that Drive would refuse.
func (s *Server) Violations() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.violations)
}

// Forgive forgets violations; for tests that make some.
func (s *Server) Forgive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.violations = nil
}

// violate refuses a request, and remembers it. The caller holds the lock.
func (s *Server) violate(r *http.Request, e *apiError) *apiError {
	s.violations = append(s.violations, fmt.Sprintf("%s %s: %d %s", r.Method, r.URL, e.code, e.message))
	return e
}

// SetLimit changes the size of the storage; 0 means no limit.
func (s *Server) SetLimit(limit int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opts.Limit = limit
}

// SetPercent changes how many requests fail at random.
func (s *Server) SetPercent(percent int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opts.Percent = percent
}

// HideChecksums leaves SHA-256 out of what files say of themselves.
func (s *Server) HideChecksums(hide bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noSum = hide
}

// ExpireIDs makes all ids that were given out and not used yet of no use.
func (s *Server) ExpireIDs() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.reserved {
		s.reserved[id] = false
	}
}

// newID makes something that looks like one of Drive's ids.
func (s *Server) newID() string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	id := []byte("1")
	for range 32 {
		id = append(id, letters[s.random.IntN(len(letters))])
	}
	return string(id)
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	op, id := route(r)
	h := w.Header()
	h.Set("Cache-Control", "no-cache, no-store, max-age=0, must-revalidate")
	h.Set("Vary", "Origin, X-Origin")
	h.Set("Server", "ESF")
	s.mu.Lock()
	s.counts[op]++
	fault := s.nextFault(op, r)
	s.mu.Unlock()
	c := &call{server: s, op: op, id: id, w: w, r: r, fault: fault}
	if c.before() {
		return
	}
	answer, apiErr := c.handle()
	if apiErr != nil {
		apiErr.write(w)
		return
	}
	c.after(answer)
}

// route says what a request is for.
func route(r *http.Request) (op Op, id string) {
	p := strings.TrimSuffix(r.URL.Path, "/")
	switch {
	case p == "/auth":
		return OpConsent, ""
	case p == "/token" || strings.HasPrefix(p, "/computeMetadata/"):
		return OpToken, ""
	case p == "/upload/drive/v3/files" && r.URL.Query().Has("upload_id"):
		if strings.HasPrefix(r.Header.Get("Content-Range"), "bytes */") {
			return OpAsk, ""
		}
		return OpSend, ""
	case p == "/upload/drive/v3/files":
		if r.URL.Query().Get("uploadType") == "resumable" {
			return OpOpen, ""
		}
		return OpCreate, ""
	case p == "/drive/v3/about" && r.Method == http.MethodGet:
		return OpAbout, ""
	case p == "/drive/v3/files" && r.Method == http.MethodGet:
		return OpList, ""
	case p == "/drive/v3/files" && r.Method == http.MethodPost:
		return OpMake, ""
	case p == "/drive/v3/files/generateIds" && r.Method == http.MethodGet:
		return OpIDs, ""
	}
	return routeFile(r, p)
}

func routeFile(r *http.Request, p string) (op Op, id string) {
	id, ok := strings.CutPrefix(p, "/drive/v3/files/")
	if !ok {
		return "", ""
	}
	if from, ok := strings.CutSuffix(id, "/copy"); ok && r.Method == http.MethodPost {
		return OpCopy, from
	}
	switch {
	case strings.Contains(id, "/"):
		return "", ""
	case r.Method == http.MethodGet && r.URL.Query().Get("alt") == "media":
		return OpDownload, id
	case r.Method == http.MethodGet:
		return OpGet, id
	case r.Method == http.MethodPatch:
		return OpUpdate, id
	case r.Method == http.MethodDelete:
		return OpDelete, id
	}
	return "", ""
}

// tempFile makes a file for content that is too large for memory.
func (s *Server) tempFile() (*os.File, error) { return os.CreateTemp(s.opts.Dir, "content-*") }
