package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/term"

	"outlast/magics"
)

// terminal shows views as text. Where the output is no terminal, a live view
// becomes a log: it is written again only when it has news.
type terminal struct {
	mu  sync.Mutex
	out io.Writer
	fd  int // of the terminal; -1 if out is none
}

func newTerminal(out io.Writer) *terminal {
	t := &terminal{out: out, fd: -1}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		t.fd = int(f.Fd())
	}
	return t
}

// Show implements magics.Screen.
func (t *terminal) Show(v magics.View) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintln(t.out, v.Text)
}

// Live implements magics.Screen.
func (t *terminal) Live() magics.Live { return &liveText{terminal: t} }

// liveText is one view on a terminal, drawn over itself.
type liveText struct {
	*terminal
	drawn int // lines on the screen
	text  string
	key   string
}

// Update implements magics.Live.
func (l *liveText) Update(v magics.View) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if v.Text == l.text || l.fd < 0 && v.Key == l.key && l.text != "" {
		return
	}
	l.text, l.key = v.Text, v.Key
	if l.fd < 0 {
		fmt.Fprintln(l.out, v.Text)
		return
	}
	lines := strings.Split(v.Text, "\n")
	width, height, err := term.GetSize(l.fd)
	if err == nil {
		lines = fitted(lines, width, height)
	}
	var b strings.Builder
	if l.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\x1b[J", l.drawn) // up to the first line, clear below
	}
	for _, line := range lines {
		b.WriteString(line + "\n")
	}
	l.drawn = len(lines)
	io.WriteString(l.out, b.String()) //nolint:errcheck // a terminal that is gone cannot be told
}

// fitted cuts lines to what the terminal can show without wrapping or
// scrolling: going up again counts lines on the screen.
func fitted(lines []string, width, height int) []string {
	if len(lines) > height-1 && height > 2 {
		lines = append(lines[:height-2:height-2], "…")
	}
	cut := make([]string, len(lines))
	for i, line := range lines {
		runes := []rune(line)
		if len(runes) > width && width > 1 {
			runes = append(runes[:width-1:width-1], '…')
		}
		cut[i] = string(runes)
	}
	return cut
}
