package kernel_test

import "runtime"

// stack writes the stacks of all goroutines to buf.
func stack(buf []byte) int { return runtime.Stack(buf, true) }
