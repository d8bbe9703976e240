package drive

import (
	"bufio"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"outlast/checkpoint/durable"
)

// A journal is rewritten when it has grown to so many lines and most of them
// are of no use any more.
const compactLines = 4096

// sessionLife is how long Drive keeps an unfinished upload; it says a week.
const sessionLife = 6 * 24 * time.Hour

// Kinds of record.
const (
	recordFolder  = "folder"
	recordFile    = "file"
	recordPending = "pending" // an upload that was begun
)

// A record is one line of a journal. A later one of the same kind and path, and
// of the same id unless it is pending, takes the place of an earlier one.
type record struct {
	Kind    string    `json:"kind"`
	Path    string    `json:"path"`
	Gone    bool      `json:"gone,omitempty"`
	Mine    bool      `json:"mine,omitempty"`    // of a folder: made by this program
	Session string    `json:"session,omitempty"` // address to upload to: whoever knows it may write
	Opened  time.Time `json:"opened,omitzero"`
	object
}

func (r record) key() string {
	if r.Kind == recordPending {
		return r.Kind + "\x00" + r.Path
	}
	return r.Kind + "\x00" + r.Path + "\x00" + r.ID
}

// A journal remembers ids and unfinished uploads across processes. What it says
// is believed only as far as Drive confirms it; a lost journal costs time. Its
// methods may be called concurrently.
type journal struct {
	path string // empty: in memory
	log  *slog.Logger
	lock *flock.Flock

	mu    sync.Mutex
	live  map[string]record
	lines int          // in the file
	out   *durable.Log // nil: in memory, or closed
}

// openJournal reads the journal at path into x. One that another process uses,
// or that cannot be read or written, is done without.
func openJournal(path string, x *index, log *slog.Logger) *journal {
	j := &journal{path: path, log: log, live: map[string]record{}}
	if path == "" {
		return j
	}
	if err := j.open(); err != nil {
		say := log.Warn
		if errors.Is(err, errInUse) { // as it is while a run works
			say = log.Info
		}
		say("going on without a drive journal", "path", path, "error", err)
		return &journal{log: log, live: map[string]record{}}
	}
	for _, r := range j.live {
		switch r.Kind {
		case recordFolder:
			x.addFolder(r.Path, r.ID, r.Mine, false)
		case recordFile:
			x.add(r.Path, r.object)
		}
	}
	x.doubt()
	return j
}

// open takes the journal for this process, reads it, and begins to write it.
func (j *journal) open() error {
	if err := durable.MkdirAll(filepath.Dir(j.path)); err != nil {
		return err
	}
	j.lock = flock.New(j.path + ".lock")
	held, err := j.lock.TryLock()
	if err != nil {
		return err
	}
	if !held {
		return errInUse
	}
	if err = j.read(); err == nil {
		err = j.rewrite()
	}
	if err != nil {
		return errors.Join(err, j.lock.Unlock())
	}
	return nil
}

// read takes in every line that makes sense; a damaged one costs time only.
func (j *journal) read() error {
	return durable.ReadLog(j.path, func(line []byte) error {
		var r record
		if json.Unmarshal(line, &r) == nil && r.Path != "" && r.ID != "" && fs.ValidPath(r.Path) {
			j.apply(r)
		}
		return nil
	})
}

func (j *journal) apply(r record) {
	if r.Gone {
		delete(j.live, r.key())
		return
	}
	j.live[r.key()] = r
}

// rewrite replaces the file by one of what is live, readable by its owner only:
// it holds addresses of uploads. The caller holds the lock or is alone.
func (j *journal) rewrite() error {
	if j.out != nil {
		if err := j.out.Close(); err != nil {
			return err
		}
		j.out = nil
	}
	f, err := os.CreateTemp(filepath.Dir(j.path), filepath.Base(j.path)+durable.TempMark)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	enc := json.NewEncoder(w)
	for _, r := range j.live {
		err = errors.Join(err, enc.Encode(r))
	}
	err = errors.Join(err, w.Flush(), f.Sync(), f.Close())
	if err == nil {
		err = durable.Rename(f.Name(), j.path)
	}
	if err != nil {
		os.Remove(f.Name()) //nolint:errcheck // a leftover is swept at the next start
		return err
	}
	j.lines = len(j.live)
	j.out, err = durable.OpenLog(j.path)
	return err
}

// note adds a record. Only sync makes it outlast a power cut; a kill of the
// process it outlasts anyway. A journal that cannot be written is done without:
// what it would have saved is time.
func (j *journal) note(r record, sync bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	old, known := j.live[r.key()]
	if known && old == r || r.Gone && !known {
		return // a listing tells much that is known
	}
	j.apply(r)
	if j.out == nil {
		return
	}
	err := j.out.Append(r)
	if err == nil && sync {
		err = j.out.Sync()
	}
	j.lines++
	if err == nil && j.lines > compactLines && j.lines > 4*len(j.live) {
		err = j.rewrite()
	}
	if err != nil {
		if j.out != nil {
			err = errors.Join(err, j.out.Close())
		}
		j.log.Warn("drive journal is not written any more", "path", j.path, "error", err)
		j.out = nil
	}
}

// pending returns the unfinished upload under a path.
func (j *journal) pending(path string) (record, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	r, ok := j.live[record{Kind: recordPending, Path: path}.key()]
	if ok && time.Since(r.Opened) > sessionLife {
		r.Session = ""
	}
	return r, ok
}

// close closes the file. It may be called twice.
func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	var err error
	if j.out != nil {
		err = j.out.Close()
		j.out = nil
	}
	if j.lock != nil {
		err = errors.Join(err, j.lock.Unlock())
	}
	return err
}

// The store's memory: the index, and the journal behind it.

// knowFile takes in a version of a file that Drive has vouched for.
func (s *Store) knowFile(path string, o object) {
	s.index.add(path, o)
	s.journal.note(record{Kind: recordFile, Path: path, object: o}, false)
}

// loseFile forgets a version that is gone.
func (s *Store) loseFile(path, id string) {
	s.index.remove(path, id)
	s.journal.note(record{Kind: recordFile, Path: path, Gone: true, object: object{ID: id}}, false)
}

// knowFolder takes in a folder that Drive shows in its place; made says that this program has just made it.
func (s *Store) knowFolder(path, id string, mine, made bool) {
	s.index.addFolder(path, id, mine, made)
	s.index.setPlaced(path)
	s.journal.note(record{Kind: recordFolder, Path: path, Mine: mine, object: object{ID: id}}, false)
}

// loseFolder forgets a folder that is gone, and all below it.
func (s *Store) loseFolder(path string) {
	for _, id := range s.index.folderIDs(path) {
		s.journal.note(record{Kind: recordFolder, Path: path, Gone: true, object: object{ID: id}}, false)
	}
	s.index.loseFolders(path)
}
