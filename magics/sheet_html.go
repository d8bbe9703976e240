package magics

import (
	"cmp"
	"fmt"
	"html/template"
	"strings"
	"unicode/utf8"
)

// sheetHTML takes the page's own colour for text and mixes greys from it, so that
// it is at home in light and dark themes. Styles are inline: a style sheet in an
// output would be the whole page's, and is removed from notebooks that are not
// trusted. Backgrounds are reset, because notebook pages stripe their tables.
// Narrow pages and paper get less space between columns, and shorter bars. Where
// drawings are taken out, as on GitHub, their titles stay as text.
const sheetHTML = `<div style="font-size:13px;line-height:1.5;overflow-x:auto;padding:2px 0">
{{- if .Title}}<div style="margin:0 0 6px">{{title .Title}}</div>{{end}}
{{- with .Share}}<div style="height:4px;max-width:640px;margin:0 0 8px;border-radius:2px;background:rgba(128,128,128,.25)"><div style="height:4px;border-radius:2px;width:{{percent .}}%;background:{{$.Accent}}"></div></div>{{end}}
{{- if .Rows}}<table style="border-collapse:collapse;margin:0 0 6px;border:none;color:inherit;font-size:clamp(11px,1.5vw,13px)">
<thead><tr style="background:none">{{range .Columns}}<th style="min-width:min({{.Width}}ch,8vw);padding:2px clamp(6px,.7vw,12px) 3px 0;white-space:nowrap;text-align:{{align .}};font-weight:500;border:none;border-bottom:1px solid rgba(128,128,128,.5)"><span style="opacity:.7">{{.Head}}</span></th>{{end}}</tr></thead>
<tbody>{{range .Rows}}<tr style="background:none">{{range .Cells}}<td style="padding:2px clamp(6px,.7vw,12px) 2px 0;white-space:{{.Space}};text-align:{{.Align}};border:none;font-variant-numeric:tabular-nums">{{.Body}}</td>{{end}}</tr>
{{end}}</tbody></table>{{end}}
{{- with .More}}<div style="opacity:.7;margin:0 0 4px">{{.}}</div>{{end}}
{{- range .Notes}}<div style="{{style .Tone}};white-space:pre-wrap;max-width:100ch">{{.Text}}</div>
{{- if .Pre}}<pre style="margin:4px 0 8px;padding:4px 0 4px 10px;border:none;border-left:3px solid rgba(128,128,128,.4);background:none;color:inherit;font-size:12px;line-height:1.4;white-space:pre-wrap">{{join .Pre}}</pre>{{end}}
{{- with .More}}<div style="opacity:.7;margin:0 0 6px">{{.}}</div>{{end}}{{end}}</div>`

// Colours that have a contrast of at least 3 on white and on near-black alike.
func (t tone) colour() string {
	switch t {
	case toneBusy:
		return "#3b82c4"
	case toneGood:
		return "#2f9e5f"
	case toneWarn:
		return "#b7791f"
	case toneBad:
		return "#d9534f"
	case tonePlain, toneQuiet:
	}
	return ""
}

// htmlCell is a cell on its way into the page.
type htmlCell struct {
	Align string
	Space string // of CSS: whether it may be broken into lines
	Body  template.HTML
}

// longText is from how many characters on a cell may be broken into lines.
const longText = 40

// space says whether a text may be broken into lines where the page is narrow. A
// name may not, although it may have hyphens.
func space(text string) string {
	if strings.Contains(text, ", ") || utf8.RuneCountInString(text) >= longText {
		return "normal"
	}
	return "nowrap"
}

// html draws s for a page.
func (s sheet) html() string {
	shown := s.fitting(0)
	page := struct {
		Title, More string
		Share       *float64
		Accent      template.CSS
		Columns     []column
		Rows        []struct{ Cells []htmlCell }
		Notes       []note
	}{Title: s.Title, More: s.more(), Share: s.Share, Accent: template.CSS(s.Tone.colour()), Notes: s.Notes}
	for _, c := range shown {
		page.Columns = append(page.Columns, s.Columns[c])
	}
	for _, r := range s.Rows {
		var cells []htmlCell
		for _, c := range shown {
			cells = append(cells, htmlCell{align(s.Columns[c]), space(r.Cells[c].Text), r.Cells[c].html(r.Tone)})
		}
		page.Rows = append(page.Rows, struct{ Cells []htmlCell }{cells})
	}
	t := template.Must(template.New("sheet").Funcs(template.FuncMap{
		"align":   align,
		"percent": func(share *float64) string { return fmt.Sprintf("%.1f", 100*clamp(*share)) },
		"style":   noteStyle,
		"title":   htmlTitle,
		"join":    func(lines []string) string { return strings.Join(lines, "\n") },
	}).Parse(sheetHTML))
	var b strings.Builder
	if err := t.Execute(&b, page); err != nil { // the template is a constant, and its data plain
		return "<pre>" + template.HTMLEscapeString(s.text(textWidth, 0)) + "</pre>"
	}
	return b.String()
}

func align(c column) string {
	if c.Right {
		return "right"
	}
	return "left"
}

// htmlTitle sets what a title is about, the text before its first colon, apart.
func htmlTitle(title string) template.HTML {
	name, rest, ok := strings.Cut(title, ": ")
	text := "<b>" + template.HTMLEscapeString(name) + "</b>"
	if ok {
		text += ": " + template.HTMLEscapeString(rest)
	}
	return template.HTML(text) //nolint:gosec // escaped above
}

func noteStyle(t tone) template.CSS {
	switch t {
	case toneBad, toneWarn:
		return "font-weight:500"
	case tonePlain, toneQuiet, toneBusy, toneGood:
	}
	return "opacity:.8"
}

// html draws a cell. The tone of its row shows where it has none of its own.
func (c sheetCell) html(row tone) template.HTML {
	body := template.HTMLEscapeString(c.Text)
	switch {
	case c.Bar != nil:
		body = fmt.Sprintf(`<svg width="110" height="8" style="width:clamp(36px,7vw,110px);height:8px;vertical-align:middle" role="img"><title>%.0f %%</title><rect width="100%%" height="8" rx="4" fill="#808080" fill-opacity=".25"/><rect width="%.1f%%" height="8" rx="4" fill="%s"/></svg>`,
			100*clamp(*c.Bar), 100*clamp(*c.Bar), cmp.Or(c.Tone.colour(), "currentColor"))
	case len(c.Trend) > 0:
		body = svgTrend(c.Trend)
	case c.Tone.colour() != "":
		body = fmt.Sprintf(`<span style="color:%s">%s</span>`, c.Tone.colour(), body)
	}
	if row == toneQuiet {
		body = `<span style="opacity:.55">` + body + `</span>`
	}
	return template.HTML(body) //nolint:gosec // escaped above; the rest is ours
}
