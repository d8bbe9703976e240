package magics

import "testing"

// Golden is golden, for tests outside the package: the flag that rewrites the
// files exists once.
func Golden(t *testing.T, name, got string) {
	t.Helper()
	golden(t, name, got)
}
