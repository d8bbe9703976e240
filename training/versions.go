package training

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"outlast/checkpoint/durable"
)

// Names in a plan's versions that are no library's.
const (
	VersionOutlast  = "outlast"
	versionProtocol = "protocol"
	versionPython   = "python"
)

// maxVersions is how many versions a worker may tell.
const maxVersions = 32

// A Toucher is a Vault that sends files of the run to its store as they are now,
// soon, without being waited for.
type Toucher interface {
	Touch(names ...string)
}

// withVersions returns the versions of a run with a new plan: those of before, as
// far as nobody knows better.
func withVersions(old *Run, p *Plan) map[string]string {
	all := map[string]string{}
	if old != nil {
		maps.Copy(all, old.plan.Versions)
	}
	maps.Copy(all, p.Versions)
	all[versionProtocol] = strconv.Itoa(ProtocolVersion)
	return all
}

// versions are those that run.json says, and what the workers of this supervisor
// have said.
type versions struct {
	mu    sync.Mutex
	now   map[string]string
	seen  map[string]bool
	dirty bool
}

// learn takes over what the first worker says that knows, and reports whether
// run.json does not have all of it. The caller has mu.
func (v *versions) learn(was, told map[string]string) bool {
	if v.now == nil {
		v.now, v.seen = map[string]string{}, map[string]bool{}
		maps.Copy(v.now, was)
	}
	for name, version := range told {
		if version == "" || v.seen[name] || len(v.seen) >= maxVersions {
			continue
		}
		v.seen[name] = true
		if v.now[name] != version {
			v.now[name] = version
			v.dirty = true
		}
	}
	return v.dirty
}

// keepVersions writes to run.json, and to the store, what computes this run.
// Training does not depend on it.
func (s *Supervisor) keepVersions(told map[string]string) error {
	v := &s.versions
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.learn(s.Run.plan.Versions, told) {
		return nil
	}
	file := s.Run.file() // others read the run's own plan
	file.Versions = v.now
	if err := durable.WriteJSON(s.Run.path(runFileName), file); err != nil {
		return fmt.Errorf("write versions: %w", err)
	}
	v.dirty = false
	if t, ok := s.Vault.(Toucher); ok {
		t.Touch(runFileName)
	}
	return nil
}

// versions keeps what a worker says of its libraries, and tells the user if they
// are not those that the model was begun with.
func (a *attempt) versions(ctx context.Context, e Event) {
	told := map[string]string{versionPython: a.python}
	maps.Copy(told, e.Versions)
	if err := a.s.keepVersions(told); err != nil {
		a.s.Log.WarnContext(ctx, "versions not kept", "model", a.model.Name, "error", err)
	}
	if e.Step == 0 || a.from.Generation == a.s.generation {
		return
	}
	var before, now []string
	for _, name := range slices.Sorted(maps.Keys(e.Versions)) {
		if was := a.s.Run.plan.Versions[name]; was != "" && was != e.Versions[name] {
			before, now = append(before, name+" "+was), append(now, name+" "+e.Versions[name])
		}
	}
	if len(now) > 0 {
		a.s.note(a.model.Name, fmt.Sprintf("%s: trained with %s before, and goes on with %s from step %d: its result is as good, but not the same to the last bit.",
			a.model.Name, strings.Join(before, ", "), strings.Join(now, ", "), e.Step))
	}
}
