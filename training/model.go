package training

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"outlast/checkpoint/durable"
)

// A haltError pauses the run because of something that would stop every model.
type haltError struct{ model, say string }

func (e *haltError) Error() string { return e.model + ": " + e.say }

// model trains the model that has the seat until it is done, failed, or the run
// is paused, and gives the seat back. An error is one of the machine, not of the
// model.
func (s *Supervisor) model(ctx context.Context, has *seat) (err error) {
	defer func() {
		if err != nil {
			has.seats.close() // before somebody else sits down
		}
		has.leave()
	}()
	i, m := has.index, has.model
	if err := s.prepare(ctx, m); err != nil {
		return err
	}
	final, damage, err := s.Vault.Final(ctx, m.Name, m.Fingerprint)
	if err != nil {
		return err
	}
	s.tell(m.Name, damage)
	if err := s.settle(ctx, m, final); err != nil {
		return err
	}
	if final.Path != "" {
		s.done(i, final)
		return nil
	}
	fit := s.firstFit(m)
	patience := patience{retries: s.Run.plan.Settings.Retries}
	for {
		next, err := s.try(ctx, has, fit, &patience)
		if err != nil {
			return err
		}
		if next.halt {
			return &haltError{m.Name, next.say}
		}
		if next.state != ModelPending {
			return nil
		}
		fit = next.fit
		if has, err = has.after(ctx, next); err != nil {
			return err
		}
		if next.space > 0 {
			err = s.roomFor(ctx, m.Name, next.space)
		} else {
			err = s.pause(ctx, next.wait)
		}
		if err != nil {
			return err
		}
	}
}

// prepare puts aside what other code or parameters left.
func (s *Supervisor) prepare(ctx context.Context, m Model) error {
	path := s.Run.ModelPath(m.Name, modelFileName)
	var was struct {
		Fingerprint string `json:"fingerprint"`
	}
	if data, err := os.ReadFile(path); err == nil {
		if err := decode(data, &was); err != nil {
			s.Log.WarnContext(ctx, "model.json not readable", "model", m.Name, "error", err)
		}
	}
	if was.Fingerprint != "" && was.Fingerprint != m.Fingerprint {
		if err := s.Vault.Supersede(m.Name, was.Fingerprint); err != nil {
			return err
		}
	}
	if was.Fingerprint != m.Fingerprint {
		was.Fingerprint = m.Fingerprint
		return s.persist(ctx, m.Name, func() error { return durable.WriteJSON(path, was) })
	}
	return nil
}

// settle records the end of an attempt whose supervisor died in the middle of
// it, or between sealing its result and saying so.
func (s *Supervisor) settle(ctx context.Context, m Model, final Checkpoint) error {
	h := s.history(m)
	if !h.running {
		return nil
	}
	end := Entry{
		Type: EntryEnd, Model: m.Name, Fingerprint: m.Fingerprint, Attempt: h.attempts,
		Cause: CauseLost, State: ModelPaused, Message: lostText, Step: h.stopped, StepsRedone: new(h.redone(h.from)),
	}
	if final.Path != "" {
		end.Cause, end.State, end.Step, end.Message = CauseDone, ModelDone, final.Step, ""
	}
	end.Seconds = s.Run.lostSeconds(m.Name, h)
	h.running = false
	h.seconds += end.Seconds
	h.reached = max(h.reached, end.Step)
	return s.record(ctx, end)
}

// firstFit returns how to begin with m: as planned, unless it is known not to
// fit.
func (s *Supervisor) firstFit(m Model) Fit {
	planned := s.Run.plan.fit(m)
	lesson, ok := s.learnt.about(m, s.Run.plan.Settings)
	if !ok {
		return planned
	}
	fit := planned.tighter(lesson.Fit)
	if fit.String() != planned.String() {
		s.note(m.Name, m.Name+": begins with "+fit.String()+", because more did not fit this device before.")
	}
	return fit
}

// try makes one attempt at the model that has the seat and says what to do next.
func (s *Supervisor) try(ctx context.Context, has *seat, fit Fit, p *patience) (answer, error) {
	m := has.model
	from, damage, err := s.Vault.Newest(ctx, m.Name, m.Fingerprint)
	if err != nil {
		return answer{}, err
	}
	s.tell(m.Name, damage)
	a := &attempt{s: s, seat: has, index: has.index, model: m, from: from, fit: fit, number: s.history(m).attempts + 1}
	has.begin(time.Now())
	end, err := a.run(has.ctx) //nolint:contextcheck // the seat's is made from ctx
	if err != nil && has.evicted() && ctx.Err() == nil && (isFull(err) || errors.Is(err, context.Canceled)) {
		return answer{state: ModelPending, fit: fit}, nil
	}
	if err != nil {
		return answer{}, err
	}
	end.beside, end.partial = has.crowded(), has.fraction > 0
	next := s.doubtFork(a, end, s.fewer(has, p.answer(end, a.saver.last().Step > from.Step, fit)))
	switch {
	case next.state == ModelPending && ctx.Err() != nil:
		next.state = ModelPaused
	case next.state == ModelPaused && has.evicted() && ctx.Err() == nil && !next.halt:
		next.state = ModelPending
	}
	s.learn(m, fit, end, next)
	return next, s.ended(ctx, a, end, next)
}

// fewer lets fewer models be trained at once, if that is the answer.
func (s *Supervisor) fewer(has *seat, next answer) answer {
	if next.fewer {
		next.say = fmt.Sprintf("From now on at most %d are trained at once.", has.lower())
	}
	return next
}

// doubtFork gives a model Pythons of its own from now on, if it may be the fork
// that a worker of it did not bear.
func (s *Supervisor) doubtFork(a *attempt, end outcome, next answer) answer {
	blamed := end.cause == CauseError && blamesFork(end.message)
	if !a.forked || end.cause != CauseCrash && end.cause != CauseHang && !blamed {
		return next
	}
	s.history(a.model).cold = true
	if blamed {
		return answer{state: ModelPending, fit: a.fit, say: "It does not bear to be forked, and is begun again as a program of its own."}
	}
	return next
}

// learn remembers what an attempt taught about the device.
func (s *Supervisor) learn(m Model, fit Fit, end outcome, next answer) {
	var x lesson
	_, known := s.learnt.about(m, s.Run.plan.Settings)
	switch end.cause {
	case CauseDone:
		if !known && end.memory.Peak == 0 {
			return // nothing that the plan does not say
		}
		x = lesson{Fit: fit, Fits: true, PeakMiB: end.memory.Peak}
	case CauseDeviceOOM, CauseHostOOM:
		if next.fit == fit && next.state != ModelFailed {
			return
		}
		x = lesson{Fit: next.fit, NeedMiB: end.memory.need()}
	case CausePaused, CauseKilled, CauseLost, CauseDiskFull, CauseDeviceLost, CauseHang, CauseCrash, CauseError:
		return
	}
	if err := s.learnt.learn(m, s.Run.plan.Settings, x); err != nil {
		s.Log.Warn("what was learnt is not kept", "model", m.Name, "error", err)
	}
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
	s.change(func(st *Status) {
		m := &st.Models[i]
		m.State, m.Step, m.TotalSteps, m.Metrics = ModelDone, final.Step, max(m.TotalSteps, final.Step), final.Metrics
		m.Checkpoint = s.copies.status(final)
		m.WorkerPID, m.ETASeconds, m.Cause, m.Error = 0, nil, CauseDone, ""
	})
}

// ended records how an attempt ended and what that makes of its model.
func (s *Supervisor) ended(ctx context.Context, a *attempt, end outcome, next answer) error {
	h := s.history(a.model)
	h.running, h.attempts = false, a.number
	h.seconds += a.seconds()
	h.reached = max(h.reached, a.reached)
	text := sentences(end.message, next.say)
	err := s.record(ctx, Entry{
		Type: EntryEnd, Model: a.model.Name, Fingerprint: a.model.Fingerprint, Attempt: a.number, Cause: end.cause, State: next.state,
		Step: a.reached, ExitCode: end.exit, Signal: end.signal, Message: text, StepsRedone: &a.redone, Seconds: a.seconds(),
	})
	if err != nil {
		return err
	}
	if next.state == ModelDone {
		s.change(func(st *Status) { st.Models[a.index].Seconds = h.seconds })
		s.done(a.index, end.final)
		return nil
	}
	s.change(func(st *Status) {
		m := &st.Models[a.index]
		m.State, m.Cause, m.Error, m.WorkerPID, m.ETASeconds, m.Seconds = next.state, end.cause, text, 0, nil, h.seconds
	})
	if next.say != "" && next.state == ModelPending {
		s.note(a.model.Name, a.model.Name+": "+text)
	}
	return nil
}

// sentences joins what happened and what follows from it.
func sentences(what, then string) string {
	what = strings.TrimSpace(what)
	switch {
	case what == "" || then == "":
		return what + then
	case strings.Contains(what, "\n"): // a traceback
		return what + "\n" + then
	}
	return strings.TrimSuffix(what, ".") + ". " + then
}
