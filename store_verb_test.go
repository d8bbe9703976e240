package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/folder"
)

// A stocked is a folder store with the run digits: models cnn, finished at step
// 40 and with checkpoints 20, 30 and 40, and mlp with a checkpoint at 10.
type stocked struct {
	dir  string // the store
	data string // an empty data directory
}

func newStocked(t *testing.T) stocked {
	t.Helper()
	s := stocked{t.TempDir(), filepath.Join(t.TempDir(), "runs")}
	from := t.TempDir()
	store, err := folder.New(s.dir)
	require.NoError(t, err)
	discard := slog.New(slog.DiscardHandler)
	k := &checkpoint.Keeper{Dir: filepath.Join(from, "digits"), Keep: 5, Log: discard}
	m := &checkpoint.Mirror{Store: store, Dir: from, Name: "digits", Keep: 5, Log: discard}
	require.NoError(t, os.MkdirAll(k.Dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(k.Dir, "run.json"), []byte("{}"), 0o644))
	require.NoError(t, m.TakeOver(1, "writer-1"))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	for _, c := range []checkpoint.Manifest{
		{Model: "cnn", Step: 20},
		{Model: "cnn", Step: 30},
		{Model: "cnn", Step: 40},
		{Model: "cnn", Step: 40, Final: true},
		{Model: "mlp", Step: 10},
	} {
		final := c.Final
		c.Run, c.Generation, c.Writer = "digits", 1, "writer-1"
		c.Metrics = map[string]any{"loss": 1 / float64(c.Step)}
		staged := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(staged, "model.pt"), []byte("weights of "+c.Model), 0o644))
		_, path, err := k.Save(t.Context(), c, staged)
		if final {
			_, path, err = k.Finish(t.Context(), c)
		}
		require.NoError(t, err)
		m.Saved(c.Model, c.Step, path, final)
		require.NoError(t, m.Flush(t.Context()))
	}
	cancel()
	require.NoError(t, <-ended)
	return s
}

// path returns where something of the run is in the store's folder.
func (s stocked) path(below string) string {
	return filepath.Join(s.dir, "digits", filepath.FromSlash(below))
}

func (s stocked) spoil(t *testing.T, below string) {
	t.Helper()
	require.NoError(t, os.WriteFile(s.path(below), []byte("WEIGHTS of cnn"), 0o644))
}

// outlast runs one command in this process.
func outlast(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	p := &program{env: environment{func(string) (string, bool) { return "", false }}, stdout: &out, stderr: &errs}
	status = p.main(t.Context(), args)
	return status, out.String(), errs.String()
}

func TestStoreLs(t *testing.T) {
	s := newStocked(t)
	status, out, errs := outlast(t, "store", "ls", s.dir)
	require.Equal(t, exitOK, status, errs)
	require.Regexp(t, `(?m)^run +models +finished +checkpoints +files +size$`, out)
	require.Regexp(t, `(?m)^digits +2 +1 +4 +12 +`, out)

	status, out, errs = outlast(t, "store", "ls", "file:"+s.dir, "digits")
	require.Equal(t, exitOK, status, errs)
	require.Contains(t, out, "generation 1, writer writer-1")
	require.Regexp(t, `(?m)^cnn +40 +final +1 +\S+ \S+ +2 +\S+ \S+ +sealed$`, out)
	require.Regexp(t, `(?m)^cnn +20 +checkpoint +1 +.*sealed$`, out)
	require.Regexp(t, `(?m)^mlp +10 +checkpoint +1 +.*sealed$`, out)
	require.Less(t, strings.Index(out, "final"), strings.Index(out, "checkpoint "), "the best is the first")

	status, out, errs = outlast(t, "store", "ls", s.dir, "digits", "--json")
	require.Equal(t, exitOK, status, errs)
	var inv checkpoint.Inventory
	require.NoError(t, json.Unmarshal([]byte(out), &inv))
	require.Equal(t, "writer-1", inv.Claim.Writer)
	require.Len(t, inv.Checkpoints, 5)

	status, out, errs = outlast(t, "store", "ls", t.TempDir())
	require.Equal(t, exitOK, status, errs)
	require.Contains(t, out, "No run is in")
}

func TestStoreVerify(t *testing.T) {
	s := newStocked(t)
	status, out, errs := outlast(t, "store", "verify", s.dir)
	require.Equal(t, exitOK, status, errs)
	require.Equal(t, 5, strings.Count(out, "verified"))
	require.Contains(t, out, "All is as it was saved")

	s.spoil(t, "models/cnn/checkpoints/30/model.pt")
	status, out, errs = outlast(t, "store", "verify", s.dir, "digits")
	require.Equal(t, exitFailed, status)
	require.Regexp(t, `(?m)^cnn +30 .*damaged: model.pt: its SHA-256 differs$`, out)
	require.Contains(t, errs, "1 checkpoint is not what was saved")
	require.Contains(t, errs, "To do: ")

	status, out, _ = outlast(t, "store", "verify", s.dir, "--json")
	require.Equal(t, exitFailed, status)
	var v verification
	require.NoError(t, json.Unmarshal([]byte(out), &v))
	require.False(t, v.OK)
	require.Len(t, v.Runs, 1)
}

func TestStorePull(t *testing.T) {
	s := newStocked(t)
	s.spoil(t, "models/cnn/final/model.pt")
	status, out, errs := outlast(t, "store", "pull", s.dir, "--dir", s.data)
	require.Equal(t, exitOK, status, errs)
	require.Contains(t, out, "final is damaged")
	require.Contains(t, out, "outlast resume digits --dir "+s.data)
	for _, place := range []string{"cnn/checkpoints/40", "mlp/checkpoints/10"} {
		_, err := checkpoint.Verify(filepath.Join(s.data, "digits", "models", filepath.FromSlash(place)))
		require.NoError(t, err, place)
	}
	require.FileExists(t, filepath.Join(s.data, "digits", "run.json"))
	require.NoFileExists(t, filepath.Join(s.data, "digits", "supervisor.lock"), "nothing was started")

	status, _, errs = outlast(t, "store", "pull", s.dir, "letters", "--dir", s.data)
	require.Equal(t, exitFailed, status)
	require.Contains(t, errs, "it has: digits")
}

func TestStorePrune(t *testing.T) {
	s := newStocked(t)
	status, out, errs := outlast(t, "store", "prune", s.dir, "--keep", "1", "--dry-run")
	require.Equal(t, exitOK, status, errs)
	require.Contains(t, out, "To be removed: 2 checkpoints of digits")
	require.DirExists(t, s.path("models/cnn/checkpoints/20"))

	s.spoil(t, "models/cnn/checkpoints/40/model.pt")
	status, out, errs = outlast(t, "store", "prune", s.dir, "digits", "--keep", "1")
	require.Equal(t, exitOK, status, errs)
	require.Contains(t, out, "Removed: 1 checkpoint of digits")
	require.NoDirExists(t, s.path("models/cnn/checkpoints/20"))
	for _, kept := range []string{"models/cnn/checkpoints/30", "models/cnn/checkpoints/40", "models/cnn/final", "models/mlp/checkpoints/10"} {
		require.DirExists(t, s.path(kept))
	}

	status, out, errs = outlast(t, "store", "prune", s.dir, "--json")
	require.Equal(t, exitOK, status, errs)
	var report checkpoint.PruneReport
	require.NoError(t, json.Unmarshal([]byte(out), &report))
	require.Empty(t, report.Removed)
	require.Len(t, report.Kept, 4)
}

// The best one stays, as the run's plan wants it or as it is asked for here.
func TestStorePruneKeepsTheBest(t *testing.T) {
	s := newStocked(t)
	for _, args := range [][]string{{"--keep-best", "loss:max"}, nil} {
		status, out, errs := outlast(t, append([]string{"store", "prune", s.dir, "--keep", "1"}, args...)...)
		require.Equal(t, exitOK, status, errs)
		require.DirExists(t, s.path("models/cnn/checkpoints/20"), out)
		require.NoDirExists(t, s.path("models/cnn/checkpoints/30"))
		require.NoError(t, os.WriteFile(s.path("run.json"), []byte(`{"settings":{"keep_best":"loss:max"}}`), 0o644))
	}
	status, _, errs := outlast(t, "store", "prune", s.dir, "--keep", "1", "--keep-best", "loss:min")
	require.Equal(t, exitOK, status, errs)
	require.NoDirExists(t, s.path("models/cnn/checkpoints/20"))
}

// A mistake is named, with the way out, and nothing is made or changed.
func TestStoreMistakes(t *testing.T) {
	s := newStocked(t)
	missing := filepath.Join(t.TempDir(), "mistyped")
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"nothing":                {nil, "say what to do"},
		"another action":         {[]string{"rm", s.dir}, "say what to do"},
		"no store":               {[]string{"ls"}, "say which store"},
		"too much":               {[]string{"ls", s.dir, "digits", "cnn"}, "one store and one run"},
		"another's flag":         {[]string{"ls", s.dir, "--keep", "2"}, "ls does not take --keep"},
		"a flag of pull":         {[]string{"verify", s.dir, "--dir", "x"}, "verify does not take --dir"},
		"no flag":                {[]string{"ls", s.dir, "--force"}, "unknown flag"},
		"keeping nothing":        {[]string{"prune", s.dir, "--keep", "0"}, "from 1 on"},
		"the best in what way":   {[]string{"prune", s.dir, "--keep-best", "loss:most"}, "METRIC:max"},
		"a folder not there":     {[]string{"ls", missing}, "there is no such folder"},
		"an empty store to pull": {[]string{"pull", t.TempDir()}, "no run is in it"},
		"an unknown run":         {[]string{"ls", s.dir, "letters"}, "no such run"},
		"a name that leads out":  {[]string{"verify", s.dir, "../digits"}, "no name of a run"},
	} {
		t.Run(name, func(t *testing.T) {
			status, _, errs := outlast(t, append([]string{"store"}, test.args...)...)
			require.Contains(t, []int{exitUsage, exitFailed}, status)
			require.Contains(t, errs, test.want)
			require.Contains(t, errs, "To do: ")
			require.NoDirExists(t, missing)
		})
	}
	require.NoError(t, os.MkdirAll(filepath.Join(s.dir, "letters"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "letters", "run.json"), []byte("{}"), 0o644))
	for _, action := range []string{"pull", "prune"} {
		status, _, errs := outlast(t, "store", action, s.dir)
		require.Equal(t, exitUsage, status)
		require.Contains(t, errs, "digits, letters")
	}
}
