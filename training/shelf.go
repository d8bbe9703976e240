package training

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
)

// spareName is the folder on a model's shelf that nobody needs any more: the
// worker writes its next checkpoint over it, as memory that was used before
// takes a new content in half the time of fresh one.
const spareName = "spare"

// A shelf is a folder in memory where workers lay down what they hand over, so
// that a checkpoint costs them no more than a copy of it. It is an offer: how
// much may lie there the worker asks the machine before each checkpoint, and
// takes the disk if that is too little. A supervisor has one of its own, which
// goes with it: what lies there is lost with the machine, or with the supervisor.
// The zero value has nothing yet; it is safe for concurrent use.
type shelf struct {
	mu    sync.Mutex
	tried bool
	dir   string   // empty if there is none
	held  *os.File // says that the supervisor lives
}

// place returns a new folder for the model's worker, below root, which is in
// memory; it is empty where there is no such thing. What dead supervisors and
// the model's last attempt have left is removed.
func (s *shelf) place(root, model string, log *slog.Logger) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if root == "" {
		return ""
	}
	if !s.tried {
		s.tried = true
		sweepShelves(root)
		var err error
		if s.dir, s.held, err = openShelf(root); err != nil {
			log.Info("checkpoints are staged on disk", "why", err)
			return ""
		}
	}
	if s.dir == "" {
		return ""
	}
	dir := filepath.Join(s.dir, model)
	err := os.RemoveAll(dir)
	if err == nil {
		err = os.Mkdir(dir, 0o700)
	}
	if err != nil { // somebody has tidied up
		log.Warn("checkpoints are staged on disk", "model", model, "why", err)
		return ""
	}
	return dir
}

// clear gives the memory of a place back.
func (s *shelf) clear(dir string) {
	if dir != "" {
		os.RemoveAll(dir) //nolint:errcheck // what is left goes with the shelf
	}
}

// close removes the shelf. It may be called twice.
func (s *shelf) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dir != "" {
		os.RemoveAll(s.dir) //nolint:errcheck // the next supervisor sweeps it
		s.held.Close()      //nolint:errcheck // it was only held
	}
	s.dir, s.tried = "", false
}

// sweepMemory gives back what supervisors that were killed have left in memory,
// as far as this run's last workers knew of any.
func (r *Run) sweepMemory() {
	for _, m := range r.plan.Models {
		var job jobFile
		data, err := os.ReadFile(r.ModelPath(m.Name, jobName))
		if err == nil && json.Unmarshal(data, &job) == nil && job.MemoryStaging != "" {
			sweepShelves(filepath.Dir(filepath.Dir(job.MemoryStaging)))
			return
		}
	}
}

// place offers a worker memory, unless its model has used up the machine's
// before.
func (a *attempt) place() string {
	if a.fit.LoaderWorkers != nil {
		return ""
	}
	return a.s.shelf.place(a.s.Memory, a.model.Name, a.s.Log)
}

// staged reports whether path is a folder that the worker may hand over.
func (a *attempt) staged(path string) bool {
	return within(a.path(stagingName), path) || a.memory != "" && within(a.memory, path)
}

// release is the end of a staged folder that was saved, or is not to be. The
// memory of one is kept for the worker's next checkpoint.
func (a *attempt) release(path string) {
	if a.memory != "" && filepath.Dir(path) == a.memory && os.Rename(path, filepath.Join(a.memory, spareName)) == nil {
		return
	}
	os.RemoveAll(path) //nolint:errcheck // a leftover is swept before the next attempt
}
