package magics

import (
	"bytes"
	"context"
	"fmt"
	"html"
	"image"
	"image/color"
	"image/png"
	"math"
	"regexp"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"

	"outlast/training"
)

// Sizes in points, of which a page shows one as one of its pixels. Two panels are
// as wide as a notebook's page; where it is narrower the page scales the drawing,
// and its texts can still be read at half the size.
const (
	panelWidth  vg.Length = 400
	panelHeight vg.Length = 285
	margin      vg.Length = 8
	nameHeight  vg.Length = 21
	sampleWidth vg.Length = 34 // of a pen, before the model's name
	titleSize             = 16
	textSize              = 14
	// sharpness is how many pixels of the picture are one of the page, for
	// screens that have as many.
	sharpness = 2
)

// ink is the colour of texts and axes. Whether the page is light or dark is not
// known: nothing is drawn behind the plots, and every colour can be told from
// white and from near-black alike.
func ink() color.RGBA { return color.RGBA{0x76, 0x76, 0x76, 255} }

// faint is the colour of what is only a help.
func faint() color.Color { return color.NRGBA{0x80, 0x80, 0x80, 0x38} }

// A figure is the plots of one run.
type figure struct {
	panels  []*plot.Plot
	metrics []string
	models  []string // the best first
	pens    map[string]pen
}

// A pen is how a model's curves are drawn, in all panels alike.
type pen struct {
	colour color.Color
	dashes []vg.Length
	sign   draw.GlyphDrawer // nil: none
	shift  float64          // of its signs along the curve, 0 to 1, so that they do not cover each other
	named  bool
}

// pensFor gives each model a colour, a dash and a sign of its own. The colours
// are near those of Okabe and Ito, made to be told apart by the colour-blind too;
// dashes and signs repeat at other rhythms, so that without any colour no two
// curves look alike.
func pensFor(models []string) map[string]pen {
	colours := penColours()
	dashes := [][]vg.Length{nil, {6, 3}, {2, 2.5}, {8, 2.5, 2, 2.5}}
	signs := []draw.GlyphDrawer{
		draw.CircleGlyph{}, draw.BoxGlyph{}, draw.PyramidGlyph{}, draw.RingGlyph{}, draw.SquareGlyph{}, draw.CrossGlyph{},
	}
	pens := map[string]pen{}
	for i, m := range models {
		if i < namedCurves {
			shift := float64(i) / float64(min(len(models), namedCurves))
			pens[m] = pen{colours[i%len(colours)], dashes[i%len(dashes)], signs[i%len(signs)], shift, true}
		} else {
			pens[m] = pen{colour: color.NRGBA{0x80, 0x80, 0x80, 0x70}}
		}
	}
	return pens
}

func penColours() []color.RGBA {
	return []color.RGBA{
		{0x2F, 0x7F, 0xC1, 255},
		{0xD5, 0x5E, 0x00, 255},
		{0x12, 0x8F, 0x6B, 255},
		{0xB8, 0x5F, 0x9A, 255},
		{0xA8, 0x7A, 0x0C, 255},
		{0x2A, 0x93, 0xA8, 255},
		{0x80, 0x80, 0x80, 255},
	}
}

// signsPerCurve is how often a curve shows its sign.
const signsPerCurve = 4

// draw adds a curve to p.
func (n pen) draw(p *plot.Plot, points plotter.XYs) error {
	line, err := plotter.NewLine(points)
	if err != nil {
		return err
	}
	line.LineStyle = n.line()
	p.Add(line)
	if n.sign == nil {
		return nil
	}
	var at plotter.XYs
	for i := range signsPerCurve {
		at = append(at, points[int((float64(i)+n.shift)*float64(len(points))/signsPerCurve)])
	}
	signs, err := plotter.NewScatter(at)
	if err != nil {
		return err
	}
	signs.GlyphStyle = n.glyph()
	p.Add(signs)
	return nil
}

func (n pen) line() draw.LineStyle {
	return draw.LineStyle{Color: n.colour, Dashes: n.dashes, Width: 1.5}
}

func (n pen) glyph() draw.GlyphStyle {
	return draw.GlyphStyle{Color: n.colour, Radius: 3.5, Shape: n.sign}
}

// sample draws a short piece of a curve, as it stands before a model's name.
func (n pen) sample(c draw.Canvas, left, y vg.Length) {
	c.StrokeLine2(n.line(), left, y, left+sampleWidth-8, y)
	if n.sign != nil {
		c.DrawGlyph(n.glyph(), vg.Point{X: left + (sampleWidth-8)/2, Y: y})
	}
}

// A legend is the models' names in columns.
type legend struct {
	names   []string
	pens    []pen
	style   text.Style
	columns int
	width   vg.Length // of a column
}

func (l legend) rows() int { return (len(l.names) + l.columns - 1) / l.columns }

// legend names the models, in as many columns as there is room for.
func (f *figure) legend(room vg.Length) legend {
	l := legend{style: text.Style{Color: ink(), Font: sans(textSize), Handler: plot.DefaultTextHandler, YAlign: draw.YCenter}}
	for i, m := range f.models {
		if !f.pens[m].named {
			l.names, l.pens = append(l.names, fmt.Sprintf("%d others", len(f.models)-i)), append(l.pens, f.pens[m])
			break
		}
		l.names, l.pens = append(l.names, m), append(l.pens, f.pens[m])
	}
	widest := vg.Length(0)
	for i, name := range l.names {
		for l.style.Width(name) > room-sampleWidth {
			runes := []rune(strings.TrimSuffix(name, "…"))
			name = string(runes[:len(runes)-1]) + "…"
		}
		l.names[i] = name
		widest = max(widest, l.style.Width(name))
	}
	l.columns = max(1, min(len(l.names), int(room/(widest+sampleWidth+2*margin))))
	l.columns = (len(l.names) + l.rows() - 1) / l.rows() // all rows alike
	l.width = room / vg.Length(l.columns)
	return l
}

// draw draws l from the top of c.
func (l legend) draw(c draw.Canvas) {
	for i, name := range l.names {
		x := c.Min.X + vg.Length(i%l.columns)*l.width
		y := c.Max.Y - (vg.Length(i/l.columns)+0.5)*nameHeight
		l.pens[i].sample(c, x, y)
		c.FillText(l.style, vg.Point{X: x + sampleWidth, Y: y}, name)
	}
}

// size returns what f needs, in points.
func (f *figure) size() (width, height vg.Length) {
	width = panelWidth * vg.Length(len(f.panels))
	return width, panelHeight + vg.Length(f.legend(width-2*margin).rows())*nameHeight + 2*margin
}

// draw draws the panels beside each other, and the models' names below them.
func (f *figure) draw(canvas vg.CanvasSizer) {
	page := draw.New(canvas)
	names := f.legend(page.Max.X - page.Min.X - 2*margin)
	below := vg.Length(names.rows())*nameHeight + 2*margin
	tiles := draw.Tiles{Rows: 1, Cols: len(f.panels), PadX: 2 * margin, PadTop: margin, PadLeft: margin, PadRight: margin}
	for i, p := range f.panels {
		p.Draw(tiles.At(draw.Crop(page, 0, 0, below, 0), i, 0))
	}
	names.draw(draw.Crop(page, margin, -margin, 0, below-margin-(page.Max.Y-page.Min.Y)))
}

// svg returns f as SVG.
func (f *figure) svg() ([]byte, error) {
	canvas := vgsvg.New(f.size())
	f.draw(canvas)
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return nil, fmt.Errorf("draw plots: %w", err)
	}
	return f.portable(b.Bytes()), nil
}

// png returns f as PNG. Of the two it is the form for notebooks: their pages scale
// it to their width, also pages that show no drawing of a notebook which is not
// trusted.
func (f *figure) png() ([]byte, error) {
	w, h := f.size()
	canvas := vgimg.NewWith(vgimg.UseWH(w, h), vgimg.UseDPI(sharpness*int(vg.Inch)), vgimg.UseBackgroundColor(color.Transparent))
	f.draw(canvas)
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, indexed(canvas.Image())); err != nil {
		return nil, fmt.Errorf("draw plots: %w", err)
	}
	return b.Bytes(), nil
}

// indexed returns img with the colours that we draw with, each in so many degrees
// of transparency that edges stay smooth: a fifth of the bytes. Where curves cross
// the nearest one is taken.
func indexed(img image.Image) *image.Paletted {
	const degrees = 24
	inks := append(penColours(), ink())
	var palette color.Palette
	for _, c := range inks {
		for d := range degrees {
			palette = append(palette, color.NRGBA{c.R, c.G, c.B, uint8(255 * d / (degrees - 1))})
		}
	}
	nearest := func(c color.NRGBA) uint8 {
		best, least := 0, math.MaxInt
		for i, k := range inks {
			r, g, b := int(c.R)-int(k.R), int(c.G)-int(k.G), int(c.B)-int(k.B)
			if far := r*r + g*g + b*b; far < least {
				best, least = i, far
			}
		}
		return uint8(best*degrees + (int(c.A)*(degrees-1)+127)/255)
	}
	seen := map[color.NRGBA]uint8{{}: 0}
	out := image.NewPaletted(img.Bounds(), palette)
	for y := img.Bounds().Min.Y; y < img.Bounds().Max.Y; y++ {
		for x := img.Bounds().Min.X; x < img.Bounds().Max.X; x++ {
			c := color.NRGBAModel.Convert(img.At(x, y)).(color.NRGBA)
			index, ok := seen[c]
			if !ok {
				index = nearest(c)
				seen[c] = index
			}
			out.SetColorIndex(x, y, index)
		}
	}
	return out
}

// A drawing is the plots of a run in the format of a file.
type drawing struct {
	data  []byte
	width int    // in pixels of the page
	words string // what it shows
}

// drawRun draws the plots of run for a file with that ending; nil if no metric was
// logged over steps. The library that draws panics at numbers for which it knows no
// axis: that is an error here, and none of what is not drawn.
func drawRun(ctx context.Context, run *training.Run, results training.Results, ending string) (d *drawing, err error) {
	defer func() {
		if v := recover(); v != nil {
			d, err = nil, fmt.Errorf("draw the plots: %v", v)
		}
	}()
	f, err := plotRun(ctx, run, results)
	if err != nil || f == nil {
		return nil, err
	}
	width, _ := f.size()
	d = &drawing{width: int(width), words: f.words()}
	d.data, err = f.drawn(ending)
	return d, err
}

// drawn returns f in the format of a file with that ending.
func (f *figure) drawn(ending string) ([]byte, error) {
	if strings.EqualFold(ending, ".png") {
		return f.png()
	}
	return f.svg()
}

// words says what the plots show, for those who cannot see them.
func (f *figure) words() string {
	models := fmt.Sprintf("%d models", len(f.models))
	if len(f.models) == 1 {
		models = f.models[0]
	}
	return fmt.Sprintf("%s of %s over the steps of training", strings.Join(f.metrics, " and "), models)
}

func sans(size float64) font.Font {
	return font.Font{Typeface: "Liberation", Variant: "Sans", Size: vg.Points(size)}
}

var (
	fontFamily = regexp.MustCompile(`font-family:[^;"]*`)
	svgHead    = regexp.MustCompile(`<svg width="([\d.]+)pt" height="([\d.]+)pt"`)
)

// portable names fonts that every machine has, for the one that was measured
// with is on few, counts in the page's pixels, and lets a narrow page scale the
// drawing.
func (f *figure) portable(svg []byte) []byte {
	svg = svgHead.ReplaceAll(svg, []byte(`<svg role="img" style="max-width:100%;height:auto" width="$1" height="$2"`))
	end := bytes.Index(svg, []byte("<g "))
	titled := append(svg[:end:end], fmt.Appendf(nil, "<title>%s</title>\n", html.EscapeString(f.words()))...)
	svg = append(titled, svg[end:]...)
	return fontFamily.ReplaceAll(svg, []byte("font-family:'Liberation Sans',Arial,Helvetica,sans-serif"))
}
