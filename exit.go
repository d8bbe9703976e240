package main

import (
	"context"
	"errors"

	"outlast/gpu"
	"outlast/magics"
	"outlast/training"
)

// Exit statuses, as the manual lists them.
const (
	exitOK     = 0
	exitFailed = 1 // ended with a failed model, or an error while working
	exitUsage  = 2 // usage or configuration; nothing was worked on
	exitPaused = 3 // resume continues
)

// exitOf returns the status that the error of a command means.
//
// Scripts that train ask for it: 1 is for a run that was worked on, and what ends
// train and resume before a supervisor works is 2, whatever it is. An interrupt is
// no mistake.
func exitOf(verb string, err error) int {
	var usage *magics.UsageError
	var worked *magics.WorkError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, magics.ErrPaused):
		return exitPaused
	case errors.Is(err, magics.ErrModelsFailed), errors.As(err, &worked), errors.Is(err, context.Canceled):
		return exitFailed
	case verb == "train", verb == "resume", isConfiguration(err):
		return exitUsage
	}
	return exitFailed
}

// A storeAccessError says that a store cannot be opened as it is named or as this
// machine is set up. Opening asks no store anything.
type storeAccessError struct{ error }

// Unwrap returns the reason, which knows what to do.
func (e *storeAccessError) Unwrap() error { return e.error }

// isConfiguration reports whether err is something to be put right before
// another try, rather than a failure of the work.
func isConfiguration(err error) bool {
	var plan *training.PlanError
	var run *training.RunError
	var choice *gpu.ChoiceError
	var named *gpu.ProgramError
	var store *storeAccessError
	var problem *magics.Problem
	return errors.As(err, &plan) || errors.As(err, &run) || errors.As(err, &choice) || errors.As(err, &named) ||
		errors.As(err, &store) || errors.As(err, &problem)
}
