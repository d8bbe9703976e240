//go:build !linux

package durable

import "os"

// A bypass writes to a file; only on Linux there is a way past the page cache.
type bypass struct{ f *os.File }

// Write implements io.Writer.
func (b *bypass) Write(p []byte) (int, error) { return b.f.Write(p) }

func newBlock() []byte { return make([]byte, largeBlock) }
