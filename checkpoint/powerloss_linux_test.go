package checkpoint_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/durable"
	"outlast/checkpoint/folder"
)

// cutPower runs a role, and calls check with what a power cut leaves behind each
// of its changes: nothing that was not synced, all of it, names without content,
// content without names, and some of it by chance. acked is what the process had
// said by then.
func cutPower(t *testing.T, role, store string, every int, check func(t *testing.T, dir string, acked []string)) {
	t.Helper()
	const chances = 6
	work := t.TempDir()
	connect(t, work, store)
	r := record(t, role, work)
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 1))
	seen := map[string]bool{}
	first := random.IntN(every)
	for n := 0; n <= len(r.disk.changes); n++ {
		if n%every != first && n != len(r.disk.changes) {
			continue
		}
		acked := r.said(n)
		fates := []fate{plain{}, plain{names: true}, plain{content: true}, plain{true, true}}
		for range chances {
			fates = append(fates, chance{random})
		}
		for i, f := range fates {
			left := r.disk.after(n, f)
			if k := key(left, len(acked)); seen[k] {
				continue
			} else {
				seen[k] = true
			}
			dir := t.TempDir()
			connect(t, dir, store)
			lay(t, dir, left)
			check(t, dir, acked)
			require.NoError(t, os.RemoveAll(dir))
			if t.Failed() {
				t.Logf("power cut behind change %d of %d, fate %d, seed %d: %v", n, len(r.disk.changes), i, seed, left)
				return
			}
		}
	}
	t.Logf("%s: %d changes, %d promises, %d different states", role, len(r.disk.changes), len(r.acks), len(seen))
	require.Greater(t, len(seen), len(r.disk.changes)/(2*every), "the model loses something")
}

// connect gives the processes in a folder a store that is elsewhere, and loses
// nothing.
func connect(t *testing.T, dir, store string) {
	t.Helper()
	if store != "" {
		require.NoError(t, os.Symlink(store, filepath.Join(dir, storeName)))
	}
}

// said returns what the process had said before the n-th change.
func (r *recorder) said(n int) (lines []string) {
	for _, a := range r.acks {
		if a.at <= n {
			lines = append(lines, a.line)
		}
	}
	return lines
}

// lay makes the files that a power cut has left.
func lay(t *testing.T, dir string, left files) {
	t.Helper()
	for name, text := range left {
		path := filepath.Join(dir, name)
		if strings.HasSuffix(name, "/") {
			require.NoError(t, os.MkdirAll(path, 0o755))
			continue
		}
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
}

// What Save and Finish have returned from is there after a power cut, what is
// found is right, and it can be gone on with.
func TestPowerCutBehindEachStepOfSaveAndFinish(t *testing.T) {
	for _, role := range []string{"save", "save from memory"} {
		t.Run(role, func(t *testing.T) {
			cutPower(t, role, "", oneOf(1, 12), requireGoodAfterPowerCut)
		})
	}
}

func requireGoodAfterPowerCut(t *testing.T, dir string, acked []string) {
	t.Helper()
	var save, final string
	for _, deed := range acked {
		if strings.HasPrefix(deed, "final") {
			final = deed
		} else {
			save = deed
		}
	}
	k := keeperIn(filepath.Join(dir, "runs"), 1)
	requireNoneIsWrong(t, k)
	require.NoError(t, checkpoint.SweepHalf(k.Dir))
	found, _, err := k.Newest(model, print) // what is damaged is passed over
	require.NoError(t, err)
	requireNotBefore(t, save, found.Path, false)
	result, _, err := k.Final(model, print)
	require.NoError(t, err)
	requireNotBefore(t, final, result.Path, true)
	requireCheckpoint(t, saveAs(t, k, manifest(40), content("40")), 40, content("40"))
	found, _, err = k.Newest(model, print)
	require.NoError(t, err)
	require.Equal(t, int64(40), found.Manifest.Step)
}

// requireNoneIsWrong requires that every checkpoint that verifies is one that
// was saved.
func requireNoneIsWrong(t *testing.T, k *checkpoint.Keeper) {
	t.Helper()
	sealed, err := filepath.Glob(filepath.Join(k.Dir, "models", model, "*", checkpoint.ManifestName))
	require.NoError(t, err)
	steps, err := filepath.Glob(filepath.Join(k.Dir, "models", model, "*", "*", checkpoint.ManifestName))
	require.NoError(t, err)
	for _, path := range append(sealed, steps...) {
		m, err := checkpoint.Verify(filepath.Dir(path))
		if err != nil {
			continue
		}
		text, err := os.ReadFile(filepath.Join(filepath.Dir(path), "model.pt"))
		require.NoError(t, err)
		deed := strings.TrimPrefix(string(text), "weights of ")
		require.Contains(t, deeds(), deed)
		requireCheckpoint(t, filepath.Dir(path), m.Step, content(deed))
		require.Equal(t, stepOfDeed(deed), m.Step)
	}
}

// There is no run before it is whole, whatever of it is on the medium; and what
// is there can be restored again.
func TestPowerCutBehindEachStepOfRestore(t *testing.T) {
	dir := t.TempDir()
	store, err := folder.New(filepath.Join(dir, storeName))
	require.NoError(t, err)
	r := newRig(t, store, 3)
	stop := r.start(t)
	r.mirror.Touch("run.json", "ledger.jsonl")
	r.save(t, 10, "10")
	r.save(t, 20, "20")
	r.flush(t)
	stop()
	cutPower(t, "restore", filepath.Join(dir, storeName), oneOf(1, 2), func(t *testing.T, dir string, _ []string) {
		t.Helper()
		k := keeperIn(filepath.Join(dir, "runs"), 1)
		if _, err := os.Stat(filepath.Join(k.Dir, "run.json")); err == nil {
			requireCheckpoint(t, checkpoints(k, "20"), 20, content("20"))
		}
		requireNoneIsWrong(t, k)
		require.NoError(t, playRestore(dir))
		requireCheckpoint(t, checkpoints(k, "20"), 20, content("20"))
	})
}

// Names in the folder of a process that writes records.
const (
	recordName = "state/record.json"
	logName    = "state/ledger.jsonl"
)

// recordOf returns the n-th version of a record; the later, the longer.
func recordOf(n int) []int { return slices.Repeat([]int{n}, n+1) }

// playRecords writes versions of one file, and lines of a log, some of which it
// syncs and tells of.
func playRecords(dir string) error {
	log, err := durable.OpenLog(filepath.Join(dir, logName))
	if err != nil {
		return err
	}
	for n := range 12 {
		if err := log.Append(n); err != nil {
			return err
		}
		if n%3 != 2 {
			continue
		}
		if err := errors.Join(log.Sync(), durable.WriteJSON(filepath.Join(dir, recordName), recordOf(n))); err != nil {
			return err
		}
		fmt.Println(n)
		if n == 5 { // a process that goes on with what it finds
			if err := log.Close(); err != nil {
				return err
			}
			if log, err = durable.OpenLog(filepath.Join(dir, logName)); err != nil {
				return err
			}
		}
	}
	return log.Close()
}

// A file that is written durably is the old one or the new one, and a log has
// every line that was synced; a new line goes behind whatever is left.
func TestPowerCutBehindEachStepOfRecordsAndLogs(t *testing.T) {
	cutPower(t, "records", "", oneOf(1, 2), func(t *testing.T, dir string, acked []string) {
		t.Helper()
		last := -1
		if len(acked) > 0 {
			last, _ = strconv.Atoi(acked[len(acked)-1])
		}
		data, err := os.ReadFile(filepath.Join(dir, recordName))
		if last >= 0 || !errors.Is(err, os.ErrNotExist) {
			require.NoError(t, err)
			var is []int
			require.NoError(t, json.Unmarshal(data, &is), "it is whole")
			require.GreaterOrEqual(t, is[0], last)
			require.Equal(t, recordOf(is[0]), is)
		}
		requireLines(t, filepath.Join(dir, logName), last)
		log, err := durable.OpenLog(filepath.Join(dir, logName))
		require.NoError(t, err)
		require.NoError(t, log.Append(99))
		require.NoError(t, log.Close())
		lines := requireLines(t, filepath.Join(dir, logName), last)
		require.Equal(t, 99, lines[len(lines)-1])
	})
}

// requireLines requires a log's lines up to last, and that those behind are in
// order: a line that is none is passed over, as readers of ledgers do.
func requireLines(t *testing.T, path string, last int) (lines []int) {
	t.Helper()
	require.NoError(t, durable.ReadLog(path, func(line []byte) error {
		var n int
		if json.Unmarshal(line, &n) == nil {
			lines = append(lines, n)
		}
		return nil
	}))
	require.True(t, slices.IsSorted(lines), lines)
	for n := range last + 1 {
		require.Contains(t, lines, n)
	}
	return lines
}
