//go:build !unix

package install

import "os"

// owned reports whether path is this user's, as far as can be told.
func owned(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
