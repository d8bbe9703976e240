package drive_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/drive"
	"outlast/checkpoint/drivetest"
	"outlast/checkpoint/durable"
)

// childVariable makes this binary an uploader that can be killed.
const childVariable = "OUTLAST_DRIVE_TEST_CHILD"

// An errand is what the child is to do.
type errand struct {
	Config drive.Config
	Files  map[string]string // name → path of its content
	Order  []string
	Stream bool // the content can be read once only
	Get    bool // read everything back
	Limit  int  // of files that it writes, in bytes, as if the disk were full then; 0: none
	Leaks  bool // it is an error to leave something behind
}

func TestMain(m *testing.M) {
	text := os.Getenv(childVariable)
	if text == "" {
		os.Exit(m.Run())
	}
	if err := runErrand(text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func runErrand(text string) error {
	var e errand
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		return err
	}
	if err := limitFiles(e.Limit); err != nil {
		return err
	}
	e.Config.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ctx := context.Background()
	s, err := drive.New(ctx, e.Config)
	if err != nil {
		return err
	}
	for _, name := range e.Order {
		if err := e.put(ctx, s, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if e.Get {
			r, err := s.Get(ctx, name)
			if err != nil {
				return err
			}
			if _, err := io.Copy(io.Discard, r); err != nil {
				return err
			}
			if err := r.Close(); err != nil {
				return err
			}
		}
	}
	if status, err := os.ReadFile("/proc/self/status"); err == nil { // of Linux: how large this process became
		os.Stderr.Write(status) //nolint:errcheck // the test sees that it is missing
	}
	err = s.Close()
	if e.Leaks {
		err = errors.Join(err, leftBehind(), heldOpen(e.Config.Journal))
	}
	return err
}

// leftBehind returns an error if a closed store goes on working.
func leftBehind() error {
	stacks := make([]byte, 1<<20)
	for range 500 {
		text := string(stacks[:runtime.Stack(stacks, true)])
		if !strings.Contains(text, "checkpoint/drive.") && !strings.Contains(text, "net/http.") {
			return nil
		}
		time.Sleep(10 * time.Millisecond) // connections take a moment to close
	}
	return fmt.Errorf("left behind:\n%s", stacks[:runtime.Stack(stacks, true)])
}

// heldOpen returns an error if this process has a file open, where the system
// tells.
func heldOpen(path string) error {
	open, err := filepath.Glob("/proc/self/fd/*") // of Linux
	for _, fd := range open {
		if to, linkErr := os.Readlink(fd); linkErr == nil && to == path {
			err = errors.Join(err, fmt.Errorf("%s is open yet", path))
		}
	}
	return err
}

func (e errand) put(ctx context.Context, s *drive.Store, name string) error {
	want, err := durable.HashFile(e.Files[name])
	if err != nil {
		return err
	}
	f, err := os.Open(e.Files[name])
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	var r io.Reader = f
	if e.Stream {
		r = struct{ io.Reader }{f}
	}
	d, err := s.Put(ctx, name, r, want)
	if err == nil && d != checkpoint.Mirrored {
		err = fmt.Errorf("only %s", d)
	}
	return err
}

// command returns the child with its errand.
func (e errand) command(t *testing.T) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	e.Config.Log = nil
	text, err := json.Marshal(e)
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	var said bytes.Buffer
	cmd.Stderr = &said
	return cmd, &said
}

// steps of a save at which a process can die: while a request is on its way to
// Drive, or its answer on the way back.
func steps() map[string]drivetest.Fault {
	all := map[string]drivetest.Fault{
		"in the middle of the bytes": {Op: drivetest.OpSend, Kind: drivetest.StallMiddle, Skip: 2},
	}
	for _, op := range []drivetest.Op{
		drivetest.OpIDs, drivetest.OpList, drivetest.OpMake, drivetest.OpOpen, drivetest.OpCreate, drivetest.OpDelete,
	} {
		for _, kind := range []drivetest.Kind{drivetest.Stall, drivetest.StallAfter} {
			all[fmt.Sprintf("%s: %s", op, kind)] = drivetest.Fault{Op: op, Kind: kind}
		}
	}
	for skip := range 6 {
		for _, kind := range []drivetest.Kind{drivetest.Stall, drivetest.StallAfter} {
			all[fmt.Sprintf("%s %d: %s", drivetest.OpSend, skip, kind)] = drivetest.Fault{Op: drivetest.OpSend, Kind: kind, Skip: skip}
		}
	}
	return all
}

// A process that is killed at any step of a save leaves nothing half visible.
// The next one goes on, makes each file once, and sends again only what Drive
// does not have.
func TestKilledAtAnyStepIsGoneOnWith(t *testing.T) {
	for name, fault := range steps() {
		if raceDetector && rand.N(3) > 0 { // which takes several times as long: others each time
			continue
		}
		t.Run(name, func(t *testing.T) {
			server := drivetest.Start(t, drivetest.Options{})
			e, contents := newErrand(t, server)
			server.Inject(fault)
			cmd, _ := e.command(t)
			require.NoError(t, cmd.Start())
			<-server.Stalled()
			require.NoError(t, cmd.Process.Kill())
			require.Error(t, cmd.Wait())

			watcher := open(t, config(server))
			for name, content := range contents {
				got, err := tryGet(t.Context(), watcher, name)
				if err == nil {
					require.True(t, bytes.Equal(content, got) || string(got) == "old", "half of %s is visible", name)
				} else {
					require.ErrorIs(t, err, checkpoint.ErrNotFound)
				}
			}
			server.ResetCounts()
			cmd, said := e.command(t)
			require.NoError(t, cmd.Run(), "%s", said)
			requireOnce(t, server, contents)
			if fault.Op == drivetest.OpSend && fault.Skip >= 2 {
				require.Zero(t, server.Count(drivetest.OpOpen), "the upload was begun again:\n%s", said)
			}
			require.NotContains(t, said.String(), "upload_id", "addresses of uploads are not logged")
		})
	}
}

// newErrand is a save of a large file, a small one, and a new version of one.
func newErrand(t *testing.T, server *drivetest.Server) (errand, map[string][]byte) {
	t.Helper()
	put(t, open(t, config(server)), "run/run.json", []byte("old"))
	contents := map[string][]byte{"run/40/model.pt": random(6*mib, 1), "run/40/metrics.jsonl": []byte("{}\n"), "run/run.json": []byte("new")}
	e := errand{Config: config(server), Files: map[string]string{}, Order: []string{"run/40/model.pt", "run/40/metrics.jsonl", "run/run.json"}}
	e.Config.Journal = journal(t)
	dir := t.TempDir()
	for name, content := range contents {
		e.Files[name] = filepath.Join(dir, strings.ReplaceAll(name, "/", "-"))
		require.NoError(t, os.WriteFile(e.Files[name], content, 0o600))
	}
	return e, contents
}

// requireOnce wants each file to be in Drive once, with the right content, and
// no other.
func requireOnce(t *testing.T, server *drivetest.Server, contents map[string][]byte) {
	t.Helper()
	there := files(server)
	require.Len(t, there, len(contents))
	for name, content := range contents {
		versions := there["Outlast/tests/"+name]
		require.Len(t, versions, 1, name)
		require.Equal(t, digestOf(content).SHA256, versions[0].SHA256, name)
	}
}

// The journal holds addresses that anybody could upload to.
func TestJournalIsForItsOwnerOnly(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{})
	cfg := config(server)
	cfg.Journal = journal(t)
	put(t, open(t, cfg), "run/model.pt", random(5*mib, 1))
	info, err := os.Stat(cfg.Journal)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	text, err := os.ReadFile(cfg.Journal)
	require.NoError(t, err)
	require.Contains(t, string(text), `"gone":true`, "the finished upload is dropped")
}

// Whatever a crash or a bad disk has made of the journal, the work goes on.
func TestDamagedJournalIsSurvived(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{})
	cfg := config(server)
	cfg.Journal = journal(t)
	s, err := drive.New(t.Context(), cfg)
	require.NoError(t, err)
	put(t, s, "run/a", []byte("a"))
	put(t, s, "run/b", []byte("b"))
	require.NoError(t, s.Close())
	whole, err := os.ReadFile(cfg.Journal)
	require.NoError(t, err)
	for cut := range len(whole) {
		if cut%29 != 0 { // every place would take too long
			continue
		}
		torn := bytes.Clone(whole[:cut])
		if cut%2 == 0 {
			torn = append(bytes.Clone(whole), whole[:cut]...)
			torn[cut] ^= 4
		}
		require.NoError(t, os.WriteFile(cfg.Journal, torn, 0o600))
		s, err := drive.New(t.Context(), cfg)
		require.NoError(t, err)
		requireHas(t, s, "run/a", []byte("a"))
		put(t, s, "run/b", fmt.Appendf(nil, "b%d", cut))
		require.NoError(t, s.Close())
		if len(files(server)["Outlast/tests/run/b"]) != 1 {
			t.Logf("cut %d: %s", cut, torn)
		}
		requireOnce(t, server, map[string][]byte{"run/a": []byte("a"), "run/b": fmt.Appendf(nil, "b%d", cut)})
	}
}

// Two stores with one journal: the second does without.
func TestJournalInUseIsDoneWithout(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{})
	cfg := config(server)
	cfg.Journal = journal(t)
	one, two := open(t, cfg), open(t, cfg)
	put(t, one, "run/a", []byte("a"))
	put(t, two, "run/b", []byte("b"))
	requireHas(t, one, "run/b", []byte("b"))
	requireHas(t, two, "run/a", []byte("a"))
}

// A full disk costs the journal what it would have saved, and nothing else.
func TestJournalOnAFullDiskIsDoneWithout(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{})
	e, contents := newErrand(t, server)
	e.Limit, e.Leaks = 2000, true
	cmd, said := e.command(t)
	require.NoError(t, cmd.Run(), "%s", said)
	require.Contains(t, said.String(), "drive journal is not written any more")
	requireOnce(t, server, contents)
	e.Limit = 0
	cmd, said = e.command(t)
	require.NoError(t, cmd.Run(), "%s", said)
	requireOnce(t, server, contents)
}

// A place where no journal can be kept costs what it would have saved, and
// nothing else.
func TestJournalThatCannotBeKeptIsDoneWithout(t *testing.T) {
	for name, prepare := range map[string]func(dir string) (journal string, err error){
		"a file in the way of its folder": func(dir string) (string, error) {
			return filepath.Join(dir, "drive", "journal"), os.WriteFile(filepath.Join(dir, "drive"), nil, 0o600)
		},
		"no file": func(dir string) (string, error) {
			return filepath.Join(dir, "journal"), os.Mkdir(filepath.Join(dir, "journal"), 0o700)
		},
		"no file can be made beside it": func(dir string) (string, error) {
			return filepath.Join(dir, strings.Repeat("j", 245)), nil // the name of a temporary one is too long
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := drivetest.Start(t, drivetest.Options{})
			cfg := config(server)
			var said bytes.Buffer
			cfg.Log = slog.New(slog.NewTextHandler(&said, nil))
			var err error
			cfg.Journal, err = prepare(t.TempDir())
			require.NoError(t, err)
			s := open(t, cfg)
			require.Contains(t, said.String(), "going on without a drive journal")
			put(t, s, "run/a", []byte("a"))
			put(t, s, "run/a", []byte("b"))
			requireHas(t, s, "run/a", []byte("b"))
			if _, err := os.Stat(cfg.Journal + ".lock"); err == nil {
				held, err := flock.New(cfg.Journal + ".lock").TryLock()
				require.NoError(t, err)
				require.True(t, held, "nobody uses it")
			}
		})
	}
}

// However it went, a store that is closed leaves no goroutine and no connection
// behind.
func TestClosedStoreLeavesNothingBehind(t *testing.T) {
	for name, faults := range map[string][]drivetest.Fault{
		"well": nil, // and connections are open when it is closed
		"badly": {
			{Op: drivetest.OpSend, Kind: drivetest.StallMiddle},
			{Op: drivetest.OpSend, Kind: drivetest.Cut},
			{Op: drivetest.OpDownload, Kind: drivetest.StallMiddle},
			{Op: drivetest.OpCreate, Kind: drivetest.Stall},
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := drivetest.Start(t, drivetest.Options{})
			e, contents := newErrand(t, server)
			e.Leaks, e.Get = true, true
			if faults != nil {
				e.Config.Stall = 100 * time.Millisecond
				server.SetPercent(20)
			}
			server.Inject(faults...)
			cmd, said := e.command(t)
			require.NoError(t, cmd.Run(), "%s", said)
			requireOnce(t, server, contents)
		})
	}
}

// The answer to the last request was lost with the process, and no listing shows
// yet what it made: the journal alone knows under which id to ask.
func TestWhatWasMadeBeforeAKillIsNotMadeTwice(t *testing.T) {
	for _, op := range []drivetest.Op{drivetest.OpCreate, drivetest.OpSend} {
		t.Run(string(op), func(t *testing.T) {
			server := slow(t)
			name, content := "run/small", []byte("small")
			if op == drivetest.OpSend {
				name, content = "run/large", random(5*mib, 1)
			}
			e := errand{Config: config(server), Files: map[string]string{name: filepath.Join(t.TempDir(), "file")}, Order: []string{name}}
			require.NoError(t, os.WriteFile(e.Files[name], content, 0o600))
			e.Config.Journal, e.Config.Chunk = journal(t), 16*mib
			server.Inject(drivetest.Fault{Op: op, Kind: drivetest.StallAfter})
			cmd, _ := e.command(t)
			require.NoError(t, cmd.Start())
			<-server.Stalled()
			require.NoError(t, cmd.Process.Kill())
			require.Error(t, cmd.Wait())
			require.Len(t, files(server), 1, "it was made")

			cmd, said := e.command(t)
			require.NoError(t, cmd.Run(), "%s", said)
			requireOnce(t, server, map[string][]byte{name: content})
		})
	}
}
