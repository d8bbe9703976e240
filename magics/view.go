package magics

import (
	"fmt"
	"html/template"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// A grid is a table before it is drawn: every output is made of it, so that the
// text and the HTML form cannot say different things.
type grid struct {
	Title  string
	Header []string
	Rows   [][]string
	Right  []bool   // columns that hold numbers
	Notes  []string // below the table, one line each
}

// view draws g in both forms.
func (g grid) view() View { return View{Text: g.text(), HTML: g.html()} }

func (g grid) text() string {
	w := table.NewWriter()
	w.SetStyle(gridStyle())
	w.AppendHeader(row(g.Header))
	for _, r := range g.Rows {
		w.AppendRow(row(r))
	}
	var columns []table.ColumnConfig
	for i, right := range g.Right {
		if right {
			columns = append(columns, table.ColumnConfig{Number: i + 1, Align: text.AlignRight, AlignHeader: text.AlignRight})
		}
	}
	w.SetColumnConfigs(columns)
	var b strings.Builder
	if g.Title != "" {
		fmt.Fprintln(&b, g.Title)
	}
	if len(g.Rows) > 0 {
		fmt.Fprintln(&b, w.Render())
	}
	for _, n := range g.Notes {
		fmt.Fprintln(&b, n)
	}
	return strings.TrimRight(b.String(), "\n")
}

// gridStyle is quiet: a rule below the header, two spaces between columns.
func gridStyle() table.Style {
	style := table.StyleLight
	style.Options = table.Options{SeparateHeader: true}
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	style.Format.Header = text.FormatDefault
	return style
}

func row(cells []string) table.Row {
	r := make(table.Row, len(cells))
	for i, c := range cells {
		r[i] = c
	}
	return r
}

// The page's own colours are kept, so that light and dark themes both work.
const gridHTML = `<div style="font-size:0.92em;overflow-x:auto">
{{- if .Title}}<div style="margin:0 0 4px"><b>{{.Title}}</b></div>{{end}}
{{- if .Rows}}<table style="border-collapse:collapse;white-space:nowrap">
<thead><tr>{{range $i, $h := .Header}}<th style="padding:2px 12px 2px 0;text-align:{{align $i}};border-bottom:1px solid currentColor">{{$h}}</th>{{end}}</tr></thead>
<tbody>{{range .Rows}}<tr>{{range $i, $c := .}}<td style="padding:2px 12px 2px 0;text-align:{{align $i}};font-variant-numeric:tabular-nums">{{$c}}</td>{{end}}</tr>{{end}}</tbody>
</table>{{end}}
{{- range .Notes}}<div style="opacity:0.8;white-space:pre-wrap">{{.}}</div>{{end}}</div>`

func (g grid) html() string {
	align := func(column int) string {
		if column < len(g.Right) && g.Right[column] {
			return "right"
		}
		return "left"
	}
	t := template.Must(template.New("grid").Funcs(template.FuncMap{"align": align}).Parse(gridHTML))
	var b strings.Builder
	if err := t.Execute(&b, g); err != nil { // the template is a constant, and every field a string
		return template.HTMLEscapeString(g.text())
	}
	return b.String()
}

// number3 writes a measured value with three or four significant digits.
func number3(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case float64:
		return fmt.Sprintf("%.4g", v)
	}
	return fmt.Sprint(v)
}

// span writes a duration for people: 42 s, 3 min 20 s, 2 h 05 min.
func span(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second)).Round(time.Second)
	switch {
	case seconds < 10:
		return fmt.Sprintf("%.1f s", seconds)
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min %02d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %02d min", int(d.Hours()), int(d.Minutes())%60)
}
