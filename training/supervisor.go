package training

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/uuid"

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
// the other. The strings that come back say in plain words what was found
// damaged and put aside.
type Vault interface {
	// Newest returns the newest checkpoint with this fingerprint that verifies.
	Newest(ctx context.Context, model, fingerprint string) (Checkpoint, []string, error)
	// Final returns the final one, if there is one with this fingerprint that verifies.
	Final(ctx context.Context, model, fingerprint string) (Checkpoint, []string, error)
	// Save takes a staged folder over. When it returns, the checkpoint is durable.
	Save(ctx context.Context, c Checkpoint, staged string) (Checkpoint, error)
	// Finish makes the checkpoint of c.Step the final one.
	Finish(ctx context.Context, c Checkpoint) (Checkpoint, error)
	// Supersede puts aside what belongs to another fingerprint.
	Supersede(model, fingerprint string) error
	// Flush waits until the store has everything.
	Flush(ctx context.Context) error
}

// How a run can come to rest.
var (
	ErrSomeFailed = errors.New("some models failed")
	ErrPaused     = errors.New("the run was paused")
)

const (
	// publishInterval bounds how often the state is written for finders.
	publishInterval = 200 * time.Millisecond
	// lockWait is how long a new supervisor waits for the lock: finders take it
	// for an instant to see whether anybody has it.
	lockWait = 3 * time.Second
	// maxFruitless is how often a model may be killed in a row without getting
	// any further before we stop insisting.
	maxFruitless = 5
	// pauseGrace is how long a worker may take to save and end.
	pauseGrace = 30 * time.Second
)

// A Supervisor works one run off. It is used once.
type Supervisor struct {
	Run       *Run
	Vault     Vault
	WorkerDir string // what goes on PYTHONPATH
	Env       []string
	Log       *slog.Logger

	generation int64
	writer     string
	ledger     *durable.Log
	past       map[string]*history

	state supervisorState
}

// supervisorState is what the supervisor's goroutines share: the status that
// finders see. It is changed in change only.
type supervisorState struct {
	mu     sync.Mutex
	status Status
	timer  *time.Timer // set while a change waits to be published
	closed bool
}

// Work takes the run over and trains its models one after the other. It returns
// nil when all are done, ErrSomeFailed or ErrPaused. Cancelling ctx pauses. When
// it returns no worker is left, and the store has what it could be given.
func (s *Supervisor) Work(ctx context.Context) error {
	lock := flock.New(s.Run.path(lockName), flock.SetFlag(os.O_CREATE|os.O_RDWR))
	waiting, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	if ok, err := lock.TryLockContext(waiting, pollInterval); !ok {
		return fmt.Errorf("take over run %s: another supervisor works on it: %w", s.Run.Name(), err)
	}
	defer lock.Close() //nolint:errcheck // ending releases it too
	if err := os.WriteFile(s.Run.path(lockName), []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		return err
	}
	if err := s.takeOver(); err != nil {
		return err
	}
	defer s.ledger.Close() //nolint:errcheck // every entry was synced
	for i := range s.Run.plan.Models {
		if ctx.Err() != nil {
			break
		}
		if err := s.model(ctx, i); err != nil {
			s.close()
			return err
		}
	}
	// The pause must not keep the last checkpoint from its store.
	if err := s.Vault.Flush(context.WithoutCancel(ctx)); err != nil {
		s.note("", "The store does not have everything yet: "+err.Error())
	}
	return s.close()
}

// takeOver begins a new generation and publishes the first state.
func (s *Supervisor) takeOver() error {
	status, err := s.Run.derive()
	if err != nil {
		return err
	}
	entries, err := readLedger(s.Run.path(ledgerName))
	if err != nil {
		return err
	}
	s.past = histories(entries)
	if s.ledger, err = durable.OpenLog(s.Run.path(ledgerName)); err != nil {
		return err
	}
	s.generation, s.writer = status.Generation+1, uuid.NewString()
	if err := s.record(Entry{Type: EntryTakeover, PID: os.Getpid()}); err != nil {
		return err
	}
	now := time.Now().UTC().Truncate(time.Second)
	status.State, status.Started, status.Generation = RunRunning, &now, s.generation
	status.Store, status.SupervisorPID = s.Run.plan.Store, os.Getpid()
	for i := range status.Models {
		m := &status.Models[i]
		if m.State == ModelFailed { // it was asked for again
			m.State, m.Error = ModelPending, ""
		}
	}
	s.state.status = status
	return s.Run.publish(status)
}

// record appends to the ledger, durably.
func (s *Supervisor) record(e Entry) error {
	e.Time, e.Generation, e.Writer = time.Now().UTC(), s.generation, s.writer
	if err := s.ledger.Append(e); err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	return s.ledger.Sync()
}

// note tells the user something: in the status, the ledger and the log.
func (s *Supervisor) note(model, text string) {
	s.Log.Warn("note", "run", s.Run.Name(), "text", text)
	if err := s.record(Entry{Type: EntryNote, Model: model, Message: text}); err != nil {
		s.Log.Error("note not recorded", "error", err)
	}
	s.change(true, func(st *Status) { st.Notes = append(st.Notes, text) })
}

// change changes the status and publishes it, at once or soon.
func (s *Supervisor) change(now bool, f func(*Status)) {
	st := &s.state
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.closed {
		return
	}
	f(&st.status)
	if now {
		s.publishLocked()
		return
	}
	if st.timer == nil {
		st.timer = time.AfterFunc(publishInterval, func() {
			st.mu.Lock()
			defer st.mu.Unlock()
			st.timer = nil
			if !st.closed {
				s.publishLocked()
			}
		})
	}
}

func (s *Supervisor) publishLocked() {
	s.state.status.ETASeconds = etaOf(s.state.status.Models)
	if err := s.Run.publish(s.state.status); err != nil {
		s.Log.Error("state not published", "error", err) // finders see an older one
	}
}

// close publishes the last state and says how the run came to rest.
func (s *Supervisor) close() error {
	st := &s.state
	st.mu.Lock()
	defer st.mu.Unlock()
	st.closed = true
	if st.timer != nil {
		st.timer.Stop()
	}
	st.status.State, st.status.SupervisorPID = atRest(st.status.Models), 0
	s.publishLocked()
	switch st.status.State {
	case RunDone:
		return nil
	case RunFailed:
		return ErrSomeFailed
	case RunPaused, RunRunning:
	}
	return ErrPaused
}

// Mirrored says that the store has a checkpoint. It may be called from any
// goroutine.
func (s *Supervisor) Mirrored(model string, step int64, durability string) {
	s.change(true, func(st *Status) {
		for i := range st.Models {
			if m := &st.Models[i]; m.Name == model && m.Checkpoint != nil && m.Checkpoint.Step == step {
				m.Checkpoint.Durability = durability
			}
		}
	})
}

// model trains the i-th model until it is done, failed, or the run is paused.
// An error is one of the machine, not of the model.
func (s *Supervisor) model(ctx context.Context, i int) error {
	m := s.Run.plan.Models[i]
	if err := s.prepare(m); err != nil {
		return err
	}
	final, damage, err := s.Vault.Final(ctx, m.Name, m.Fingerprint)
	if err != nil {
		return err
	}
	s.tell(m.Name, damage)
	if final.Path != "" {
		s.done(i, final)
		return nil
	}
	budget := budget{retries: s.Run.plan.Settings.Retries}
	if h := s.history(m); h.running { // its supervisor died in the middle of it
		lost := Entry{Type: EntryEnd, Model: m.Name, Fingerprint: m.Fingerprint, Attempt: h.attempts, Cause: CauseLost, State: ModelPaused}
		if err := s.record(lost); err != nil {
			return err
		}
	}
	for {
		from, damage, err := s.Vault.Newest(ctx, m.Name, m.Fingerprint)
		if err != nil {
			return err
		}
		s.tell(m.Name, damage)
		a := &attempt{s: s, index: i, model: m, from: from, number: s.history(m).attempts + 1}
		end, err := a.run(ctx)
		if err != nil {
			return fmt.Errorf("model %s: %w", m.Name, err)
		}
		again := budget.spend(end, a.reached > from.Step)
		state := end.state(again)
		if err := s.ended(i, a, end, state); err != nil {
			return err
		}
		if state != ModelPending || ctx.Err() != nil {
			return nil
		}
	}
}

// prepare puts aside what other code or parameters left, and clears what an
// interrupted attempt staged.
func (s *Supervisor) prepare(m Model) error {
	path := s.Run.ModelPath(m.Name, modelFileName)
	var was struct {
		Fingerprint string `json:"fingerprint"`
	}
	if data, err := os.ReadFile(path); err == nil {
		if err := decode(data, &was); err != nil {
			s.Log.Warn("model.json not readable", "model", m.Name, "error", err)
		}
	}
	if was.Fingerprint != "" && was.Fingerprint != m.Fingerprint {
		if err := s.Vault.Supersede(m.Name, was.Fingerprint); err != nil {
			return err
		}
	}
	if was.Fingerprint != m.Fingerprint {
		was.Fingerprint = m.Fingerprint
		return durable.WriteJSON(path, was)
	}
	return nil
}

func (s *Supervisor) history(m Model) *history {
	key := m.Name + " " + m.Fingerprint
	if s.past[key] == nil {
		s.past[key] = &history{}
	}
	return s.past[key]
}

func (s *Supervisor) tell(model string, notes []string) {
	for _, n := range notes {
		s.note(model, n)
	}
}

func (s *Supervisor) done(i int, final Checkpoint) {
	s.change(true, func(st *Status) {
		m := &st.Models[i]
		m.State, m.Step, m.TotalSteps, m.Metrics = ModelDone, final.Step, max(m.TotalSteps, final.Step), final.Metrics
		m.Checkpoint = &CheckpointStatus{final.Step, final.Durability, final.Path}
		m.WorkerPID, m.ETASeconds, m.Cause, m.Error = 0, nil, CauseDone, ""
	})
}

// ended records how an attempt ended and what that makes of its model.
func (s *Supervisor) ended(i int, a *attempt, end outcome, state ModelState) error {
	h := s.history(a.model)
	h.running, h.attempts = false, a.number
	h.seconds += a.seconds()
	h.reached = max(h.reached, a.reached)
	err := s.record(Entry{
		Type: EntryEnd, Model: a.model.Name, Fingerprint: a.model.Fingerprint, Attempt: a.number, Cause: end.cause, State: state,
		Step: a.reached, ExitCode: end.exit, Signal: end.signal, Message: end.message, StepsRedone: a.redone, Seconds: a.seconds(),
	})
	if err != nil {
		return err
	}
	if state == ModelDone {
		s.change(false, func(st *Status) { st.Models[i].Seconds = h.seconds })
		s.done(i, end.final)
		return nil
	}
	s.change(true, func(st *Status) {
		m := &st.Models[i]
		m.State, m.Cause, m.Error, m.WorkerPID, m.ETASeconds, m.Seconds = state, end.cause, strings.TrimSpace(end.message), 0, nil, h.seconds
	})
	return nil
}

// budget is how often a model may still be tried again.
type budget struct {
	retries   int
	fruitless int // kills in a row without progress
}

// spend takes an attempt into account and reports whether there is to be
// another. A kill costs nothing as long as the model gets further: it is the
// machine's doing, and what this program is for.
func (b *budget) spend(e outcome, progress bool) bool {
	if progress {
		b.fruitless = 0
	}
	switch e.cause {
	case CauseKilled, CauseLost:
		b.fruitless++
		return b.fruitless < maxFruitless
	case CauseCrash:
		b.retries--
		return b.retries >= 0
	case CauseDone, CausePaused, CauseError:
	}
	return false
}
