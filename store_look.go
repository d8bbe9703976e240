package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"outlast/checkpoint"
)

// ls shows the runs of a store, or the checkpoints of one.
func (c *storeCall) ls(ctx context.Context) error {
	if c.name == "" {
		return c.lsRuns(ctx)
	}
	inv, err := checkpoint.TakeInventory(ctx, c.store, c.name)
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(inv)
	}
	fmt.Fprintf(c.stdout, "%s in %s: %d files, %s%s\n", inv.Run, c.url, inv.Files, bytesOf(inv.Bytes), writerOf(inv.Claim))
	printCheckpoints(c.stdout, inv.Checkpoints)
	return nil
}

func (c *storeCall) lsRuns(ctx context.Context) error {
	all, err := checkpoint.Summaries(ctx, c.store)
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(map[string]any{"store": c.url, "runs": all})
	}
	if len(all) == 0 {
		_, err := fmt.Fprintf(c.stdout, "No run is in %s.\n", c.url)
		return err
	}
	rows := [][]string{}
	for _, s := range all {
		rows = append(rows, []string{
			s.Run, strconv.Itoa(s.Models), strconv.Itoa(s.Finished), strconv.Itoa(s.Checkpoints), strconv.Itoa(s.Files), bytesOf(s.Bytes),
		})
	}
	printTable(c.stdout, []string{"run", "models", "finished", "checkpoints", "files", "size"}, rows)
	return nil
}

// A verification is what verify prints as JSON.
type verification struct {
	Store string                 `json:"store"`
	OK    bool                   `json:"ok"`
	Runs  []checkpoint.Inventory `json:"runs"`
}

// verify reads everything again. What is damaged or cannot be read is an error:
// scripts ask for the exit status.
func (c *storeCall) verify(ctx context.Context) error {
	runs, err := c.runs(ctx)
	if err != nil {
		return err
	}
	v := verification{Store: c.url, OK: true, Runs: []checkpoint.Inventory{}}
	damaged, unknown, read := 0, 0, int64(0)
	for _, run := range runs {
		inv, err := checkpoint.Scrub(ctx, c.store, run, func(s checkpoint.Stored) {
			switch s.State {
			case checkpoint.StoredDamaged:
				damaged++
			case checkpoint.StoredUnknown:
				unknown++
			case checkpoint.StoredVerified:
				read += s.Bytes
			case checkpoint.StoredHalf, checkpoint.StoredSealed:
			}
		})
		if err != nil {
			return err
		}
		v.Runs = append(v.Runs, inv)
		if !c.json {
			fmt.Fprintf(c.stdout, "%s in %s%s\n", run, c.url, writerOf(inv.Claim))
			printCheckpoints(c.stdout, inv.Checkpoints)
		}
	}
	v.OK = damaged+unknown == 0
	if c.json {
		if err := c.printJSON(v); err != nil {
			return err
		}
	}
	return c.verdict(len(runs), damaged, unknown, read)
}

func (c *storeCall) verdict(runs, damaged, unknown int, read int64) error {
	switch {
	case damaged > 0:
		return &storeError{
			"verify " + c.url, fmt.Errorf("%s not what was saved", count(damaged, "checkpoint is", "checkpoints are")),
			"resume uses the one before, and says so; the next ones that are saved are good. 'outlast store prune' removes old ones",
		}
	case unknown > 0:
		return &storeError{
			"verify " + c.url, fmt.Errorf("%s not be read", count(unknown, "checkpoint could", "checkpoints could")),
			"check that the store can be reached, and verify again: nothing is known to be damaged",
		}
	case runs == 0:
		_, err := fmt.Fprintf(c.stderr, "No run is in %s.\n", c.url)
		return err
	case !c.json:
		_, err := fmt.Fprintf(c.stdout, "All is as it was saved: %s read and compared.\n", bytesOf(read))
		return err
	}
	return nil
}

// clean removes old checkpoints.
func (c *storeCall) clean(ctx context.Context) error {
	run, err := c.oneRun(ctx, "prune")
	if err != nil {
		return err
	}
	if c.prune.Best, err = checkpoint.ParseBest(c.best); err != nil {
		return usage("store", "--keep-best: "+err.Error())
	}
	if c.best == "" {
		if c.prune.Best, err = checkpoint.BestInStore(ctx, c.store, run); err != nil {
			return err
		}
	}
	report, err := checkpoint.PruneStore(ctx, c.store, run, c.prune)
	if c.json && err == nil {
		return c.printJSON(report)
	}
	if len(report.Removed) > 0 {
		printCheckpoints(c.stdout, report.Removed)
	}
	said := "Removed"
	if c.prune.DryRun {
		said = "To be removed"
	}
	fmt.Fprintf(c.stdout, "%s: %s of %s, %s.\n", said, count(len(report.Removed), "checkpoint", "checkpoints"), run, bytesOf(report.Bytes))
	return err
}

func printCheckpoints(w io.Writer, all []checkpoint.Stored) {
	rows := [][]string{}
	for _, s := range all {
		kind := "checkpoint"
		if s.Final {
			kind = "final"
		}
		if s.Superseded {
			kind += ", set aside"
		}
		created := ""
		if !s.Created.IsZero() {
			created = s.Created.Local().Format(time.DateTime)
		}
		state := string(s.State)
		if s.Problem != "" {
			state += ": " + s.Problem
		}
		rows = append(rows, []string{
			s.Model, strconv.FormatInt(s.Step, 10), kind, strconv.FormatInt(s.Generation, 10), created, strconv.Itoa(s.Files), bytesOf(s.Bytes), state,
		})
	}
	if len(rows) > 0 {
		printTable(w, []string{"model", "step", "kind", "generation", "saved", "files", "size", "state"}, rows)
	}
}

// printTable aligns rows below their heads, as the other tables do.
func printTable(w io.Writer, head []string, rows [][]string) {
	rule := make([]string, len(head))
	for i, h := range head {
		width := len([]rune(h))
		for _, row := range rows {
			width = max(width, len([]rune(row[i])))
		}
		rule[i] = strings.Repeat("─", width)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range slices.Concat([][]string{head, rule}, rows) {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	t.Flush() //nolint:errcheck // a terminal that is gone cannot be told
}

func writerOf(c *checkpoint.Claim) string {
	if c == nil {
		return ""
	}
	return fmt.Sprintf("; taken over last on %s, generation %d, writer %s", c.Time.Local().Format(time.DateTime), c.Generation, c.Writer)
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// bytesOf writes an amount of storage.
func bytesOf(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	value, unit := float64(n), 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}
