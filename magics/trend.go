package magics

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"outlast/training"
)

const (
	// trendPoints is how many points a small curve has.
	trendPoints = 12
	// wholeFile is up to which size, in bytes, all metrics are read; of more,
	// samples: a live view must not cost more the longer a model trains.
	wholeFile = 64 << 10
	// sampleSize is what is read at each of the places of a large file.
	sampleSize = 2 << 10
)

// trends remembers the curves of a run's models between two looks. It is for one
// goroutine.
type trends struct {
	seen map[string]seenTrend
}

type seenTrend struct {
	metric string
	size   int64
	at     time.Time
	values []float64
}

// of returns the curve of a metric in the metrics file at path. A file that has
// not changed is not read again; one that cannot be read has none.
func (t *trends) of(path, metric string) []float64 {
	info, err := os.Stat(path)
	if err != nil || metric == "" {
		return nil
	}
	if s, ok := t.seen[path]; ok && s.metric == metric && s.size == info.Size() && s.at.Equal(info.ModTime()) {
		return s.values
	}
	values := trend(path, info.Size(), metric)
	if t.seen == nil {
		t.seen = map[string]seenTrend{}
	}
	t.seen[path] = seenTrend{metric, info.Size(), info.ModTime(), values}
	return values
}

// trend returns at most trendPoints values of a metric, spread evenly over the
// file, each the mean of those around it.
func trend(path string, size int64, metric string) []float64 {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close() //nolint:errcheck // it was only read
	if size <= wholeFile {
		data, err := io.ReadAll(f)
		if err != nil {
			return nil
		}
		return means(valuesIn(data, metric), trendPoints)
	}
	var points []float64
	block := make([]byte, sampleSize)
	for i := range int64(trendPoints) {
		n, err := f.ReadAt(block, i*(size-sampleSize)/(trendPoints-1))
		if err != nil && n == 0 {
			continue
		}
		points = append(points, means(valuesIn(block[:n], metric), 1)...)
	}
	return points
}

// valuesIn returns what the whole lines in data say of a metric.
func valuesIn(data []byte, metric string) []float64 {
	var values []float64
	for line := range bytes.Lines(data) {
		var p training.Point
		if !bytes.HasSuffix(line, []byte("\n")) || json.Unmarshal(line, &p) != nil {
			continue // the end or the beginning of a line, or a damaged one
		}
		if v, ok := p.Values[metric].(float64); ok && finite(v) {
			values = append(values, v)
		}
	}
	return values
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// means divides values into at most n parts of equal length and returns the mean
// of each.
func means(values []float64, n int) []float64 {
	n = min(n, len(values))
	var parts []float64
	for i := range n {
		parts = append(parts, mean(values[i*len(values)/n:(i+1)*len(values)/n]))
	}
	return parts
}

// mean returns the mean of values, of which there is at least one. Their sum may be
// more than a number can hold: a loss that diverges comes near the largest one.
func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v / float64(len(values))
	}
	return min(max(sum, slices.Min(values)), slices.Max(values)) // rounding may lead beyond
}

// span01 maps values to 0 for the lowest and 1 for the highest, by their
// logarithms where they differ by much: else all that comes after the first fall
// of a loss would look flat.
func span01(values []float64) []float64 {
	if len(values) == 0 {
		return nil
	}
	low, high := slices.Min(values), slices.Max(values)
	if low > 0 && high/low > logFrom {
		logs := make([]float64, len(values))
		for i, v := range values {
			logs[i] = math.Log(v)
		}
		values, low, high = logs, math.Log(low), math.Log(high)
	}
	scaled := make([]float64, len(values))
	for i, v := range values {
		if width := high/2 - low/2; width > 0 { // halves: the whole may be more than a number can hold
			scaled[i] = (v/2 - low/2) / width
		}
	}
	return scaled
}

// sparkline draws values as a row of blocks of eight heights.
func sparkline(values []float64) string {
	blocks := []rune("▁▂▃▄▅▆▇█")
	var b strings.Builder
	for _, v := range span01(values) {
		b.WriteRune(blocks[int(v*float64(len(blocks)-1)+0.5)])
	}
	return b.String()
}

// svgTrend draws values as a small curve with a dot at its end, in the colour of
// the text around it.
func svgTrend(values []float64) string {
	const width, height, margin = 84.0, 18.0, 3.0
	var points []string
	x, y := margin, height/2
	for i, v := range span01(values) {
		if len(values) > 1 {
			x = margin + (width-2*margin)*float64(i)/float64(len(values)-1)
		}
		y = height - margin - (height-2*margin)*v
		points = append(points, fmt.Sprintf("%.1f,%.1f", x, y))
	}
	return fmt.Sprintf(`<svg width="%g" height="%g" viewBox="0 0 84 18" style="width:clamp(48px,7vw,84px);height:auto;vertical-align:middle" role="img"><title>%s</title><polyline points="%s" fill="none" stroke="currentColor" stroke-width="1.3" stroke-linejoin="round" opacity="0.75"/><circle cx="%.1f" cy="%.1f" r="2" fill="currentColor"/></svg>`,
		width, height, sparkline(values), strings.Join(points, " "), x, y)
}
