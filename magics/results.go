package magics

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
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
	}
	m.Bind = func(fs *pflag.FlagSet) func(context.Context, *Call) error {
		dir := d.dirFlag(fs)
		asJSON := fs.Bool("json", false, "print one JSON object")
		asCSV := fs.Bool("csv", false, "print the table as CSV")
		plot := fs.String("plot", "", "write the plots to this SVG file")
		return func(_ context.Context, c *Call) error {
			run, err := d.oneRun(m, c, *dir)
			if err != nil {
				return err
			}
			results, err := run.Results()
			if err != nil {
				return err
			}
			switch {
			case *asJSON && *asCSV:
				return &UsageError{m, "--json and --csv exclude each other"}
			case *asJSON:
				return writeJSON(c, results)
			case *asCSV:
				return writeCSV(c, results)
			}
			return showResults(c, run, results, *plot)
		}
	}
	return m
}

func showResults(c *Call, run *training.Run, results training.Results, file string) error {
	c.Screen.Show(resultsView(results))
	svg, err := plotRun(run)
	if err != nil {
		return err
	}
	if file != "" {
		if err := os.WriteFile(file, svg, 0o644); err != nil {
			return &Problem{"write the plots", err, "give --plot a file that can be written"}
		}
		_, err := fmt.Fprintln(c.Stdout, "Plots written to "+file)
		return err
	}
	if len(svg) > 0 && c.Notebook != nil {
		c.Screen.Show(View{Text: "Plots of " + run.Name() + " (%results " + run.Name() + " --plot FILE.svg saves them)", SVG: string(svg)})
	}
	return nil
}

// resultsView draws the comparison of all models, best first if there is a
// metric that says what best is.
func resultsView(r training.Results) View {
	names := metricNames(r)
	g := grid{Title: r.Run + ": results", Header: []string{"", "model", "state"}, Right: []bool{false, false, false}}
	for _, n := range names {
		g.Header, g.Right = append(g.Header, n), append(g.Right, true)
	}
	g.Header, g.Right = append(g.Header, "time"), append(g.Right, true)
	models, judge := ranked(r.Models, names)
	for _, m := range models {
		cells := []string{mark(m.State), m.Name, string(m.State)}
		for _, n := range names {
			cells = append(cells, number3(m.Metrics[n]))
		}
		g.Rows = append(g.Rows, append(cells, span(m.Seconds)))
	}
	if judge != "" && len(models) > 1 {
		best := models[0]
		g.Notes = append(g.Notes, fmt.Sprintf("Best by %s: %s (%s), in %s", judge, best.Name, number3(best.Metrics[judge]), best.Final))
	}
	return g.view()
}

// ranked orders models by the first metric that says what better is, and names
// it. Without such a metric the order is the plan's.
func ranked(models []training.ModelResult, names []string) ([]training.ModelResult, string) {
	judge, sign := "", 1.0
	for _, n := range names {
		if higherIsBetter(n) {
			judge, sign = n, -1
			break
		}
		if judge == "" && strings.Contains(n, "loss") {
			judge = n
		}
	}
	if judge == "" {
		return models, ""
	}
	sorted := slices.Clone(models)
	slices.SortStableFunc(sorted, func(a, b training.ModelResult) int {
		x, okX := a.Metrics[judge].(float64)
		y, okY := b.Metrics[judge].(float64)
		switch {
		case !okX || !okY: // without a figure: last
			return boolOrder(okX, okY)
		case x*sign < y*sign:
			return -1
		case x*sign > y*sign:
			return 1
		}
		return 0
	})
	if _, ok := sorted[0].Metrics[judge].(float64); !ok {
		return models, ""
	}
	return sorted, judge
}

func boolOrder(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// higherIsBetter goes by the names that the field gives to such metrics.
func higherIsBetter(metric string) bool {
	for _, word := range []string{"acc", "f1", "auc", "bleu", "rouge", "r2", "precision", "recall"} {
		if strings.Contains(strings.ToLower(metric), word) {
			return true
		}
	}
	return false
}

func metricNames(r training.Results) []string {
	seen := map[string]bool{}
	for _, m := range r.Models {
		for n := range m.Metrics {
			seen[n] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

func writeCSV(c *Call, r training.Results) error {
	names := metricNames(r)
	w := csv.NewWriter(c.Stdout)
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
	return strings.Trim(string(text), "{}")
}
