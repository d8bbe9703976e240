//go:build !linux

package checkpoint_test

// play is what a process of the crash tests does: those are for Linux, where one
// process can follow each step of another.
func play(string, string) {}
