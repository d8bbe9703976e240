package magics

import (
	"bytes"
	"fmt"
	"image/color"
	"maps"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/palette"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"outlast/training"
)

// Size of one panel. Two fit beside each other in a notebook.
const (
	panelWidth  = 14 * vg.Centimeter
	panelHeight = 8 * vg.Centimeter
	// maxPoints is what one curve is thinned to: more than a panel has pixels
	// costs the browser and shows nothing.
	maxPoints = 400
)

// A series is one metric of one model over its steps.
type series struct {
	model  string
	points plotter.XYs
}

// plotRun draws the run's loss curves, and beside them its accuracy or the like
// if one was logged. It returns nil if no metric was logged over steps.
func plotRun(run *training.Run) ([]byte, error) {
	byMetric := map[string][]series{}
	for _, m := range run.Plan().Models {
		points, err := run.Metrics(m.Name)
		if err != nil {
			return nil, err
		}
		for name, xys := range curves(points) {
			byMetric[name] = append(byMetric[name], series{m.Name, xys})
		}
	}
	var panels []*plot.Plot
	for _, name := range panelMetrics(byMetric) {
		p, err := panel(name, byMetric[name])
		if err != nil {
			return nil, err
		}
		panels = append(panels, p)
	}
	if len(panels) == 0 {
		return nil, nil
	}
	return render(panels)
}

// curves splits points by metric, drops what cannot be drawn, and thins.
func curves(points []training.Point) map[string]plotter.XYs {
	all := map[string]plotter.XYs{}
	for _, p := range points {
		for name, v := range p.Values {
			if y, ok := v.(float64); ok && !math.IsNaN(y) && !math.IsInf(y, 0) {
				all[name] = append(all[name], plotter.XY{X: float64(p.Step), Y: y})
			}
		}
	}
	for name, xys := range all {
		stride := len(xys)/maxPoints + 1
		thin := xys[:0:0]
		for i := 0; i < len(xys); i += stride {
			thin = append(thin, xys[i])
		}
		if last := xys[len(xys)-1]; thin[len(thin)-1] != last {
			thin = append(thin, last)
		}
		all[name] = thin
	}
	return all
}

// panelMetrics chooses at most one loss and one score: those with the most
// curves of at least two points.
func panelMetrics(byMetric map[string][]series) []string {
	count := func(name string) (n int) {
		for _, s := range byMetric[name] {
			if len(s.points) > 1 {
				n++
			}
		}
		return n
	}
	best := func(want func(string) bool) string {
		found := ""
		for _, name := range slices.Sorted(maps.Keys(byMetric)) {
			if want(name) && count(name) > 0 && (found == "" || count(name) > count(found)) {
				found = name
			}
		}
		return found
	}
	var chosen []string
	isLoss := func(n string) bool { return strings.Contains(strings.ToLower(n), "loss") }
	for _, name := range []string{best(isLoss), best(higherIsBetter)} {
		if name != "" {
			chosen = append(chosen, name)
		}
	}
	return chosen
}

func panel(metric string, all []series) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = metric
	p.X.Label.Text = "step"
	p.Legend.Top = !higherIsBetter(metric)
	p.Legend.TextStyle.Font.Size = vg.Points(8)
	p.BackgroundColor = color.White
	hues := palette.Rainbow(max(len(all), 2), palette.Blue, palette.Red, 0.9, 0.75, 1).Colors()
	for i, s := range all {
		line, err := plotter.NewLine(s.points)
		if err != nil {
			return nil, fmt.Errorf("plot %s of %s: %w", metric, s.model, err)
		}
		line.Color = hues[i]
		line.Width = vg.Points(1.2)
		line.Dashes = dashes(i) // curves can be told apart without colour
		p.Add(line)
		p.Legend.Add(s.model, line)
	}
	p.Add(plotter.NewGrid())
	return p, nil
}

func dashes(i int) []vg.Length {
	styles := [][]vg.Length{nil, {4, 2}, {1, 2}, {6, 2, 1, 2}}
	return styles[i%len(styles)]
}

// render draws the panels beside each other as one SVG document.
func render(panels []*plot.Plot) ([]byte, error) {
	canvas := vgsvg.New(panelWidth*vg.Length(len(panels)), panelHeight)
	tiles := draw.Tiles{Rows: 1, Cols: len(panels), PadX: vg.Centimeter / 2}
	for i, p := range panels {
		p.Draw(tiles.At(draw.New(canvas), i, 0))
	}
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return nil, fmt.Errorf("draw plots: %w", err)
	}
	return b.Bytes(), nil
}
