package magics

import (
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

const (
	columnGap = 2
	barWidth  = 12 // of a bar, in characters
	minRows   = 3  // that stay, however low the terminal is
	preIndent = "  │ "
	headLines = 2  // of a table: the head and the rule below it
	minFolded = 12 // of a column whose texts are broken into lines, in characters
)

// text draws s for a width in characters and a height in lines; 0 is no limit.
func (s sheet) text(width, height int) string {
	var lines []string
	if s.Title != "" {
		lines = wrap(s.Title, width, "  ")
	}
	notes := s.textNotes(width)
	if room := height - len(lines) - headLines; height > 0 && len(s.Rows) > 0 {
		if room = max(room-len(notes), minRows); len(s.Rows) > room {
			s = s.fold(max(room-1, minRows)) // a line says that there are more
		}
	}
	if len(s.Rows) > 0 {
		lines = append(lines, s.table(width)...)
	}
	if more := s.more(); more != "" {
		lines = append(lines, more)
	}
	if left := height - len(lines); height > 0 && len(notes) > left {
		notes = append(notes[:max(left-1, 0):max(left-1, 0)], "…")
	}
	return strings.Join(append(lines, notes...), "\n")
}

// table draws the rows, with as many columns as there is room for.
func (s sheet) table(width int) []string {
	shown := s.fitting(width)
	w := table.NewWriter()
	style := sheetStyle()
	w.SetStyle(style)
	w.SuppressTrailingSpaces()
	var columns []table.ColumnConfig
	head := table.Row{}
	for i, c := range shown {
		head = append(head, s.Columns[c].Head)
		config := table.ColumnConfig{Number: i + 1, WidthMin: s.Columns[c].Width}
		if s.Columns[c].Right {
			config.Align, config.AlignHeader = text.AlignRight, text.AlignRight
		}
		columns = append(columns, config)
	}
	w.AppendHeader(head)
	w.SetColumnConfigs(columns)
	folded, room := s.folded(shown, width)
	for _, r := range s.Rows {
		row := table.Row{}
		for _, c := range shown {
			t := r.Cells[c].text()
			if c == folded {
				t = strings.Join(wrap(t, room, ""), "\n")
			}
			row = append(row, t)
		}
		w.AppendRow(row)
	}
	lines := strings.Split(w.Render(), "\n")
	lines[1] = strings.TrimSuffix(lines[1], strings.Repeat(style.Box.MiddleHorizontal, columnGap)) // not below the last gap
	return lines
}

// fitting returns the columns that fit into width: those with the highest rank
// go first. Columns without any content are not shown unless
// they are to be kept.
func (s sheet) fitting(width int) []int {
	var shown []int
	size := make([]int, len(s.Columns))
	total := 0
	for i, c := range s.Columns {
		empty := !c.Keep
		size[i] = s.size(i)
		for _, r := range s.Rows {
			empty = empty && r.Cells[i].text() == ""
		}
		if !empty {
			shown = append(shown, i)
			total += size[i] + columnGap
		}
	}
	for width > 0 && total-columnGap > width {
		worst := 0
		for i, c := range shown {
			if s.Columns[c].Rank > s.Columns[shown[worst]].Rank {
				worst = i
			}
		}
		if s.Columns[shown[worst]].Rank == 0 {
			break // the rest is needed; a terminal cuts it
		}
		total -= size[shown[worst]] + columnGap
		shown = append(shown[:worst:worst], shown[worst+1:]...)
	}
	return shown
}

// folded returns the column of texts that is broken into lines because what is
// shown is wider than width, and how wide it may be; -1 if nothing has to be.
func (s sheet) folded(shown []int, width int) (index, room int) {
	index, total, widest := -1, -columnGap, 0
	for _, c := range shown {
		size := s.size(c)
		total += size + columnGap
		if !s.Columns[c].Right && size > widest {
			index, widest = c, size
		}
	}
	if width <= 0 || total <= width || index < 0 {
		return -1, 0
	}
	return index, max(widest-(total-width), minFolded)
}

// size returns how many characters wide a column is.
func (s sheet) size(c int) int {
	size := max(s.Columns[c].Width, text.StringWidthWithoutEscSequences(s.Columns[c].Head))
	for _, r := range s.Rows {
		size = max(size, text.StringWidthWithoutEscSequences(r.Cells[c].text()))
	}
	return size
}

func (s sheet) textNotes(width int) []string {
	var lines []string
	for _, n := range s.Notes {
		lines = append(lines, wrap(n.Text, width, "  ")...)
		for _, p := range n.Pre {
			lines = append(lines, preIndent+p)
		}
		if n.More != "" {
			lines = append(lines, preIndent+n.More)
		}
	}
	if len(lines) > 0 && len(s.Rows) > 0 {
		lines = append([]string{""}, lines...)
	}
	return lines
}

// wrap breaks a text into lines of at most width characters, at spaces, and
// begins all but the first with indent. A word that is longer stays whole:
// paths are there to be copied.
func wrap(s string, width int, indent string) []string {
	if width <= 0 || text.StringWidthWithoutEscSequences(s) <= width {
		return []string{s}
	}
	lead := s[:len(s)-len(strings.TrimLeft(s, " "))]
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(s) {
		switch {
		case line == "":
			line = lead + word
		case text.StringWidthWithoutEscSequences(line+" "+word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = lead + indent + word
		}
	}
	return append(lines, line)
}

// sheetStyle is quiet: a rule below the head, two spaces between columns.
func sheetStyle() table.Style {
	style := table.StyleLight
	style.Options = table.Options{SeparateHeader: true}
	style.Box.PaddingLeft, style.Box.PaddingRight = "", strings.Repeat(" ", columnGap)
	style.Format.Header = text.FormatDefault
	return style
}

func (c sheetCell) text() string {
	switch {
	case c.Bar != nil:
		return textBar(*c.Bar, barWidth)
	case len(c.Trend) > 0:
		return sparkline(c.Trend)
	}
	return c.Text
}

// textBar draws a share as blocks, in eighths of a character.
func textBar(share float64, width int) string {
	eighths := int(clamp(share)*float64(width)*8 + 0.5)
	full, part := eighths/8, eighths%8
	bar := strings.Repeat("█", full)
	if part > 0 {
		bar += string([]rune("▏▎▍▌▋▊▉")[part-1])
		full++
	}
	return bar + strings.Repeat("░", width-full)
}

func clamp(share float64) float64 {
	if !(share > 0) { // not a number is nothing done
		return 0
	}
	return min(share, 1)
}
