//go:build !linux

package training

import (
	"errors"
	"os"
)

// openShelf returns an error: other systems have no folder in memory.
func openShelf(string) (dir string, held *os.File, err error) {
	return "", nil, errors.ErrUnsupported
}

func sweepShelves(string) {}
