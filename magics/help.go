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
		fmt.Fprintf(&b, "\nFlags:\n%s", flagTable(fs))
	}
	return b.String()
}

// helpWidth is that of a help text, in characters.
const helpWidth = 100

// flagTable lists the flags of fs with what they take and what they are without
// being given.
func flagTable(fs *pflag.FlagSet) string {
	type line struct{ flag, usage string }
	var lines []line
	indent := 0
	fs.VisitAll(func(f *pflag.Flag) {
		kind, usage := pflag.UnquoteUsage(f)
		flag := "      --" + f.Name
		if f.Shorthand != "" {
			flag = "  -" + f.Shorthand + ", --" + f.Name
		}
		switch f.Value.Type() {
		case "bool":
			kind = ""
		case "int", "int64", "float64":
			kind = "N"
		case "duration":
			kind = "DURATION"
		}
		if kind != "" {
			flag += " " + kind
		}
		if d := strings.Replace(f.DefValue, "m0s", "m", 1); d != "" && d != "false" && d != "0" && !strings.Contains(usage, "default") {
			usage += " (default " + d + ")"
		}
		lines = append(lines, line{flag, usage})
		indent = max(indent, len(flag)+3)
	})
	var b strings.Builder
	for _, l := range lines {
		usage := wrap(l.usage, helpWidth-indent, "")
		fmt.Fprintf(&b, "%-*s%s\n", indent, l.flag, strings.Join(usage, "\n"+strings.Repeat(" ", indent)))
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
