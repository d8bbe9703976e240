package magics

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"outlast/training"
)

// archive writes what came out of a run as a zip file: table, plots, record, and
// of each model its log, its metrics and the finished model. Folders are those of
// the run, so that what is known about it holds there too. It stops when ctx ends.
func archive(ctx context.Context, to io.Writer, run *training.Run, results training.Results, svg []byte) error {
	w := zip.NewWriter(writerFunc(func(block []byte) (int, error) {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		return to.Write(block)
	}))
	var table, object bytes.Buffer
	if err := writeCSV(&table, results); err != nil {
		return err
	}
	enc := json.NewEncoder(&object)
	enc.SetIndent("", "  ")
	if err := enc.Encode(results); err != nil {
		return err
	}
	for _, made := range []struct {
		name string
		data []byte
	}{{"results.csv", table.Bytes()}, {"results.json", object.Bytes()}, {"plots.svg", svg}} {
		if len(made.data) == 0 { // no curves
			continue
		}
		f, err := w.CreateHeader(&zip.FileHeader{Name: path.Join(run.Name(), made.name), Modified: time.Now(), Method: zip.Deflate})
		if err != nil {
			return err
		}
		if _, err := f.Write(made.data); err != nil {
			return err
		}
	}
	files := []string{filepath.Join(run.Dir(), "run.json"), filepath.Join(run.Dir(), "ledger.jsonl")}
	for _, m := range results.Models {
		files = append(files, run.ModelPath(m.Name, "log.txt"), run.ModelPath(m.Name, "metrics.jsonl"))
		if m.Final != "" {
			files = append(files, m.Final)
		}
	}
	for _, file := range files {
		if err := addTree(w, run.DataDir(), file); err != nil {
			return err
		}
	}
	return w.Close()
}

// A writerFunc writes by a call.
type writerFunc func(block []byte) (int, error)

// Write implements io.Writer.
func (f writerFunc) Write(block []byte) (int, error) { return f(block) }

// addTree adds a file, or all files of a folder, under their path from root. What
// is not there is left out: a model may have printed nothing.
func addTree(w *zip.Writer, root, tree string) error {
	return filepath.WalkDir(tree, func(name string, entry fs.DirEntry, err error) error {
		if name == tree && os.IsNotExist(err) {
			return nil
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		return addFile(w, filepath.ToSlash(rel), name, info)
	})
}

// addFile compresses texts; trained numbers hardly get smaller.
func addFile(w *zip.Writer, as, name string, info fs.FileInfo) error {
	head := &zip.FileHeader{Name: as, Modified: info.ModTime(), Method: zip.Store}
	if strings.Contains(".txt .json .jsonl .csv .py", path.Ext(as)) {
		head.Method = zip.Deflate
	}
	to, err := w.CreateHeader(head)
	if err != nil {
		return err
	}
	from, err := os.Open(name)
	if err != nil {
		return err
	}
	defer from.Close() //nolint:errcheck // it was only read
	_, err = io.Copy(to, from)
	return err
}
