package magics

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
)

// lineGuess is how long a line of a log is supposed to be, in bytes: so much is
// read for each one that is wanted, and more if they are longer.
const lineGuess = 256

// lastLines returns the last n lines of the file at path without reading all of
// it. What a progress bar drew over itself is left out. A file that cannot be
// read has none.
func lastLines(path string, n int) []string {
	text, _, err := logEnd(path, n)
	if err != nil {
		return nil
	}
	text = strings.TrimRight(text, "\n")
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		line = strings.TrimRight(line, "\r")
		lines[i] = line[strings.LastIndexByte(line, '\r')+1:]
	}
	return lines
}

// logEnd returns the last n lines of the file at path, and the offset behind
// them; 0 is all of it. A file that is not there yet is empty.
func logEnd(path string, n int) (text string, end int64, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", 0, nil
	}
	if err != nil {
		return "", 0, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	end, err = f.Seek(0, io.SeekEnd)
	if err != nil {
		return "", 0, err
	}
	wanted := min(int64(n), end) // a line has a byte at least
	for size := wanted * lineGuess; ; size *= 4 {
		if n == 0 || size > end {
			size = end
		}
		data := make([]byte, size)
		read, err := f.ReadAt(data, end-size)
		if err != nil && !errors.Is(err, io.EOF) {
			return "", 0, err
		}
		text = string(data[:read])
		if n == 0 {
			return text, end, nil
		}
		if start, whole := startOfLast(text, n); whole || size == end {
			return text[start:], end, nil
		}
	}
}

// startOfLast returns where the last n lines of text begin, and whether there
// are so many.
func startOfLast(text string, n int) (start int, whole bool) {
	at := len(strings.TrimSuffix(text, "\n"))
	for range n {
		i := strings.LastIndexByte(text[:at], '\n')
		if i < 0 {
			return 0, false
		}
		at = i
	}
	return at + 1, true
}
