package magics

import "slices"

// A Set is the magics that exist, in the order in which people read of them.
type Set []*Magic

// All returns every magic, connected to d. A new magic is one file and one line
// here.
func All(d *Deps) Set {
	return Set{
		Keepalive(d),
		GPUConfig(d),
		Drive(d),
		Shared(d),
		Train(d),
		Resume(d),
		Status(d),
		Attach(d),
		Logs(d),
		Stop(d),
		Results(d),
		Replay(d),
		Doctor(d),
		Outlast(d),
	}
}

// Wake tells every magic that the kernel begins.
func (s Set) Wake(working func(on bool)) {
	for _, m := range s {
		if m.Wake != nil {
			m.Wake(working)
		}
	}
}

// Lookup returns the magic called name, or nil.
func (s Set) Lookup(name string) *Magic {
	i := slices.IndexFunc(s, func(m *Magic) bool { return m.Name == name })
	if i < 0 {
		return nil
	}
	return s[i]
}
