package magics

import (
	"embed"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

//go:embed help/*.md
var helpTexts embed.FS

// Help returns the text that 'NAME --help' and '%NAME?' show: synopsis, what it
// does, its flags.
func (m *Magic) Help() string {
	var b strings.Builder
	for _, prompt := range m.prompts() {
		fmt.Fprintf(&b, "  %s\n", m.Usage(prompt))
	}
	fmt.Fprintf(&b, "\n%s.\n", m.Short)
	if long, err := helpTexts.ReadFile("help/" + m.Name + ".md"); err == nil {
		fmt.Fprintf(&b, "\n%s", long)
	}
	fs := pflag.NewFlagSet(m.Name, pflag.ContinueOnError)
	fs.SortFlags = false
	m.Bind(fs)
	if fs.HasFlags() {
		fmt.Fprintf(&b, "\nFlags:\n%s", fs.FlagUsages())
	}
	return b.String()
}

// prompts returns what goes before the names of m, wherever it can be typed.
func (m *Magic) prompts() []string {
	p := m.notebookPrompts()
	if m.Verb != "" {
		p = append(p, "outlast ")
	}
	return p
}

func (m *Magic) notebookPrompts() []string {
	var p []string
	if m.Cell {
		p = append(p, "%%")
	}
	if m.Line {
		p = append(p, "%")
	}
	return p
}
