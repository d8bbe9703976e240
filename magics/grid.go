package magics

// A grid is a plain table of texts, for what needs no figures in its cells.
type grid struct {
	Title  string
	Header []string
	Rows   [][]string
	Right  []bool   // columns that hold numbers
	Notes  []string // below the table, one line each
}

// view draws g in both forms.
func (g grid) view() View {
	s := sheet{Title: g.Title}
	for i, head := range g.Header {
		s.Columns = append(s.Columns, column{Head: head, Right: i < len(g.Right) && g.Right[i]})
	}
	for _, texts := range g.Rows {
		s.add(texts...)
	}
	s.say(g.Notes...)
	return s.view()
}
