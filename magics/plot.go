package magics

import (
	"bytes"
	"cmp"
	"fmt"
	"image/color"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"outlast/training"
)

const (
	// Two panels and the names fit into a notebook's page.
	panelWidth  = 11 * vg.Centimeter
	panelHeight = 7.5 * vg.Centimeter
	namesWidth  = 4.2 * vg.Centimeter
	// maxPoints is into how many means one curve is divided: enough for its
	// shape, and few enough to calm what single batches do to it.
	maxPoints = 80
	// namedCurves is how many curves can be told apart. Of more models the best
	// are named; the others are there, in grey.
	namedCurves = 12
	// logFrom is from which ratio of the largest to the smallest value on the
	// axis is logarithmic: on a linear one the last digits of a loss all look
	// alike.
	logFrom = 30
)

// A series is one metric of one model over its steps.
type series struct {
	model  string
	points plotter.XYs
}

// A pen is how a model's curves are drawn, in all panels alike.
type pen struct {
	colour color.Color
	dashes []vg.Length
	named  bool
}

// plotRun draws the run's loss curves, and beside them its accuracy or the like
// if one was logged. It returns nil if no metric was logged over steps.
func plotRun(run *training.Run, results training.Results) ([]byte, error) {
	byMetric := map[string][]series{}
	var order []string
	for _, m := range ranked(results.Models, judge(results)) {
		order = append(order, m.Name)
		points, err := run.Metrics(m.Name)
		if err != nil {
			return nil, err
		}
		for name, xys := range curves(points) {
			byMetric[name] = append(byMetric[name], series{m.Name, xys})
		}
	}
	pens := pensFor(order)
	var panels []*plot.Plot
	for _, name := range panelMetrics(byMetric) {
		p, err := panel(name, byMetric[name], pens)
		if err != nil {
			return nil, err
		}
		panels = append(panels, p)
	}
	if len(panels) == 0 {
		return nil, nil
	}
	return render(panels, order, pens)
}

// curves splits points by metric, drops what cannot be drawn, and thins.
func curves(points []training.Point) map[string]plotter.XYs {
	all := map[string]plotter.XYs{}
	for _, p := range points {
		for name, v := range p.Values {
			if y, ok := v.(float64); ok && finite(y) {
				all[name] = append(all[name], plotter.XY{X: float64(p.Step), Y: y})
			}
		}
	}
	for name, xys := range all {
		var x, y []float64
		for _, xy := range xys {
			x, y = append(x, xy.X), append(y, xy.Y)
		}
		x, y = means(x, maxPoints), means(y, maxPoints)
		thin := make(plotter.XYs, len(x))
		for i := range x {
			thin[i] = plotter.XY{X: x[i], Y: y[i]}
		}
		all[name] = thin
	}
	return all
}

// panelMetrics chooses at most one metric that should fall and one that should
// rise: those that most models have at least two points of, and of equals those
// that compare best.
func panelMetrics(byMetric map[string][]series) []string {
	count := func(name string) (n int) {
		for _, s := range byMetric[name] {
			if len(s.points) > 1 {
				n++
			}
		}
		return n
	}
	names := slices.SortedFunc(maps.Keys(byMetric), func(a, b string) int {
		return cmp.Or(-cmp.Compare(count(a), count(b)), cmp.Compare(rankOf(a), rankOf(b)), strings.Compare(a, b))
	})
	var chosen []string
	for _, want := range []direction{lower, higher, unknown} {
		i := slices.IndexFunc(names, func(n string) bool { return directionOf(n) == want && count(n) > 0 })
		if i >= 0 && (want != unknown || chosen == nil) {
			chosen = append(chosen, names[i])
		}
	}
	return chosen
}

// pensFor gives each model a colour and a dash of its own. The colours are those
// of Okabe and Ito, made to be told apart by the colour-blind too; the dashes
// repeat at another rhythm, so that neither is needed to see which is which.
func pensFor(models []string) map[string]pen {
	colours := []color.Color{
		color.RGBA{0x00, 0x72, 0xB2, 255},
		color.RGBA{0xD5, 0x5E, 0x00, 255},
		color.RGBA{0x00, 0x9E, 0x73, 255},
		color.RGBA{0xCC, 0x79, 0xA7, 255},
		color.RGBA{0xE6, 0x9F, 0x00, 255},
		color.RGBA{0x56, 0xB4, 0xE9, 255},
		color.RGBA{0x22, 0x22, 0x22, 255},
	}
	dashes := [][]vg.Length{nil, {5, 2.5}, {1.5, 2}, {7, 2, 1.5, 2}}
	pens := map[string]pen{}
	for i, m := range models {
		if i < namedCurves {
			pens[m] = pen{colours[i%len(colours)], dashes[i%len(dashes)], true}
		} else {
			pens[m] = pen{color.Gray{0xC8}, nil, false}
		}
	}
	return pens
}

func panel(metric string, all []series, pens map[string]pen) (*plot.Plot, error) {
	p := plot.New()
	p.BackgroundColor = color.White
	p.Title.Text = metric
	p.X.Label.Text = "step"
	p.Title.Padding = vg.Points(4)
	for _, style := range []*font.Font{
		&p.Title.TextStyle.Font, &p.X.Label.TextStyle.Font, &p.X.Tick.Label.Font, &p.Y.Tick.Label.Font,
	} {
		*style = sans(9)
	}
	p.Title.TextStyle.Font = sans(11)
	p.X.Tick.Marker, p.Y.Tick.Marker = ticks{plot.DefaultTicks{}}, ticks{plot.DefaultTicks{}}
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = color.Gray{0xE4}, color.Gray{0xF0}
	p.Add(grid)
	low, high := math.Inf(1), math.Inf(-1)
	from := math.Inf(-1)
	if directionOf(metric) == higher {
		from = floor(all)
	}
	for _, s := range slices.Backward(all) { // the best on top
		for len(s.points) > 2 && s.points[0].Y < from {
			s.points = s.points[1:]
		}
		if len(s.points) < 2 {
			continue
		}
		line, err := plotter.NewLine(s.points)
		if err != nil {
			return nil, fmt.Errorf("plot %s of %s: %w", metric, s.model, err)
		}
		pen := pens[s.model]
		line.Color, line.Dashes, line.Width = pen.colour, pen.dashes, vg.Points(1.3)
		p.Add(line)
		for _, xy := range s.points {
			low, high = min(low, xy.Y), max(high, xy.Y)
		}
	}
	if low > 0 && high/low > logFrom {
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, ticks{plot.LogTicks{Prec: -1}}
		p.Title.Text += " (logarithmic)"
	}
	return p, nil
}

// floor returns where the axis of a score begins: where models rise from is the
// same for all, and where they end is what is compared.
func floor(all []series) float64 {
	low, high := math.Inf(1), math.Inf(-1)
	for _, s := range all {
		if n := len(s.points); n > 1 {
			low, high = min(low, s.points[n-1].Y), max(high, s.points[n-1].Y)
		}
	}
	return low - 2*max(high-low, math.Abs(high)/20)
}

func sans(size float64) font.Font {
	return font.Font{Typeface: "Liberation", Variant: "Sans", Size: vg.Points(size)}
}

// ticks writes the numbers at an axis as people do: 250, not 250.00.
type ticks struct{ plot.Ticker }

// Ticks implements plot.Ticker.
func (t ticks) Ticks(low, high float64) []plot.Tick {
	all := t.Ticker.Ticks(low, high)
	for i, tick := range all {
		if tick.Label != "" {
			all[i].Label = strconv.FormatFloat(tick.Value, 'g', 4, 64)
		}
	}
	return all
}

// render draws the panels beside each other, and the models' names beside them.
func render(panels []*plot.Plot, models []string, pens map[string]pen) ([]byte, error) {
	width := panelWidth*vg.Length(len(panels)) + namesWidth
	canvas := vgsvg.New(width, panelHeight)
	page := draw.New(canvas)
	canvas.SetColor(color.White)
	canvas.Fill(page.Path())
	tiles := draw.Tiles{Rows: 1, Cols: len(panels), PadX: vg.Centimeter / 2, PadTop: vg.Points(6), PadBottom: vg.Points(6), PadLeft: vg.Points(6)}
	for i, p := range panels {
		p.Draw(tiles.At(draw.Crop(page, 0, -namesWidth, 0, 0), i, 0))
	}
	names := plot.NewLegend()
	names.Top, names.Left = true, true
	names.TextStyle.Font = sans(9)
	names.ThumbnailWidth = vg.Points(26)
	names.Padding, names.YOffs = vg.Points(4), vg.Points(-2)
	for i, m := range models {
		if !pens[m].named {
			names.Add(fmt.Sprintf("%d others", len(models)-i), key{pens[m]})
			break
		}
		names.Add(m, key{pens[m]})
	}
	names.Draw(draw.Crop(page, width-namesWidth+vg.Points(8), 0, 0, -vg.Points(20)))
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return nil, fmt.Errorf("draw plots: %w", err)
	}
	return portable(b.Bytes()), nil
}

// A key is the sample of a pen in the list of names.
type key struct{ pen pen }

var _ plot.Thumbnailer = key{}

// Thumbnail implements plot.Thumbnailer.
func (k key) Thumbnail(c *draw.Canvas) {
	style := draw.LineStyle{Color: k.pen.colour, Dashes: k.pen.dashes, Width: vg.Points(1.6)}
	y := c.Center().Y
	c.StrokeLine2(style, c.Min.X, y, c.Max.X-vg.Points(4), y)
}

var fontFamily = regexp.MustCompile(`font-family:[^;"]*`)

// portable names fonts that every machine has, for the one that was measured
// with is on few, and lets a narrow page scale the drawing.
func portable(svg []byte) []byte {
	svg = bytes.Replace(svg, []byte("<svg "), []byte(`<svg style="max-width:100%;height:auto" `), 1)
	return fontFamily.ReplaceAll(svg, []byte("font-family:'Liberation Sans',Arial,Helvetica,sans-serif"))
}
