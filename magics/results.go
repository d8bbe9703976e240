package magics

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"outlast/training"
)

// Results returns %results: what came out, as a table and plots.
func Results(d *Deps) *Magic {
	m := &Magic{
		Name:  "results",
		Verb:  "results",
		Args:  "[RUN]",
		Short: "Compare the models of a run: table, best model, plots of their metrics",
		Line:  true,
		Looks: true,
	}
	m.Bind = func(fs *pflag.FlagSet) func(context.Context, *Call) error {
		o := resultOptions{magic: m, dir: d.dirFlag(fs)}
		fs.BoolVar(&o.json, "json", false, "print one JSON object")
		fs.BoolVar(&o.csv, "csv", false, "print the table as CSV")
		fs.StringVar(&o.plot, "plot", "", "write the plots to `FILE.svg` or FILE.png, and show nothing else")
		fs.StringVar(&o.zip, "zip", "", "write all results to `FILE.zip`, and show nothing else: table, plots, logs, metrics, finished models")
		return func(ctx context.Context, c *Call) error {
			if err := o.check(); err != nil {
				return err
			}
			run, err := d.oneRun(m, c, *o.dir)
			if err != nil {
				return err
			}
			if o.files() {
				o.here = d.nearby(ctx, c.Notebook)
				o.linked = o.here.dir == d.WorkDir && d.Host.serves()
			}
			err = o.show(ctx, c, run)
			if err != nil && ctx.Err() != nil {
				return &Problem{"put the results together", errors.New("it was interrupted"), "run it again; no half of a file is left"}
			}
			return err
		}
	}
	return m
}

// resultOptions are the flags of one %results.
type resultOptions struct {
	magic     *Magic
	dir       *string
	json, csv bool
	plot, zip string
	here      place // set if files are to be written
	linked    bool  // the notebook's page can link to what lies there
}

// files reports whether files are to be written.
func (o resultOptions) files() bool { return o.plot != "" || o.zip != "" }

func (o resultOptions) check() error {
	switch {
	case o.json && o.csv:
		return &UsageError{o.magic, "--json and --csv exclude each other"}
	case o.plot != "" && !isFile(o.plot, ".svg", ".png"):
		return &UsageError{o.magic, fmt.Sprintf("--plot writes SVG or PNG: give it a name that ends in .svg or .png, not %q", o.plot)}
	case o.zip != "" && !isFile(o.zip, ".zip"):
		return &UsageError{o.magic, fmt.Sprintf("--zip takes a name that ends in .zip, not %q", o.zip)}
	}
	return nil
}

func (o resultOptions) show(ctx context.Context, c *Call, run *training.Run) error {
	results, err := run.Results()
	if err != nil {
		return err
	}
	results = complete(results)
	if err := c.result(results); err != nil {
		return err
	}
	switch {
	case o.json:
		err = writeJSON(c, results)
	case o.csv:
		err = writeCSV(c.Stdout, results)
	case !o.files():
		c.Screen.Show(resultsView(run, results))
		err = showPlots(ctx, c, run, results)
	}
	if err != nil {
		return err
	}
	return o.write(ctx, c, run, results)
}

// showPlots shows the plots where pictures can be seen. That none can be drawn is
// no error: the numbers have been shown.
func showPlots(ctx context.Context, c *Call, run *training.Run, results training.Results) error {
	if c.Notebook == nil {
		return nil
	}
	plots, err := drawRun(ctx, run, results, ".png")
	if plots == nil {
		return without(ctx, c, err)
	}
	text := fmt.Sprintf("Plots: %s. They are a picture; %%results %s --plot FILE.svg saves them.", plots.words, run.Name())
	c.Screen.Show(View{
		Text:    text,
		Fit:     func(width, _ int) string { return strings.Join(wrap(text, width, "  "), "\n") },
		Picture: &Picture{PNG: plots.data, Width: plots.width, Words: "Plots: " + plots.words},
	})
	return nil
}

// without says why there are no plots, unless that is an interrupt.
func without(ctx context.Context, c *Call, err error) error {
	if err != nil && ctx.Err() == nil {
		fmt.Fprintf(c.Stderr, "Without plots: %v\n", err)
	}
	return ctx.Err()
}

// write writes the files that were asked for, and says where they are.
func (o resultOptions) write(ctx context.Context, c *Call, run *training.Run, results training.Results) error {
	if o.zip != "" {
		if err := o.writeZip(ctx, c, run, results); err != nil {
			return err
		}
	}
	if o.plot != "" {
		return o.writePlots(ctx, c, run, results)
	}
	return nil
}

func (o resultOptions) writeZip(ctx context.Context, c *Call, run *training.Run, results training.Results) error {
	var svg []byte
	plots, err := drawRun(ctx, run, results, ".svg")
	if plots != nil {
		svg = plots.data
	} else if err := without(ctx, c, err); err != nil {
		return err
	}
	err = replaceFile(o.here.path(o.zip), func(w io.Writer) error { return archive(ctx, w, run, results, svg) })
	if err != nil {
		return &Problem{"write the results", err, "give --zip a file that can be written, where there is room for it"}
	}
	o.say(c, "Results", o.zip, "of "+models(len(results.Models)))
	return nil
}

func (o resultOptions) writePlots(ctx context.Context, c *Call, run *training.Run, results training.Results) error {
	plots, err := drawRun(ctx, run, results, filepath.Ext(o.plot))
	if err != nil {
		return &Problem{"write the plots", err, "--csv has the results, and the files metrics.jsonl in " + run.Dir() + " what was logged"}
	}
	if plots == nil {
		return &Problem{"write the plots", errors.New("no model has logged a metric over at least two steps"), "log some in the training loop: job.log(loss=loss)"}
	}
	err = replaceFile(o.here.path(o.plot), func(w io.Writer) error {
		_, err := w.Write(plots.data)
		return err
	})
	if err != nil {
		return &Problem{"write the plots", err, "give --plot a file that can be written"}
	}
	o.say(c, "Plots", o.plot, plots.words)
	return nil
}

// say tells that a file was written, beside what a program may read.
func (o resultOptions) say(c *Call, what, file, of string) {
	size := ""
	if info, err := os.Stat(o.here.path(file)); err == nil {
		size = fmt.Sprintf(" (%s, %s)", of, fileSize(info.Size()))
	}
	text := what + " written to " + file + size
	switch {
	case o.json || o.csv:
		fmt.Fprintln(c.Stderr, text)
	case c.Notebook != nil && o.linked && filepath.IsLocal(file):
		c.Screen.Show(View{Text: text, HTML: fmt.Sprintf(`<div>%s written to <a href="%s" download>%s</a>%s</div>`,
			what, html.EscapeString((&url.URL{Path: filepath.ToSlash(file)}).EscapedPath()), html.EscapeString(file), html.EscapeString(size))})
	default:
		fmt.Fprintln(c.Stdout, text)
	}
}

// complete gives every field the form that programs rely on.
func complete(r training.Results) training.Results {
	if r.Models == nil {
		r.Models = []training.ModelResult{}
	}
	for i := range r.Models {
		if r.Models[i].Metrics == nil {
			r.Models[i].Metrics = map[string]any{}
		}
	}
	return r
}

// replaceFile writes a file that is seen whole or not at all.
func replaceFile(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	err = write(f)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Chmod(f.Name(), 0o644)
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name()) //nolint:errcheck // the first error counts
	}
	return err
}

// resultsView draws the comparison of all models, best first if there is a
// metric that says what best is.
func resultsView(run *training.Run, r training.Results) View {
	var curves trends
	status := make([]training.ModelStatus, len(r.Models))
	for i, m := range r.Models {
		status[i].Metrics = m.Metrics
	}
	loss := lossName(status)
	trend := func(model string) []float64 { return curves.of(run.ModelPath(model, "metrics.jsonl"), loss) }
	return resultsSheet(r, loss, trend).view()
}

func resultsSheet(r training.Results, loss string, trend func(model string) []float64) sheet {
	names, main := metricNames(r), judge(r)
	s := sheet{Title: fmt.Sprintf("%s: results of %s", r.Run, models(len(r.Models)))}
	s.Columns = []column{{Head: ""}, {Head: "model"}, {Head: ""}, {Head: "state", Rank: 2}}
	for i, n := range names {
		rank := 10 + i
		if n == main {
			rank = 0
		}
		s.Columns = append(s.Columns, column{Head: n, Right: true, Rank: rank})
	}
	s.Columns = append(s.Columns, column{Head: strings.TrimSpace(loss + " curve"), Rank: 3}, column{Head: "time", Right: true, Rank: 1})
	all := ranked(r.Models, main)
	for i, m := range all {
		best := ""
		if i == 0 && isBest(m, main, len(all)) {
			best = "★ best"
		}
		tone := toneOf(m.State)
		row := sheetRow{Kind: string(m.State), Need: i, Cells: []sheetCell{
			{Text: mark(m.State), Tone: tone}, {Text: m.Name}, {Text: best, Tone: toneGood}, {Text: string(m.State), Tone: tone},
		}}
		for _, n := range names {
			row.Cells = append(row.Cells, sheetCell{Text: number3(m.Metrics[n])})
		}
		seconds := ""
		if m.Seconds > 0 {
			seconds = span(m.Seconds)
		}
		row.Cells = append(row.Cells, sheetCell{Trend: trend(m.Name)}, sheetCell{Text: seconds})
		s.Rows = append(s.Rows, row)
	}
	if len(all) > 0 && isBest(all[0], main, len(all)) {
		best := all[0]
		s.say(fmt.Sprintf("★ Best by %s: %s (%s). Its files: %s", main, best.Name, number3(best.Metrics[main]), best.Final))
	}
	return s
}

// isBest reports whether m, the first of so many that were ranked by a metric,
// is better than others. Alone it is not; unfinished it may not be.
func isBest(m training.ModelResult, metric string, of int) bool {
	return of > 1 && metric != "" && m.State == training.ModelDone && figured(m, metric)
}

func writeCSV(to io.Writer, r training.Results) error {
	names := metricNames(r)
	w := csv.NewWriter(to)
	records := [][]string{append(append([]string{"model", "state"}, names...), "seconds", "final")}
	for _, m := range r.Models {
		record := []string{m.Name, string(m.State)}
		for _, n := range names {
			text := ""
			if v, ok := m.Metrics[n]; ok {
				text = fmt.Sprint(v)
			}
			record = append(record, text)
		}
		records = append(records, append(record, fmt.Sprint(m.Seconds), m.Final))
	}
	return w.WriteAll(records)
}

// params writes a model's parameters on one line.
func params(p map[string]any) string {
	if len(p) == 0 {
		return ""
	}
	text, err := json.Marshal(p)
	if err != nil {
		return fmt.Sprint(p)
	}
	return strings.TrimSuffix(strings.TrimPrefix(string(text), "{"), "}")
}
