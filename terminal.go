package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/term"

	"outlast/magics"
)

// terminal shows views as text. Where the output is no terminal, a live view
// becomes a log: what is new is written as lines, and the whole at its end.
type terminal struct {
	mu   sync.Mutex
	out  io.Writer
	fd   int  // of the terminal; -1 if out is none
	once bool // what is written stays: nothing can be drawn over
}

func newTerminal(out io.Writer) *terminal {
	t := &terminal{out: out, fd: -1}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		t.fd = int(f.Fd())
	}
	return t
}

// size returns how many characters and lines the terminal shows; 0 if it is
// none, or does not say.
func (t *terminal) size() (width, height int) {
	if t.fd < 0 {
		return 0, 0
	}
	width, height, err := term.GetSize(t.fd)
	if err != nil {
		return 0, 0
	}
	return width, height
}

// Show implements magics.Screen. It may be longer than the screen, for that is
// scrolled, but not wider.
func (t *terminal) Show(v magics.View) {
	t.mu.Lock()
	defer t.mu.Unlock()
	width, _ := t.size()
	fmt.Fprintln(t.out, fit(v, width))
}

// fit returns the text of v for a width in characters; 0 if nobody knows it.
func fit(v magics.View, width int) string {
	if width > 0 && v.Fit != nil {
		return v.Fit(width, 0)
	}
	return v.Text
}

// Live implements magics.Screen.
func (t *terminal) Live() magics.Live { return &liveText{terminal: t} }

// liveText is one view on a terminal, drawn over itself.
type liveText struct {
	*terminal
	drawn  []string // on the screen
	text   string
	logged map[string]bool
}

// Update implements magics.Live.
func (l *liveText) Update(v magics.View) {
	l.mu.Lock()
	defer l.mu.Unlock()
	width, rows := l.size()
	if l.fd < 0 || l.once {
		l.log(v, width)
		return
	}
	text := v.Text
	switch {
	case v.Fit != nil && v.Final:
		text = v.Fit(width, 0) // it stays, and may be scrolled to
	case v.Fit != nil:
		text = v.Fit(width, max(rows-1, 0)) // the cursor stands below it
	}
	if text == l.text {
		return
	}
	lines := strings.Split(text, "\n")
	if !v.Final {
		lines = fitted(lines, width, rows)
	}
	var b strings.Builder
	if up := height(l.drawn, width); up > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\r\x1b[J", up) // to the first line, clear below
	}
	for _, line := range lines {
		b.WriteString(line + "\n")
	}
	l.drawn, l.text = lines, text
	io.WriteString(l.out, b.String()) //nolint:errcheck // a terminal that is gone cannot be told
}

// log writes what is new in v.
func (l *liveText) log(v magics.View, width int) {
	if v.Log == nil || v.Final {
		if v.Text != l.text {
			fmt.Fprintln(l.out, fit(v, width))
		}
		l.text = v.Text
		return
	}
	logged := map[string]bool{}
	for _, line := range v.Log() {
		if !l.logged[line] {
			fmt.Fprintln(l.out, line)
		}
		logged[line] = true
	}
	l.logged = logged
}

// height returns how many lines a terminal of that width takes for lines: one
// that has become narrower has wrapped them.
func height(lines []string, width int) int {
	n := len(lines)
	for _, line := range lines {
		if length := utf8.RuneCountInString(line); width > 0 && length > width {
			n += (length - 1) / width
		}
	}
	return n
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
