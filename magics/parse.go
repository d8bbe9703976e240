package magics

import (
	"strings"

	"github.com/kballard/go-shellquote"
)

// An Invocation is one magic at the head of a cell.
type Invocation struct {
	Name  string
	Args  string // the rest of its line, as typed
	Cell  bool   // %%name
	Help  bool   // %name? or %name --help
	Body  string // %%name: the text below its line
	Lines int    // lines of the cell up to and with this magic
}

// Words splits the arguments as a POSIX shell would, without expanding
// anything.
func (i Invocation) Words() ([]string, error) { return shellquote.Split(i.Args) }

// Split returns the magics that lead code and belong to s, and how many lines
// they take. Blank lines and comments may stand before and between them: Colab
// puts '#@title' first. Line magics may follow one another; %%name ends the
// search, and takes the whole cell if the magic takes a body.
//
// What is not ours is left alone: a cell that begins with any other text, or
// with a magic that is not in s, has no lines of ours.
func (s Set) Split(code string) ([]Invocation, int) {
	lines := strings.SplitAfter(code, "\n")
	var found []Invocation
	taken := 0
	for i := 0; i < len(lines); {
		text := strings.TrimSpace(lines[i])
		if text == "" || strings.HasPrefix(text, "#") {
			i++
			continue
		}
		inv, used, ok := s.invocation(lines[i:])
		if !ok {
			break
		}
		i += used
		taken, inv.Lines = i, i
		if !inv.Cell {
			found = append(found, inv)
			continue
		}
		if len(found) > 0 {
			break // IPython wants %%name first, and so do we
		}
		inv.Body = strings.Join(lines[i:], "")
		if m := s.Lookup(inv.Name); m.Body || inv.Help {
			inv.Lines = countLines(code)
		}
		return []Invocation{inv}, inv.Lines
	}
	if len(found) == 0 {
		return nil, 0
	}
	return found, min(taken, found[len(found)-1].Lines)
}

// invocation reads one magic from the head of lines. A line magic goes on over
// lines that end in a backslash, as IPython's do.
func (s Set) invocation(lines []string) (Invocation, int, bool) {
	text := strings.TrimRight(lines[0], "\r\n")
	if !strings.HasPrefix(text, "%") { // an indented one is Python's
		return Invocation{}, 0, false
	}
	inv := Invocation{}
	rest := strings.TrimPrefix(text, "%")
	if strings.HasPrefix(rest, "%") {
		inv.Cell, rest = true, rest[1:]
	}
	used := 1
	for !inv.Cell && strings.HasSuffix(rest, "\\") && used < len(lines) {
		rest = strings.TrimSuffix(rest, "\\") + " " + strings.TrimSpace(lines[used])
		used++
	}
	name, args, _ := strings.Cut(strings.TrimSpace(strings.ReplaceAll(rest, "\t", " ")), " ")
	if bare := strings.TrimRight(name, "?"); bare != name && args == "" {
		name, inv.Help = bare, true
	}
	switch strings.TrimSpace(args) {
	case "--help", "-h": // also of a magic that is of the other kind: %shared --help
		inv.Help = true
	}
	m := s.Lookup(name)
	if m == nil || (!inv.Help && inv.Cell != m.Cell && inv.Cell != !m.Line) {
		return Invocation{}, 0, false
	}
	inv.Name, inv.Args = name, strings.TrimSpace(args)
	return inv, used, true
}

// countLines returns the number of lines of s; a trailing newline does not
// begin another one.
func countLines(s string) int {
	n := strings.Count(s, "\n")
	if !strings.HasSuffix(s, "\n") && s != "" {
		n++
	}
	return n
}
