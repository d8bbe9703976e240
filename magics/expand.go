package magics

import (
	"errors"
	"strings"
)

// dash is what separates a command from what is the magic's own. Names in braces
// behind it are filled in for each model.
const dash = "--"

// Expand fills in {expressions} and $names in the arguments of a line magic, as
// IPython does for its own. ask is given the pieces that may mean something, and
// returns what stands for each; it is not called if there are none. What follows
// " -- " is not touched.
func (i *Invocation) Expand(ask func(pieces []string) ([]string, error)) error {
	own, command := cutCommand(i.Args)
	if !strings.ContainsAny(own, "{$") {
		return nil
	}
	texts, marked := pieces(own)
	var asked []string
	for n, yes := range marked {
		if yes {
			asked = append(asked, texts[n])
		}
	}
	if len(asked) == 0 {
		return nil
	}
	answers, err := ask(asked)
	if err != nil {
		return err
	}
	if len(answers) != len(asked) {
		return errors.New("the notebook answered something else than it was asked")
	}
	for n, yes := range marked {
		if yes {
			texts[n], answers = answers[0], answers[1:]
		}
	}
	i.Args = strings.Join(texts, "") + command
	return nil
}

// cutCommand divides arguments before a "--" that stands alone.
func cutCommand(args string) (own, command string) {
	for at := 0; ; {
		n := strings.Index(args[at:], dash)
		if n < 0 {
			return args, ""
		}
		at += n
		before := at == 0 || args[at-1] == ' ' || args[at-1] == '\t'
		after := at+len(dash) == len(args) || args[at+len(dash)] == ' ' || args[at+len(dash)] == '\t'
		if before && after {
			return args[:at], args[at:]
		}
		at += len(dash)
	}
}

// pieces divides a line into texts, and marks those that may be expanded: braces
// with what is between them, doubled braces and dollars, which stand for single
// ones, and names behind a dollar. Braces without a partner are text.
func pieces(line string) (texts []string, marked []bool) {
	text := 0 // where the present text begins
	cut := func(from, to int) {
		if from > text {
			texts, marked = append(texts, line[text:from]), append(marked, false)
		}
		texts, marked = append(texts, line[from:to]), append(marked, true)
		text = to
	}
	for i := 0; i < len(line); {
		end := pieceAt(line, i)
		if end == i {
			i++
			continue
		}
		cut(i, end)
		i = end
	}
	if text < len(line) {
		texts, marked = append(texts, line[text:]), append(marked, false)
	}
	return texts, marked
}

// pieceAt returns the end of the piece that begins at i; i itself if none does.
func pieceAt(line string, i int) int {
	rest := line[i:]
	for _, double := range []string{"{{", "}}", "$$"} {
		if strings.HasPrefix(rest, double) {
			return i + len(double)
		}
	}
	switch rest[0] {
	case '{':
		depth := 0
		for n, r := range rest {
			switch r {
			case '{':
				depth++
			case '}':
				if depth--; depth == 0 {
					return i + n + 1
				}
			}
		}
	case '$':
		n := 1
		for n < len(rest) && (isLetter(rest[n]) || n > 1 && (rest[n] == '.' || rest[n] >= '0' && rest[n] <= '9')) {
			n++
		}
		if n > 1 {
			return i + n
		}
	}
	return i
}

func isLetter(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
