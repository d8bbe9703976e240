package magics

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A sheet is a table before it is drawn: every output is made of it, so that the
// text and the HTML form cannot say different things.
type sheet struct {
	Title   string
	Share   *float64 // of the whole that has ended, 0 to 1; nil: no bar
	Tone    tone     // of that bar
	Columns []column
	Rows    []sheetRow
	Hidden  map[string]int // rows that are not there, by kind
	Notes   []note         // below the table
}

// A column is one column of a sheet.
type column struct {
	Head  string
	Right bool // holds numbers
	Rank  int  // where room is short the highest go first; 0 stays
	Width int  // at least so many characters, so that a live view stands still
	Keep  bool // shown even without content
}

// A sheetRow is one row, with as many cells as the sheet has columns.
type sheetRow struct {
	Cells []sheetCell
	Kind  string // what is counted if it is left out
	Need  int    // where room is short those with a low one stay
	Tone  tone
}

// A sheetCell is one cell: a text, or a figure drawn from numbers.
type sheetCell struct {
	Text  string
	Bar   *float64  // a share, drawn as a bar
	Trend []float64 // values, drawn as a small curve
	Tone  tone
}

// A note is a line below the table, with lines of verbatim text below it, and
// where there is more of them.
type note struct {
	Text string
	Pre  []string
	More string
	Tone tone
}

// A tone says what something means for the reader. Signs and words say it too:
// colour is never the only one.
type tone int

const (
	tonePlain tone = iota
	toneQuiet      // not yet of interest
	toneBusy
	toneGood
	toneWarn
	toneBad
)

// Where text is shown, and how large it is, is not known in a notebook.
const (
	textWidth = 120
	maxRows   = 60
)

// view draws s in all its forms.
func (s sheet) view() View { return s.viewOf(maxRows) }

// viewOf draws s in all its forms, of which only a small screen leaves out more
// than to show so many rows.
func (s sheet) viewOf(rows int) View {
	folded := s.fold(rows)
	return View{
		Text: folded.text(textWidth, 0),
		HTML: folded.html(),
		Fit:  folded.text,
	}
}

// add appends a row of plain texts.
func (s *sheet) add(texts ...string) {
	row := sheetRow{}
	for _, t := range texts {
		row.Cells = append(row.Cells, sheetCell{Text: t})
	}
	s.Rows = append(s.Rows, row)
}

// say appends notes.
func (s *sheet) say(texts ...string) {
	for _, t := range texts {
		s.Notes = append(s.Notes, note{Text: t})
	}
}

// fold leaves rows out until room is enough for what remains, those that the
// reader needs least first, and of equals the later ones.
func (s sheet) fold(room int) sheet {
	if len(s.Rows) <= room {
		return s
	}
	order := make([]int, len(s.Rows))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(s.Rows[a].Need, s.Rows[b].Need) })
	stay := order[:max(room, 0)]
	slices.Sort(stay)
	hidden := maps.Clone(s.Hidden)
	if hidden == nil {
		hidden = map[string]int{}
	}
	for _, r := range s.Rows {
		hidden[r.Kind]++
	}
	var rows []sheetRow
	for _, i := range stay {
		rows = append(rows, s.Rows[i])
		hidden[s.Rows[i].Kind]--
	}
	s.Rows, s.Hidden = rows, hidden
	return s
}

// more says which rows are not there, the most frequent kind first.
func (s sheet) more() string {
	total := 0
	var kinds []string
	for kind, n := range s.Hidden {
		if n > 0 {
			total += n
			kinds = append(kinds, kind)
		}
	}
	if total == 0 {
		return ""
	}
	slices.SortFunc(kinds, func(a, b string) int {
		return cmp.Or(cmp.Compare(s.Hidden[b], s.Hidden[a]), strings.Compare(a, b))
	})
	for i, kind := range kinds {
		kinds[i] = strings.TrimSpace(fmt.Sprintf("%d %s", s.Hidden[kind], kind))
	}
	return fmt.Sprintf("… and %d more: %s", total, strings.Join(kinds, ", "))
}
