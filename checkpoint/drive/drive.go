// Package drive is the store in Google Drive, over version 3 of its API.
//
// Folders and files are real ones, so that people recognise their models. An
// object is known by its id, never by its name: Drive allows two files of one
// name, and its listings lag behind. Ids are generated before an object is made,
// which makes making it idempotent, and each object names the id that the next
// version of the same file will have, so that what another machine has replaced
// is found without a listing. Only what carries the mark of Outlast is read,
// replaced or deleted.
//
// Uploads follow Drive's resumable protocol by hand: the client that Google
// generates for it can neither resume nor believe what the server kept. See
// https://developers.google.com/workspace/drive/api/guides/manage-uploads.
//
// It knows nothing of checkpoints, runs or manifests, and reads no environment.
package drive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"

	driveapi "google.golang.org/api/drive/v3"
	"google.golang.org/api/option"

	"outlast/checkpoint"
)

// A Store is one folder in Drive. It is safe for concurrent use, also by other
// machines beside this one.
type Store struct {
	cfg     Config
	log     *slog.Logger
	base    *url.URL // root of the API
	client  *http.Client
	api     *driveapi.Service
	tokens  *tokens // nil without credentials
	journal *journal
	index   *index
	ids     idPool
	pace    pacer
	space   space
	copies  rest // of copies within Drive
	names   locks
	slots   chan struct{} // one for each Put at work
}

var _ checkpoint.Store = (*Store)(nil)

// New returns the store that cfg describes. It looks for credentials, but does
// not ask Drive anything, and makes nothing there: the folder is made by the
// first Put. Close it when done.
func New(ctx context.Context, cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	base, err := cfg.root()
	if err != nil {
		return nil, err
	}
	tokens, err := findTokens(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return open(ctx, cfg, base, tokens)
}

// open returns the store at base.
func open(ctx context.Context, cfg Config, base *url.URL, tokens *tokens) (*Store, error) {
	s := &Store{cfg: cfg, log: cfg.Log, base: base, tokens: tokens, slots: make(chan struct{}, cfg.Parallel)}
	s.client = newClient(s)
	var err error
	s.api, err = driveapi.NewService(ctx, option.WithHTTPClient(s.client), option.WithEndpoint(base.String()+"/drive/v3/"))
	if err != nil {
		return nil, fmt.Errorf("open Google Drive: %w", err)
	}
	s.ids.fetch = s.generateIDs
	s.index = newIndex()
	s.journal = openJournal(cfg.Journal, s.index, s.log)
	return s, nil
}

// SignedInBy says what makes this store Google's to open, for people.
func (s *Store) SignedInBy() string {
	if s.tokens == nil {
		return "nobody's sign-in: OUTLAST_DRIVE_ENDPOINT wants none"
	}
	return s.tokens.means
}

// Close writes the journal and lets its file go. No call may be under way. It
// may be called twice.
func (s *Store) Close() error {
	s.client.CloseIdleConnections()
	return s.journal.close()
}

// path returns where in Drive a name lives, below My Drive.
func (s *Store) path(name string) (string, error) {
	if !fs.ValidPath(name) || name == "." {
		return "", fmt.Errorf("name %q leads outside the store", name)
	}
	return path.Join(s.cfg.Folder, name), nil
}

// name is the inverse of path.
func (s *Store) name(path string) string {
	if s.cfg.Folder == "" {
		return path
	}
	return strings.TrimPrefix(path, s.cfg.Folder+"/")
}

// parentOf returns the folder of a path, "" for My Drive itself.
func parentOf(p string) string {
	if dir := path.Dir(p); dir != "." {
		return dir
	}
	return ""
}

// locks lets one goroutine at a time work under a key.
type locks struct {
	mu   sync.Mutex
	busy map[string]chan struct{} // closed when the work has ended
}

// lock waits until nobody else works under key, or ctx ends.
func (l *locks) lock(ctx context.Context, key string) (unlock func(), err error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		l.mu.Lock()
		other := l.busy[key]
		if other == nil {
			if l.busy == nil {
				l.busy = map[string]chan struct{}{}
			}
			mine := make(chan struct{})
			l.busy[key] = mine
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.busy, key)
				l.mu.Unlock()
				close(mine)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-other:
		}
	}
}

// notFound says that the store has nothing called name.
func notFound(name string) error {
	return fmt.Errorf("%s: %w", name, checkpoint.ErrNotFound)
}

// errors that steer a Put; no caller sees them.
var (
	errTaken         = errors.New("the id is in use")
	errAgain         = errors.New("the folder was out of the way for a moment")
	errParentGone    = errors.New("the folder is gone")
	errContradiction = errors.New("it both has the folder and does not")
	errNoIDs         = errors.New("it gave none")
	errClosed        = errors.New("the request is over")
	errInTrash       = errors.New("it is in the trash")
	errInUse         = errors.New("another process uses it")
)
