package kernel

import (
	"io"
	"strings"
	"sync"
)

// tailSize is how much of the child's stderr is kept to explain its end, in
// bytes.
const tailSize = 4 << 10

// A tail passes on what is written to it and keeps the last of it.
type tail struct {
	to io.Writer

	mu   sync.Mutex
	last []byte
}

// Write implements io.Writer. That nobody takes the text is no error: the child
// must not end by it.
func (t *tail) Write(p []byte) (int, error) {
	t.to.Write(p) //nolint:errcheck // see above
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, p...)
	if over := len(t.last) - tailSize; over > 0 {
		t.last = t.last[over:]
	}
	return len(p), nil
}

// String returns what is kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.last))
}
