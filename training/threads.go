package training

import (
	"slices"
	"strconv"
	"strings"
)

// threadsVariable is where OpenMP, MKL and OpenBLAS, and with them torch and
// numpy, look for how many threads they may use.
const threadsVariable = "OMP_NUM_THREADS"

// threads returns how many threads the worker may use; 0 leaves that to its code
// and environment.
func (a *attempt) threads() int {
	if a.s.has(threadsVariable) {
		return 0
	}
	return a.model.Threads
}

// has reports whether the user has set a variable for the workers.
func (s *Supervisor) has(name string) bool {
	if _, ok := s.Run.plan.Settings.Env[name]; ok {
		return true
	}
	return slices.ContainsFunc(s.Env, func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
}

// threadLimit is the variable for so many threads; empty for as many as the code
// likes.
func threadLimit(threads int) []string {
	if threads == 0 {
		return nil
	}
	return []string{threadsVariable + "=" + strconv.Itoa(threads)}
}

// sharing returns what keeps libraries that would take the whole device to the
// worker's part of it. Torch is told by its job.
func (a *attempt) sharing() map[string]string {
	vars := map[string]string{}
	if a.seat.fraction <= 0 {
		return vars
	}
	part := strconv.FormatFloat(a.seat.fraction, 'f', 4, 64)
	for name, value := range map[string]string{
		"XLA_CLIENT_MEM_FRACTION":        part, // JAX, by its new name and its old one
		"XLA_PYTHON_CLIENT_MEM_FRACTION": part,
		"TF_FORCE_GPU_ALLOW_GROWTH":      "true",
	} {
		if !a.s.has(name) {
			vars[name] = value
		}
	}
	return vars
}
