package main

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"

	"outlast/gpu"
	"outlast/magics"
	"outlast/training"
)

func TestExitStatuses(t *testing.T) {
	other := errors.New("something else")
	failed := &magics.Problem{What: "run x", Err: magics.ErrModelsFailed}
	paused := &magics.Problem{What: "run x", Err: magics.ErrPaused}
	for name, c := range map[string]struct {
		verb string
		err  error
		want int
	}{
		"all done":                         {"train", nil, exitOK},
		"a model failed":                   {"train", &magics.WorkError{Err: failed}, exitFailed},
		"a model of a watched run failed":  {"attach", failed, exitFailed},
		"paused":                           {"resume", &magics.WorkError{Err: paused}, exitPaused},
		"a watched run was paused":         {"attach", paused, exitPaused},
		"how the work ended is not known":  {"resume", &magics.WorkError{Err: other}, exitFailed},
		"whatever comes before the work":   {"train", other, exitUsage},
		"the same of resume":               {"resume", fmt.Errorf("restore: %w", other), exitUsage},
		"a driver that does not answer":    {"train", &gpu.DriverError{Err: other}, exitUsage},
		"interrupted before the work":      {"resume", fmt.Errorf("restore: %w", context.Canceled), exitFailed},
		"called the wrong way":             {"status", usage("status", "no"), exitUsage},
		"something else of another verb":   {"status", other, exitFailed},
		"a driver that gpu gets no answer": {"gpu", &gpu.DriverError{Err: other}, exitFailed},
		"a named program that is none":     {"gpu", &gpu.DriverError{Err: &gpu.ProgramError{Path: "/nope", Err: other}}, exitUsage},
		"a run that is not there":          {"status", &training.RunError{Run: "x", Problem: "no"}, exitUsage},
		"a store that cannot be opened":    {"store", &storeAccessError{other}, exitUsage},
		"a store that is damaged":          {"store", &storeError{"verify", other, ""}, exitFailed},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, c.want, exitOf(c.verb, c.err)) })
	}
}
