package training

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"outlast/checkpoint/durable"
)

// A Checkpoint is a saved state of a model, as the supervisor knows it.
type Checkpoint struct {
	Model       string
	Fingerprint string
	Writer      string
	Path        string // empty if there is none
	Durability  string
	Step        int64 // completed steps
	Generation  int64
	Final       bool
	Metrics     map[string]any
}

// A Vault keeps the checkpoints of one run. Calls for one model come one after
// the other, those for different models at any time. The strings that come back say in plain words what was found
// damaged and put aside. A Vault may be a Pruner and a Toucher too.
type Vault interface {
	// Open is called first, once the run is ours: it sweeps what an interrupted
	// writer left, and returns the generation that the writer begins, atLeast or
	// higher if it knows of others that wrote this run.
	Open(ctx context.Context, atLeast int64, writer string) (generation int64, err error)
	// Newest returns the newest checkpoint with this fingerprint that verifies.
	Newest(ctx context.Context, model, fingerprint string) (Checkpoint, []string, error)
	// Final returns the final one, if there is one with this fingerprint that verifies.
	Final(ctx context.Context, model, fingerprint string) (Checkpoint, []string, error)
	// Save takes a staged folder over. When it returns, the checkpoint is
	// durable; when it fails, it may be asked again, unless the error is
	// durable.ErrLost: then the folder does not hold what was staged any more.
	//
	// A folder in the model's own staging is moved, any other one copied, and left
	// to the caller.
	Save(ctx context.Context, c Checkpoint, staged string) (Checkpoint, error)
	// Finish makes the checkpoint of c.Step the final one. It may be asked again.
	Finish(ctx context.Context, c Checkpoint) (Checkpoint, error)
	// Supersede puts aside what belongs to another fingerprint.
	Supersede(model, fingerprint string) error
	// Flush waits until the store has everything. When ctx ends somebody wants it to
	// stop: from then on it waits only as long as the store takes what it is given.
	Flush(ctx context.Context) error
}

// How a run can come to rest.
var (
	ErrSomeFailed = errors.New("some models failed")
	ErrPaused     = errors.New("the run was paused")
)

// lockWait is how long a new supervisor waits for the lock: finders take it for
// an instant to see whether anybody has it.
const lockWait = 3 * time.Second

// A Supervisor works one run off. It is used once.
type Supervisor struct {
	Run       *Run
	Vault     Vault
	WorkerDir string // what goes on PYTHONPATH
	Env       []string
	Memory    string // a folder in memory for what workers hand over, such as /dev/shm; empty for the disk
	Log       *slog.Logger

	// Sleep waits before something is tried again; nil means by the clock. It
	// returns ctx's error if ctx ends first.
	Sleep func(ctx context.Context, d time.Duration) error
	// Free returns the bytes that may be written at path, and how many that disk
	// has; nil means to ask the system.
	Free func(path string) (free, total uint64, err error)
	// Device returns the memory of the device that workers use; nil where there is
	// none, or it cannot be told.
	Device func(ctx context.Context) (DeviceMemory, error)

	generation int64
	writer     string
	ledger     *durable.Log
	past       map[string]*history
	learnt     *lessons
	tempo      tempo
	nursery    nursery
	board      board
	copies     copies
	shelf      shelf
	writing    sync.Mutex // held while the code is written
	pruning    sync.Mutex // held while room is made
	kills      killCount
	versions   versions
	patience   time.Duration // in tests, of the packer
}

// Work takes the run over and trains its models. It returns
// nil when all are done, ErrSomeFailed or ErrPaused. Cancelling ctx pauses. When
// it returns no worker is left, and the store has what it could be given.
func (s *Supervisor) Work(ctx context.Context) error {
	release, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	defer s.shelf.close()
	if err := s.takeOver(ctx); err != nil {
		return fmt.Errorf("take over run %s: %w", s.Run.Name(), err)
	}
	defer s.ledger.Close() //nolint:errcheck // every entry was synced
	bounded, stop := s.budgeted(ctx)
	defer stop()
	announce := context.AfterFunc(bounded, s.announceEnd)
	defer announce()
	err = s.models(bounded)
	s.nursery.close()
	why := context.Cause(bounded)
	s.announceEnd()
	// A pause must not keep the last checkpoint from its store, nor a store that
	// does not answer keep up a pause.
	if err := s.Vault.Flush(ctx); err != nil {
		s.note("", "The store does not have everything yet: "+err.Error())
	}
	return s.rest(why, err)
}

// lock makes this process the supervisor of the run, and returns how to end
// that.
func (s *Supervisor) lock(ctx context.Context) (release func(), err error) {
	path := s.Run.path(lockName)
	lock := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR))
	waiting, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	if ok, err := lock.TryLockContext(waiting, pollInterval); !ok {
		if ctx.Err() != nil {
			return nil, ErrPaused
		}
		return nil, fmt.Errorf("take over run %s: another supervisor works on it: %w", s.Run.Name(), err)
	}
	release = func() {
		writeIdentity(path, identity{}) //nolint:errcheck // who reads it looks whether the process is there
		lock.Close()                    //nolint:errcheck // ending releases it too
	}
	if err := writeIdentity(path, identify(os.Getpid())); err != nil {
		release()
		return nil, fmt.Errorf("take over run %s: %w", s.Run.Name(), err)
	}
	return release, nil
}

// takeOver begins a new generation and publishes the first state.
func (s *Supervisor) takeOver(ctx context.Context) error {
	status, err := s.Run.derive()
	if err != nil {
		return err
	}
	entries, err := readLedger(s.Run.path(ledgerName))
	if err != nil {
		return err
	}
	s.past = s.Run.histories(entries)
	for _, m := range s.Run.plan.Models { // from now on it is only read, by many
		s.history(m)
	}
	if s.learnt, err = readLessons(s.Run.path(learntName)); err != nil {
		s.Log.WarnContext(ctx, "nothing learnt from before", "error", err)
	}
	if s.ledger, err = durable.OpenLog(s.Run.path(ledgerName)); err != nil {
		return err
	}
	s.writer = uuid.NewString()
	if s.generation, err = s.Vault.Open(ctx, status.Generation+1, s.writer); err != nil {
		return fmt.Errorf("open the checkpoints of run %s: %w", s.Run.Name(), err)
	}
	if err := s.record(ctx, Entry{Type: EntryTakeover, PID: os.Getpid()}); err != nil {
		return err
	}
	s.copies.begin(status)
	now := time.Now().UTC().Truncate(time.Second)
	status.State, status.Started, status.Generation = RunRunning, &now, s.generation
	status.Store, status.SupervisorPID = s.Run.plan.Store, os.Getpid()
	for i := range status.Models {
		m := &status.Models[i]
		if m.State == ModelFailed { // it was asked for again
			m.State, m.Error = ModelPending, ""
		}
	}
	s.board.run = s.Run
	s.board.failure = func(err error) { s.Log.ErrorContext(ctx, "state not published", "error", err) }
	return s.board.begin(status)
}

// models trains the models, as many at once as the plan says. Its error is one
// of the machine; it concerns all of them, and those at work are paused.
func (s *Supervisor) models(ctx context.Context) error {
	crew, working := errgroup.WithContext(ctx)
	seats, stop := s.seats(working)
	defer stop()
	for i, m := range s.Run.plan.Models {
		one, err := seats.take(working, i, m, false)
		if err != nil {
			break // a pause, or trouble
		}
		crew.Go(func() error {
			err := s.model(working, one)
			if err == nil || working.Err() != nil && errors.Is(err, working.Err()) { // a pause is no error
				return nil
			}
			s.announceEnd()
			return err
		})
	}
	return crew.Wait()
}

// rest publishes the last state and says how the run came to rest. why is the
// reason for a pause; err stopped everything.
func (s *Supervisor) rest(why, err error) error {
	switch halt := (*haltError)(nil); {
	case errors.As(err, &halt):
		s.note(halt.model, halt.say)
		err = nil
	case err != nil:
		s.note("", "The run had to stop: "+err.Error())
	}
	hours := s.Run.plan.Settings.MaxHours
	st := s.board.end(func(st *Status) {
		st.State, st.SupervisorPID, st.Ending = atRest(st.Models), 0, false
		if st.State == RunPaused {
			st.Notes = append(st.Notes, pausedNote(why, hours, *st))
		}
	})
	switch {
	case err != nil:
		return err
	case st.State == RunDone:
		return nil
	case st.State == RunFailed:
		return ErrSomeFailed
	}
	return ErrPaused
}

// announceEnd lets finders know that no further model is begun.
func (s *Supervisor) announceEnd() {
	s.change(func(st *Status) { st.Ending = true })
}

// change changes the status that finders see.
func (s *Supervisor) change(f func(*Status)) { s.board.change(f) }

// record appends to the ledger, durably. It waits for a full disk until ctx ends.
func (s *Supervisor) record(ctx context.Context, e Entry) error {
	e.Time, e.Generation, e.Writer = time.Now().UTC(), s.generation, s.writer
	err := s.persist(ctx, e.Model, func() error { return s.ledger.Append(e) })
	if err == nil {
		err = s.ledger.Sync()
	}
	if err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	return nil
}

// note tells the user something: in the status, the ledger and the log.
func (s *Supervisor) note(model, text string) {
	s.Log.Warn("note", "run", s.Run.Name(), "text", text)
	e := Entry{Time: time.Now().UTC(), Type: EntryNote, Generation: s.generation, Writer: s.writer, Model: model, Message: text}
	if err := s.ledger.Append(e); err != nil { // it is in the status and in the log as well
		s.Log.Error("note not recorded", "error", err)
	}
	s.change(func(st *Status) {
		st.Notes = append(st.Notes, text)
		st.Notes = st.Notes[max(0, len(st.Notes)-maxNotes):]
	})
}

// Mirrored says that the store has a checkpoint of a step, or the final one made
// of it: that is a copy of its own. It may be called from any goroutine, at any
// time.
func (s *Supervisor) Mirrored(model string, step int64, final bool, durability string) {
	s.copies.heard(model, saved{step, final}, durability)
	s.change(func(st *Status) {
		for i := range st.Models {
			m := &st.Models[i]
			if m.Name == model && m.Checkpoint != nil && m.Checkpoint.Step == step && (m.State == ModelDone) == final {
				m.Checkpoint.Durability = durability
			}
		}
	})
}
