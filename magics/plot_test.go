package magics

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/training"
)

// extremes are curves as training that went wrong can log them.
func extremes() map[string][]float64 {
	huge, tiny := math.MaxFloat64, math.SmallestNonzeroFloat64
	next := func(v float64) float64 { return math.Nextafter(v, math.Inf(1)) }
	return map[string][]float64{
		"diverged":                {2, 1, 1e100, 1e300, huge, huge, huge, huge},
		"diverged to both sides":  {1, -huge, huge, -huge, huge},
		"nothing but the largest": {huge, huge, huge, huge, huge, huge, huge},
		"the smallest":            {tiny, 0, tiny, 0},
		"from smallest to large":  {tiny, 1, huge},
		"constant":                {0.1, 0.1, 0.1},
		"zero":                    {0, 0, 0},
		"a large constant":        {1 << 53, 1 << 53, 1 << 53},
		"a larger one":            {1 << 60, 1 << 60},
		"a larger one, negative":  {-1 << 60, -1 << 60},
		"hardly any difference":   {1 << 60, next(1 << 60), 1 << 60},
		"hardly any, and small":   {0.1, next(0.1)},
		"a score that diverged":   {-huge, huge, 0.5},
	}
}

func TestExtremeValuesAreDrawnAsSmallCurves(t *testing.T) {
	for name, values := range extremes() {
		for n := 1; n <= len(values)+1; n++ {
			part := means(values, n)
			for _, v := range part {
				assert.True(t, finite(v), "%s in %d: %v", name, n, part)
			}
			for _, v := range span01(part) {
				assert.True(t, v >= 0 && v <= 1, "%s in %d: %v", name, n, v)
			}
			assert.Len(t, []rune(sparkline(part)), len(part), name)
			assert.NotContains(t, svgTrend(part), "NaN", name)
		}
	}
	assert.Equal(t, []float64{0.1}, means([]float64{0.1, 0.1, 0.1}, 1), "what is the same stays the same")
	assert.Equal(t, "▁█", sparkline([]float64{-math.MaxFloat64, math.MaxFloat64}))
}

// logged makes a run whose only model has logged values under two names.
func logged(t *testing.T, values []float64) *training.Run {
	t.Helper()
	plan := &training.Plan{
		Run: "digits", Dir: t.TempDir(), Models: []training.Model{{Name: "m"}},
		Code: training.Code{Kind: training.CodeCommand, Command: []string{"true"}},
	}
	plan.Seal()
	run, _, err := training.Create(t.TempDir(), plan, false)
	require.NoError(t, err)
	var b strings.Builder
	for i, v := range values {
		fmt.Fprintf(&b, `{"step":%d,"time":1,"loss":%g,"accuracy":%g}`+"\n", i+1, v, v)
	}
	path := run.ModelPath("m", "metrics.jsonl")
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(b.String()), 0o644))
	return run
}

func TestExtremeValuesDoNotKeepPlotsFromBeingDrawn(t *testing.T) {
	for name, values := range extremes() {
		t.Run(name, func(t *testing.T) {
			run := logged(t, append([]float64{3, 2}, values...))
			alone := logged(t, values)
			results := training.Results{Run: "digits", Models: []training.ModelResult{{Name: "m"}}}
			for _, run := range []*training.Run{run, alone} {
				plots, err := drawRun(t.Context(), run, results, ".svg")
				require.NoError(t, err)
				if plots != nil { // a single point that can be drawn is no curve
					assert.Contains(t, string(plots.data), "<svg")
					assert.NotContains(t, string(plots.data), "NaN")
				}
			}
		})
	}
}

func TestWhatTheDrawingPanicsAtIsAnError(t *testing.T) {
	_, err := drawRun(t.Context(), nil, training.Results{Models: []training.ModelResult{{Name: "m"}}}, ".svg")
	assert.ErrorContains(t, err, "draw the plots: ")
}
