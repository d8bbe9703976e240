package magics

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gonum.org/v1/plot/vg"

	"outlast/training"
)

func TestFiguresAreWrittenForPeople(t *testing.T) {
	for want, got := range map[string]string{
		"0.0 s": span(-1), "4.2 s": span(4.21), "9.9 s": span(9.94), "10 s": span(9.96), "59 s": span(59.4), "1 min 00 s": span(59.6),
		"3 min 20 s": span(200), "2 h 05 min": span(7500), "47 h 59 min": span(48*3600 - 60), "3 d 4 h": span(76 * 3600),
		"85 µs": pace(0.000085), "1.2 ms": pace(0.00123), "12 ms": pace(0.0123), "1.5 s": pace(1.5), "2 min 05 s": pace(125),
		"512 MiB": mebibytes(512), "15.0 GiB": mebibytes(15360),
		"": number3(nil), "nan": number3("nan"), "0.9722": number3(0.97222), "1.234e-05": number3(0.00001234), "650": number3(650.0),
		"9999": number3(9999.0), "10,000": number3(10000.0), "-1,234,567": number3(-1234567.0), "true": number3(true),
	} {
		assert.Equal(t, want, got)
	}
}

func TestBarsAndCurvesKeepToTheirBounds(t *testing.T) {
	for share, want := range map[float64]string{0: "░░░░", 0.5: "██░░", 1: "████", 7: "████", -3: "░░░░", 0.28: "█▏░░"} {
		assert.Equal(t, want, textBar(share, 4))
	}
	assert.Equal(t, "▁▅█", sparkline([]float64{0, 0.5, 1}))
	assert.Equal(t, "▁▁▁", sparkline([]float64{3, 3, 3}), "what does not change is flat")
	assert.Equal(t, "█▅▁", sparkline([]float64{100, 10, 1}), "what falls by much, by its logarithm")
	assert.Empty(t, sparkline(nil))
	assert.Contains(t, svgTrend([]float64{1}), "<circle", "a single point is a dot")
}

// metricsFile writes n lines of metrics whose loss is the step.
func metricsFile(t *testing.T, n int) (path string, size int64) {
	t.Helper()
	var b strings.Builder
	for step := range n {
		line, err := json.Marshal(training.Point{Step: int64(step), Time: 1, Values: map[string]any{"loss": float64(step)}})
		require.NoError(t, err)
		b.Write(append(line, '\n'))
	}
	path = filepath.Join(t.TempDir(), "metrics.jsonl")
	require.NoError(t, os.WriteFile(path, []byte(b.String()), 0o644))
	return path, int64(b.Len())
}

func TestACurveSpansTheWholeFileHoweverLongItIs(t *testing.T) {
	for _, n := range []int{1, 5, 12, 100, 5000, 200_000} {
		path, size := metricsFile(t, n)
		values := trend(path, size, "loss")
		require.Len(t, values, min(n, trendPoints), "%d lines", n)
		for i := 1; i < len(values); i++ {
			assert.Greater(t, values[i], values[i-1], "%d lines", n)
		}
		assert.Less(t, values[0], 0.1*float64(n)+1)
		assert.Greater(t, values[len(values)-1], 0.9*float64(n)-2)
	}
}

func TestACurveLeavesOutWhatItCannotRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.jsonl")
	text := `{"step":0,"time":1,"loss":2}` + "\nnonsense\n" + `{"step":1,"time":1,"loss":"nan"}` + "\n" + `{"step":2,"time":1,"other":9}` + "\n" + `{"step":3,"time":1,"loss":1}` + "\n" + `{"step":4,"ti`
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	var curves trends
	assert.Equal(t, []float64{2, 1}, curves.of(path, "loss"))
	assert.Empty(t, curves.of(path, "nothing"))
	assert.Empty(t, curves.of(path, ""))
	assert.Empty(t, curves.of(path+".none", "loss"))
}

func TestACurveFollowsItsFile(t *testing.T) {
	path, _ := metricsFile(t, 3)
	var curves trends
	assert.Len(t, curves.of(path, "loss"), 3)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = fmt.Fprintln(f, `{"step":3,"time":1,"loss":9}`)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	assert.Equal(t, []float64{0, 1, 2, 9}, curves.of(path, "loss"))
}

func TestTheEndOfALogIsFoundWithoutReadingAllOfIt(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for name, c := range map[string]struct {
		text string
		n    int
		want string
	}{
		"all":                      {"a\nb\n", 0, "a\nb\n"},
		"fewer than asked for":     {"a\nb\n", 5, "a\nb\n"},
		"the last":                 {"a\nb\nc\n", 2, "b\nc\n"},
		"without an end":           {"a\nb\nc", 2, "b\nc"},
		"blank lines count":        {"a\n\n\nb\n", 2, "\nb\n"},
		"longer than the guess":    {"a\n" + long + "\nb\n", 2, long + "\nb\n"},
		"one line longer than all": {long, 1, long},
		"nothing":                  {"", 3, ""},
	} {
		path := filepath.Join(t.TempDir(), "log.txt")
		require.NoError(t, os.WriteFile(path, []byte(c.text), 0o644))
		text, end, err := logEnd(path, c.n)
		require.NoError(t, err, name)
		assert.Equal(t, c.want, text, name)
		assert.EqualValues(t, len(c.text), end, name)
	}
	text, end, err := logEnd(filepath.Join(t.TempDir(), "none"), 3)
	require.NoError(t, err)
	assert.Empty(t, text)
	assert.Zero(t, end)
}

func TestAProgressBarLeavesItsLastState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.txt")
	require.NoError(t, os.WriteFile(path, []byte("start\n10%\r50%\r100%\r\nend\n"), 0o644))
	assert.Equal(t, []string{"start", "100%", "end"}, lastLines(path, 5))
	assert.Nil(t, lastLines(path+".none", 5))
}

func TestMetricsHaveADirection(t *testing.T) {
	for metric, want := range map[string]direction{
		"accuracy": higher, "val_acc": higher, "valAcc": higher, "test/top5": higher, "f1": higher, "macro-F1": higher, "ROUGE1": higher, "r2": higher,
		"loss": lower, "train_loss": lower, "evalLoss": lower, "perplexity": lower, "RMSE": lower,
		"accumulation": unknown, "parameters": unknown, "lr": unknown, "placc": unknown, "seconds": unknown,
	} {
		assert.Equal(t, want, directionOf(metric), metric)
	}
}

func TestMetricsThatCompareBestComeFirst(t *testing.T) {
	values := map[string]any{}
	for _, n := range []string{"lr", "train_loss", "loss", "val_loss", "train_acc", "accuracy", "val_acc", "parameters"} {
		values[n] = 1.0
	}
	r := training.Results{Models: []training.ModelResult{{Metrics: values}}}
	assert.Equal(t, []string{"val_acc", "accuracy", "val_loss", "loss", "train_acc", "train_loss", "lr", "parameters"}, metricNames(r))
}

func TestTheBestIsFirstAndWhatIsNotDoneLast(t *testing.T) {
	model := func(name string, state training.ModelState, v any) training.ModelResult {
		return training.ModelResult{Name: name, State: state, Metrics: map[string]any{"loss": v}}
	}
	r := training.Results{Models: []training.ModelResult{
		model("worse", training.ModelDone, 0.5), model("failed", training.ModelFailed, 0.01), model("nan", training.ModelDone, "nan"),
		model("better", training.ModelDone, 0.1), model("equal", training.ModelDone, 0.1),
	}}
	var order []string
	for _, m := range ranked(r.Models, judge(r)) {
		order = append(order, m.Name)
	}
	assert.Equal(t, []string{"better", "equal", "worse", "failed", "nan"}, order)
}

// aResult is what results can look like.
func aResult() training.Results {
	model := func(name string, state training.ModelState, accuracy, loss float64, parameters float64) training.ModelResult {
		m := training.ModelResult{Name: name, State: state, Seconds: 12.3, Metrics: map[string]any{"accuracy": accuracy, "loss": loss, "parameters": parameters}}
		if state == training.ModelDone {
			m.Final = "/runs/digits/models/" + name + "/final"
		}
		return m
	}
	return training.Results{Run: "digits", Models: []training.ModelResult{
		model("logistic", training.ModelDone, 0.9556, 0.2134, 650), model("cnn", training.ModelDone, 0.9917, 0.01234, 19_882),
		model("gru", training.ModelFailed, 0.8123, 0.6, 18_000),
		{Name: "attention", State: training.ModelPending},
	}}
}

func TestResultViewsLookAsTheyDid(t *testing.T) {
	curve := func(name string) []float64 {
		if name == "attention" {
			return nil
		}
		return []float64{2.3, 1.6, 1.1, 0.8, 0.55, 0.4, 0.28, 0.2, 0.14, 0.1, 0.08, 0.06}
	}
	v := resultsSheet(aResult(), "loss", curve).view()
	golden(t, "views/results.txt", v.Text)
	golden(t, "views/results.html", v.HTML)
	golden(t, "views/results-narrow.txt", v.Fit(50, 0))
}

func TestOneModelAloneIsNotTheBest(t *testing.T) {
	r := aResult()
	r.Models = r.Models[:1]
	assert.NotContains(t, resultsSheet(r, "", func(string) []float64 { return nil }).view().Text, "best")
}

func TestCurvesCanBeToldApartWithoutColour(t *testing.T) {
	var names []string
	for i := range namedCurves + 5 {
		names = append(names, fmt.Sprint(i))
	}
	pens := pensFor(names)
	seen := map[string]bool{}
	for _, n := range names[:namedCurves] {
		look := fmt.Sprintf("%v %T", pens[n].dashes, pens[n].sign)
		assert.True(t, pens[n].named)
		assert.False(t, seen[look], n)
		seen[look] = true
	}
	assert.False(t, pens[names[namedCurves]].named)
}

// contrast is that of WCAG 2: 1 for the same colour, 21 for black on white.
func contrast(a, b color.RGBA) float64 {
	light := func(c color.RGBA) float64 {
		sum := 0.0
		for i, v := range []uint8{c.R, c.G, c.B} {
			s := float64(v) / 255
			if s <= 0.04045 {
				s /= 12.92
			} else {
				s = math.Pow((s+0.055)/1.055, 2.4)
			}
			sum += []float64{0.2126, 0.7152, 0.0722}[i] * s
		}
		return sum
	}
	x, y := light(a), light(b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

func TestPlotsCanBeReadOnLightAndDarkPages(t *testing.T) {
	for name, page := range map[string]color.RGBA{"white": {255, 255, 255, 255}, "JupyterLab's dark theme": {0x11, 0x11, 0x11, 255}} {
		assert.Greater(t, contrast(ink(), page), 4.1, name)
		for _, c := range penColours() {
			assert.Greater(t, contrast(c, page), 3.0, "%v on %s", c, name)
		}
	}
}

// aFigure draws so many models, the name of each as long as said.
func aFigure(t *testing.T, models, length int) *figure {
	t.Helper()
	f := &figure{metrics: []string{"loss", "accuracy"}}
	var all []series
	for i := range models {
		name := fmt.Sprint(i, strings.Repeat("n", length))
		f.models = append(f.models, name)
		s := series{model: name}
		for x := range 10 {
			s.points = append(s.points, struct{ X, Y float64 }{float64(x), float64(i + x)})
		}
		all = append(all, s)
	}
	f.pens = pensFor(f.models)
	for _, metric := range f.metrics {
		p, err := panel(metric, all, f.pens)
		require.NoError(t, err)
		f.panels = append(f.panels, p)
	}
	return f
}

func TestEveryModelIsNamedInsideThePicture(t *testing.T) {
	for name, c := range map[string]struct{ models, length int }{
		"one": {1, 3}, "eight": {8, 8}, "twelve with long names": {12, 60}, "more than can be told apart": {40, 10}, "a name longer than the page": {2, 400},
	} {
		t.Run(name, func(t *testing.T) {
			f := aFigure(t, c.models, c.length)
			width, height := f.size()
			l := f.legend(width - 2*margin)
			assert.Len(t, l.names, min(c.models, namedCurves+1))
			for _, n := range l.names {
				assert.LessOrEqual(t, sampleWidth+l.style.Width(n), l.width, n)
			}
			assert.LessOrEqual(t, l.width*vg.Length(l.columns), width)
			assert.GreaterOrEqual(t, height, panelHeight+vg.Length(l.rows())*nameHeight)
			svg, err := f.svg()
			require.NoError(t, err)
			for _, n := range l.names {
				assert.Contains(t, string(svg), ">"+n+"</text>")
			}
		})
	}
}

func TestNothingIsDrawnBehindThePlots(t *testing.T) {
	f := aFigure(t, 3, 5)
	data, err := f.png()
	require.NoError(t, err)
	img, err := png.Decode(bytes.NewReader(data))
	require.NoError(t, err)
	width, _ := f.size()
	assert.Equal(t, sharpness*int(width), img.Bounds().Dx())
	clear, total := 0, img.Bounds().Dx()*img.Bounds().Dy()
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			if _, _, _, a := img.At(x, y).RGBA(); a == 0 {
				clear++
			}
		}
	}
	assert.Greater(t, clear, total*8/10, "the page shows through")
	assert.Less(t, clear, total, "and something is drawn")
	assert.Less(t, len(data), 100_000, "it is kept in notebooks")
}

func TestPanelsAreALossAndAScore(t *testing.T) {
	curve := func(n int) series {
		s := series{}
		for i := range n {
			s.points = append(s.points, struct{ X, Y float64 }{float64(i), 1})
		}
		return s
	}
	two := []series{curve(2), curve(2)}
	assert.Equal(t, []string{"loss", "accuracy"}, panelMetrics(map[string][]series{"loss": two, "accuracy": two, "lr": two}))
	assert.Equal(t, []string{"val_loss"}, panelMetrics(map[string][]series{"loss": two, "val_loss": two, "accuracy": {curve(1)}}), "a single point is no curve")
	assert.Equal(t, []string{"loss"}, panelMetrics(map[string][]series{"loss": two, "val_loss": {curve(2)}}), "most models have it")
	assert.Equal(t, []string{"lr"}, panelMetrics(map[string][]series{"lr": two}), "better than nothing")
	assert.Empty(t, panelMetrics(nil))
}

func TestAVeryLongPlanIsShownInPart(t *testing.T) {
	var models []training.ModelStatus
	for i := range 10_000 {
		state := training.ModelPending
		switch {
		case i < 4000:
			state = training.ModelDone
		case i == 4000:
			state = training.ModelRunning
		case i == 4001:
			state = training.ModelFailed
		}
		models = append(models, training.ModelStatus{Name: fmt.Sprint("m", i), State: state})
	}
	stay := wanted(models, false)
	count := 0
	for _, yes := range stay {
		if yes {
			count++
		}
	}
	assert.Equal(t, maxRows, count)
	assert.True(t, stay[4000], "the one that runs")
	assert.True(t, stay[4001], "the one that failed")
	assert.True(t, stay[4002], "the next one")
	assert.True(t, stay[3999], "the latest that is done")
	assert.False(t, stay[0])
	assert.NotContains(t, wanted(models, true), false, "--all")
}

func TestLongWordsAreNotTorn(t *testing.T) {
	path := "/a/very/long/path/that/does/not/fit"
	assert.Equal(t, []string{"Its files:", "  " + path, "  end"}, wrap("Its files: "+path+" end", 10, "  "))
	assert.Equal(t, []string{"  keep", "  the", "  indent"}, wrap("  keep the indent", 8, ""))
	assert.Equal(t, []string{""}, wrap("", 10, ""))
}
