//go:build !linux

package kernel

// unmapProgram does nothing: only Linux counts the program's file by what was
// ever touched of it.
func unmapProgram() {}
