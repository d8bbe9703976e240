package magics

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"outlast/training"
)

const (
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
	// largest is up to which size values are drawn: axes are divided by way of their
	// squares.
	largest = 1e150
	// narrowest is the smallest part of its values that an axis spans: of a narrower
	// one the divisions could not be told apart.
	narrowest = 1e-9
)

// A series is one metric of one model over its steps.
type series struct {
	model  string
	points plotter.XYs
}

// plotRun draws the run's loss curves, and beside them its accuracy or the like
// if one was logged. It returns nil if no metric was logged over steps.
func plotRun(ctx context.Context, run *training.Run, results training.Results) (*figure, error) {
	byMetric := map[string][]series{}
	var order []string
	for _, m := range ranked(results.Models, judge(results)) {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		order = append(order, m.Name)
		points, err := run.Metrics(m.Name)
		if err != nil {
			return nil, err
		}
		for name, xys := range curves(points) {
			byMetric[name] = append(byMetric[name], series{m.Name, xys})
		}
	}
	f := &figure{models: order, pens: pensFor(order)}
	for _, name := range panelMetrics(byMetric) {
		p, err := panel(name, byMetric[name], f.pens)
		if err != nil {
			return nil, err
		}
		f.panels, f.metrics = append(f.panels, p), append(f.metrics, name)
	}
	if len(f.panels) == 0 {
		return nil, nil
	}
	return f, nil
}

// curves splits points by metric, drops what cannot be drawn, and thins.
func curves(points []training.Point) map[string]plotter.XYs {
	all := map[string]plotter.XYs{}
	for _, p := range points {
		for name, v := range p.Values {
			if y, ok := v.(float64); ok && math.Abs(y) <= largest { // not a number is not, either
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

func panel(metric string, all []series, pens map[string]pen) (*plot.Plot, error) {
	p := blank(metric)
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
		if err := pens[s.model].draw(p, s.points); err != nil {
			return nil, fmt.Errorf("plot %s of %s: %w", metric, s.model, err)
		}
		for _, xy := range s.points {
			low, high = min(low, xy.Y), max(high, xy.Y)
		}
	}
	if low > 0 && high/low > logFrom {
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, ticks{plot.LogTicks{Prec: -1}}
		p.Title.Text += " (logarithmic)"
	}
	widen(&p.X)
	widen(&p.Y)
	return p, nil
}

// widen lets an axis span more than its values where they hardly differ.
func widen(a *plot.Axis) {
	if size := max(math.Abs(a.Min), math.Abs(a.Max)); a.Max-a.Min < narrowest*size && !math.IsInf(size, 0) {
		a.Min, a.Max = a.Min-size/20, a.Max+size/20
	}
}

// blank returns a panel without curves.
func blank(metric string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil // the page's own
	p.Title.Text = metric
	p.X.Label.Text = "step"
	p.Title.Padding = vg.Points(4)
	p.Title.TextStyle.Font, p.Title.TextStyle.Color = sans(titleSize), ink()
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Color, axis.Tick.Color, axis.Tick.Label.Color, axis.Label.TextStyle.Color = ink(), ink(), ink(), ink()
		axis.Tick.Label.Font, axis.Label.TextStyle.Font = sans(textSize), sans(textSize)
		axis.Tick.Marker = ticks{plot.DefaultTicks{}}
	}
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = faint(), faint()
	p.Add(grid)
	return p
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
