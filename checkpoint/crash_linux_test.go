package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/drive"
	"outlast/checkpoint/durable"
	"outlast/checkpoint/folder"
)

// ackedName is the file in which a process notes what it was told is done.
const ackedName = "acked"

// deeds are what a process of the crash tests does, in this order. The second 20
// takes the place of the first; of all but the last one is pruned.
func deeds() []string { return []string{"10", "20", "20 again", "final", "30", "final again"} }

// stepOfDeed returns the step that a deed saves.
func stepOfDeed(deed string) int64 {
	switch deed {
	case "10":
		return 10
	case "30", "final again":
		return 30
	}
	return 20
}

// play is what a process of the crash tests does.
func play(role, dir string) {
	var err error
	switch role {
	case "save":
		err = playSave(dir, onDisk, func(string, string, bool) error { return nil })
	case "save from memory":
		err = playSave(dir, inMemoryOf(dir), func(string, string, bool) error { return nil })
	case "mirror":
		err = playMirror(dir)
	case "restore":
		err = playRestore(dir)
	case "sync":
		err = playSync(dir)
	case "records":
		err = playRecords(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Names of what the processes in a folder share with the test.
const (
	addressName = "drive" // of the Drive that they use, if they use one
	storeName   = "store" // the folder that is one, if they do not
	largeName   = "large.bin"
)

// dealt returns what a deed in dir saves. A Drive gets a file that is too large
// for one request.
func dealt(dir, deed string) files {
	saved := content(deed)
	if _, err := os.Stat(filepath.Join(dir, addressName)); err == nil {
		saved[largeName] = large(deed)
	}
	return saved
}

func large(deed string) string { return strings.Repeat("weights of "+deed+" ", 5<<20/16) }

// onDisk returns where a worker stages what it hands over to k.
func onDisk(k *checkpoint.Keeper) string { return filepath.Join(k.Dir, "models", model, "staging") }

// inMemoryOf returns how a worker stages outside of the run's folder.
func inMemoryOf(dir string) func(*checkpoint.Keeper) string {
	return func(*checkpoint.Keeper) string { return filepath.Join(dir, "memory") }
}

// playSave does each deed, once more if it fails, and tells then of it.
func playSave(dir string, staging func(*checkpoint.Keeper) string, then func(deed, path string, final bool) error) error {
	k := keeperIn(filepath.Join(dir, "runs"), 1)
	// The supervisor does so before the first attempt: it writes model.json there.
	home := filepath.Join(k.Dir, "models", model)
	if durable.MkdirAll(home) != nil {
		if err := durable.MkdirAll(home); err != nil {
			return err
		}
	}
	for _, deed := range deeds() {
		m := manifest(stepOfDeed(deed))
		m.Generation, m.Writer = 1, "a"
		final := strings.HasPrefix(deed, "final")
		var path string
		var err error
		do := func() error { _, path, err = k.Finish(context.Background(), m); return err }
		if !final {
			staged := filepath.Join(staging(k), deed)
			if err := stageFiles(staged, dealt(dir, deed)); err != nil {
				return err
			}
			do = func() error { _, path, err = k.Save(context.Background(), m, staged); return err }
		}
		if do() != nil {
			err = do()
		}
		if err == nil {
			err = then(deed, path, final)
		}
		if err != nil {
			return err
		}
		fmt.Println(deed)
	}
	return nil
}

func stageFiles(dir string, content files) error {
	for name, text := range content {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			return err
		}
	}
	return nil
}

// playMirror copies each deed to the store in dir before it goes on.
func playMirror(dir string) error {
	m, err := mirrorIn(dir)
	if err != nil {
		return err
	}
	if err := m.TakeOver(1, "a"); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	err = playSave(dir, onDisk, func(deed, path string, final bool) error {
		m.Saved(model, stepOfDeed(deed), path, final)
		return m.Flush(ctx)
	})
	cancel()
	return errors.Join(err, <-ended)
}

func mirrorIn(dir string) (*checkpoint.Mirror, error) {
	store, err := storeIn(dir, filepath.Join(dir, "journal"))
	return &checkpoint.Mirror{
		Store: store, Dir: filepath.Join(dir, "runs"), Name: run, Keep: 1, Log: slog.New(slog.DiscardHandler),
	}, err
}

// storeIn returns the store of the processes in dir: a folder there, or the Drive
// whose address is there.
func storeIn(dir, journal string) (checkpoint.Store, error) {
	address, err := os.ReadFile(filepath.Join(dir, addressName))
	if errors.Is(err, fs.ErrNotExist) {
		return folder.New(filepath.Join(dir, storeName))
	}
	if err != nil {
		return nil, err
	}
	return drive.New(context.Background(), drive.Config{
		Folder: "Outlast", Endpoint: string(address), Journal: journal, Pause: time.Millisecond, Chunk: 1 << 20,
	})
}

// closeStore lets go of a store's journal, for the next one who wants it.
func closeStore(t *testing.T, s checkpoint.Store) {
	t.Helper()
	if c, ok := s.(io.Closer); ok {
		require.NoError(t, c.Close())
	}
}

// playRestore restores the run of the store in dir.
func playRestore(dir string) error {
	store, err := folder.New(filepath.Join(dir, storeName))
	if err != nil {
		return err
	}
	_, err = checkpoint.Restore(context.Background(), store, run, filepath.Join(dir, "runs"))
	return err
}

// oneOf returns of how many steps one is looked at. With the race detector fewer
// are: another one each time.
func oneOf(fast, slow int) int {
	if raced {
		return slow
	}
	return fast
}

// crashIn runs a role and calls check with a copy of what a crash would leave,
// for each of its steps, or each of every few; then it kills some processes
// really, and has the same checked of what those leave.
func crashIn(t *testing.T, role string, every int, prepare, check func(t *testing.T, dir string)) {
	t.Helper()
	dir := t.TempDir()
	prepare(t, dir)
	checked := 0
	tr := &trace{dir: dir}
	first := rand.N(every)
	tr.stop = func(n int) bool {
		if n%every == first {
			checked++
			left := filepath.Join(t.TempDir(), "left")
			require.NoError(t, os.CopyFS(left, os.DirFS(dir)))
			check(t, left)
			require.NoError(t, os.RemoveAll(left))
		}
		return t.Failed()
	}
	status := tr.run(t, role)
	require.True(t, status.Exited() && status.ExitStatus() == 0, "it ends as it should: %v", status)
	check(t, dir)
	t.Logf("%s: %d steps, %d checked", role, tr.calls, checked)
	require.Greater(t, checked*every, tr.calls/2)

	for range 5 {
		at := 1 + rand.N(tr.calls)
		dir := t.TempDir()
		prepare(t, dir)
		killed := &trace{dir: dir, stop: func(n int) bool { return n >= at }}
		if status := killed.run(t, role); status.Signaled() {
			require.Equal(t, syscall.SIGKILL, status.Signal())
		}
		check(t, dir)
	}
}

// acked returns the last save and the last final that a process was told of.
func acked(t *testing.T, dir string) (save, final string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, ackedName))
	require.NoError(t, err)
	for deed := range strings.Lines(string(data)) {
		if deed = strings.TrimSuffix(deed, "\n"); strings.HasPrefix(deed, "final") {
			final = deed
		} else {
			save = deed
		}
	}
	return save, final
}

// requireNotBefore requires that what was found is the deed that was
// acknowledged last, or one after it, whole. Nothing is found only if nothing
// was acknowledged.
func requireNotBefore(t *testing.T, acked, path string, final bool) {
	t.Helper()
	if path == "" {
		require.Empty(t, acked, "it was told, and is gone")
		return
	}
	m, err := checkpoint.Verify(path)
	require.NoError(t, err)
	require.Equal(t, final, m.Final)
	text, err := os.ReadFile(filepath.Join(path, "model.pt"))
	require.NoError(t, err)
	deed := strings.TrimPrefix(string(text), "weights of ")
	require.Equal(t, m.Step, stepOfDeed(deed))
	if acked != "" {
		order := deeds()
		if final { // it has the content of the save before it
			require.GreaterOrEqual(t, m.Step, stepOfDeed(acked))
			return
		}
		require.GreaterOrEqual(t, slices.Index(order, deed), slices.Index(order, acked))
	}
	want := content(deed)
	if _, err := os.Stat(filepath.Join(path, largeName)); err == nil {
		want[largeName] = large(deed)
	}
	requireCheckpoint(t, path, m.Step, want)
}

// requireGoodOnDisk is what the next process finds after a crash in Save or
// Finish, and that it can go on.
func requireGoodOnDisk(t *testing.T, dir string) {
	t.Helper()
	save, final := acked(t, dir)
	k := keeperIn(filepath.Join(dir, "runs"), 1)
	sealed, err := filepath.Glob(filepath.Join(checkpoints(k), "*", checkpoint.ManifestName))
	require.NoError(t, err)
	for _, m := range sealed {
		_, err := checkpoint.Verify(filepath.Dir(m))
		require.NoError(t, err, m)
	}
	require.NoError(t, checkpoint.SweepHalf(k.Dir))
	found, damage, err := k.Newest(model, print)
	require.NoError(t, err)
	for _, d := range damage {
		require.ErrorContains(t, errors.New(d.Why), checkpoint.ErrNoManifest.Error(), "what is sealed is whole")
	}
	requireNotBefore(t, save, found.Path, false)
	result, damage, err := k.Final(model, print)
	require.NoError(t, err)
	require.Empty(t, damage)
	requireNotBefore(t, final, result.Path, true)

	requireCheckpoint(t, saveAs(t, k, manifest(40), content("40")), 40, content("40"))
	require.Equal(t, []string{"40"}, stepFolders(t, k), "nothing is left over")
}

func TestCrashAtEachStepOfSaveAndFinish(t *testing.T) {
	for _, role := range []string{"save", "save from memory"} {
		t.Run(role, func(t *testing.T) {
			crashIn(t, role, oneOf(1, 3), func(*testing.T, string) {}, requireGoodOnDisk)
		})
	}
}

// Whatever call the disk refuses, once: what is asked again is done, nothing is
// lost and nothing is there twice.
func TestEachStepOfSaveAndFinishFailsOnce(t *testing.T) {
	if !canFail {
		t.Skip("the calls of a process cannot be made to fail here")
	}
	for _, role := range []string{"save", "save from memory"} {
		t.Run(role, func(t *testing.T) {
			every := oneOf(3, 12)
			refused := 0
			for at := 1 + rand.N(every); ; at += every {
				dir := t.TempDir()
				calls := 0
				tr := &trace{dir: dir, stop: func(int) bool { return false }}
				tr.fails = func(nr uint64) bool {
					if nr != syscall.SYS_FSYNC && nr != syscall.SYS_RENAMEAT { // the others are the worker's, too
						return false
					}
					calls++
					return calls == at
				}
				status := tr.run(t, role)
				require.True(t, status.Exited() && status.ExitStatus() == 0, "call %d: %v", at, status)
				require.Equal(t, deeds(), ackedDeeds(t, dir))
				k := keeperIn(filepath.Join(dir, "runs"), 1)
				requireCheckpoint(t, checkpoints(k, "30"), 30, content("30"))
				requireGoodOnDisk(t, dir)
				require.NoError(t, os.RemoveAll(dir))
				if calls < at {
					break
				}
				refused++
			}
			t.Logf("%s: %d calls refused", role, refused)
			require.Greater(t, refused, 3)
		})
	}
}

// ackedDeeds returns all that a process was told of.
func ackedDeeds(t *testing.T, dir string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, ackedName))
	require.NoError(t, err)
	return strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
}

// requireGoodInStore is what another machine finds after a crash of the mirror,
// and that the next process of this one brings the store up to date.
func requireGoodInStore(t *testing.T, dir string) {
	t.Helper()
	save, final := acked(t, dir)
	another, err := storeIn(dir, "")
	require.NoError(t, err)
	requireNoRot(t, another)
	fresh := filepath.Join(t.TempDir(), "fresh")
	defer os.RemoveAll(fresh) //nolint:errcheck // it only saves room
	report, err := checkpoint.Restore(t.Context(), another, run, fresh)
	closeStore(t, another)
	if save != "" || err == nil { // before that there may be no plan yet
		require.NoError(t, err)
		require.LessOrEqual(t, len(report.Notes), 1, "nothing is damaged")
		k := keeperIn(fresh, 1)
		result, _, err := k.Final(model, print)
		require.NoError(t, err)
		found, _, err := k.Newest(model, print)
		require.NoError(t, err)
		if result.Path != "" {
			requireNotBefore(t, final, result.Path, true)
		} else {
			if final != "" { // a later result is on its way into its place
				require.GreaterOrEqual(t, found.Manifest.Step, stepOfDeed(final))
			}
			requireNotBefore(t, save, found.Path, false)
		}
	}

	m, err := mirrorIn(dir)
	require.NoError(t, err)
	defer closeStore(t, m.Store)
	require.NoError(t, checkpoint.SweepHalf(filepath.Join(m.Dir, run)))
	newest, _, err := keeperIn(m.Dir, 1).Newest(model, print)
	require.NoError(t, err)
	require.NoError(t, m.TakeOver(2, "b"))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	if newest.Path != "" {
		m.Saved(model, newest.Manifest.Step, newest.Path, false)
	}
	require.NoError(t, m.Flush(t.Context()))
	cancel()
	require.NoError(t, <-ended)
	requireNoRot(t, m.Store)
	if newest.Path != "" {
		inv, err := checkpoint.TakeInventory(t.Context(), m.Store, run)
		require.NoError(t, err)
		step := strconv.FormatInt(newest.Manifest.Step, 10)
		require.Contains(t, states(inv.Checkpoints), step+" sealed")
		require.Len(t, inv.Checkpoints, len(slices.Compact(states(inv.Checkpoints))), "one of each step")
	}
}

// requireNoRot requires that the store shows nothing that is not whole.
func requireNoRot(t *testing.T, s checkpoint.Store) {
	t.Helper()
	runs, err := checkpoint.Summaries(t.Context(), s)
	require.NoError(t, err)
	for _, r := range runs {
		_, err := checkpoint.Scrub(t.Context(), s, r.Run, func(one checkpoint.Stored) {
			require.Contains(t, []checkpoint.StoredState{checkpoint.StoredVerified, checkpoint.StoredHalf}, one.State, "%s: %s", one.Folder, one.Problem)
		})
		require.NoError(t, err)
	}
}

func TestCrashAtEachStepOfTheMirror(t *testing.T) {
	crashIn(t, "mirror", oneOf(2, 9), func(t *testing.T, dir string) {
		t.Helper()
		write(t, filepath.Join(dir, "runs", run), files{
			"run.json": `{"models":[{"name":"cnn","fingerprint":"` + print + `"}]}`, "ledger.jsonl": "{}\n",
			"models/cnn/metrics.jsonl": "{}\n",
		})
	}, requireGoodInStore)
}

func TestCrashAtEachStepOfRestore(t *testing.T) {
	crashIn(t, "restore", oneOf(1, 3), func(t *testing.T, dir string) {
		t.Helper()
		store, err := folder.New(filepath.Join(dir, storeName))
		require.NoError(t, err)
		r := newRig(t, store, 3)
		stop := r.start(t)
		defer stop()
		r.mirror.Touch("run.json", "ledger.jsonl")
		r.save(t, 10, "10")
		r.flush(t)
		r.save(t, 20, "20")
		r.flush(t)
	}, func(t *testing.T, dir string) {
		t.Helper()
		k := keeperIn(filepath.Join(dir, "runs"), 1)
		whole := func() error {
			_, err := checkpoint.Verify(checkpoints(k, "20"))
			return err
		}
		if _, err := os.Stat(filepath.Join(k.Dir, "run.json")); err == nil {
			require.NoError(t, whole(), "there is no run before it is whole")
		}
		if _, err := os.Stat(filepath.Join(checkpoints(k, "20"), checkpoint.ManifestName)); err == nil {
			require.NoError(t, whole(), "there is no checkpoint before it is whole")
		}
		require.NoError(t, playRestore(dir))
		require.NoError(t, whole())
		require.NoError(t, checkpoint.SweepHalf(k.Dir))
		requireNothingHalf(t, k.Dir)
	})
}
