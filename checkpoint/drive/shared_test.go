package drive_test

import (
	"bytes"
	"fmt"
	pathpkg "path"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/drive"
	"outlast/checkpoint/drivetest"
)

// slow is a Drive whose listings show nothing new for the whole test.
func slow(t *testing.T) *drivetest.Server {
	t.Helper()
	return drivetest.Start(t, drivetest.Options{Lag: time.Hour, ListLag: time.Hour})
}

// folderOf returns the id of the folder at a path below My Drive.
func folderOf(t *testing.T, server *drivetest.Server, path string) string {
	t.Helper()
	for _, f := range server.Files() {
		if f.Path == path && f.Folder {
			return f.ID
		}
	}
	require.Fail(t, "no folder", path)
	return ""
}

// Another machine has replaced a file, and no listing shows it yet. Whoever
// knew the old one finds the new one, and puts its own after it.
func TestReplacedByAnotherMachineIsSeenWithoutListing(t *testing.T) {
	server := slow(t)
	ours := open(t, config(server))
	put(t, ours, "run/writer", []byte("generation 1"))
	server.Advance(2 * time.Hour)
	theirs := open(t, config(server))
	requireHas(t, theirs, "run/writer", []byte("generation 1"))

	put(t, theirs, "run/writer", []byte("generation 2"))
	requireHas(t, ours, "run/writer", []byte("generation 2"))
	put(t, theirs, "run/writer", []byte("generation 3"))
	put(t, ours, "run/writer", []byte("generation 4"))
	requireHas(t, theirs, "run/writer", []byte("generation 4"))
	require.Len(t, files(server)["Outlast/tests/run/writer"], 1)
}

// Who asks whether his own version is still there learns that it is not, and
// then finds the one that has replaced it. What he puts comes after that.
func TestConfirmFindsWhatReplacedItsVersion(t *testing.T) {
	server := slow(t)
	ours := open(t, config(server))
	first := []byte("generation 1")
	put(t, ours, "run/writer", first)
	server.Advance(2 * time.Hour)
	theirs := open(t, config(server))
	requireHas(t, theirs, "run/writer", first)
	_, err := ours.Confirm(t.Context(), "run/writer", digestOf(first))
	require.NoError(t, err)

	put(t, theirs, "run/writer", []byte("generation 2"))
	_, err = ours.Confirm(t.Context(), "run/writer", digestOf(first))
	require.ErrorIs(t, err, checkpoint.ErrNotFound)
	requireHas(t, ours, "run/writer", []byte("generation 2"))

	put(t, ours, "run/writer", first)
	requireHas(t, theirs, "run/writer", first)
	put(t, theirs, "run/writer", []byte("generation 3"))
	put(t, ours, "run/writer", first)
	requireHas(t, theirs, "run/writer", first)
	require.Len(t, files(server)["Outlast/tests/run/writer"], 1)
}

// What was made though its answer was lost, another machine has replaced. Who
// tries again does not hide his version behind that one.
func TestReplacedBeforeItsMakerKnewOfIt(t *testing.T) {
	server := slow(t)
	cfg := config(server)
	cfg.Tries = 1
	ours := open(t, cfg)
	put(t, ours, "run/other", []byte("so that the folder is there"))
	server.Inject(drivetest.Fault{Op: drivetest.OpCreate, Kind: drivetest.Lose})
	content := []byte("content")
	_, err := ours.Put(t.Context(), "run/file", bytes.NewReader(content), digestOf(content))
	require.Error(t, err)
	server.Advance(2 * time.Hour)
	theirs := open(t, config(server))
	put(t, theirs, "run/file", []byte("replaced"))

	put(t, ours, "run/file", content)
	requireHas(t, theirs, "run/file", content)
	require.Len(t, files(server)["Outlast/tests/run/file"], 1)
}

func TestDeletedByAnotherMachineIsGone(t *testing.T) {
	server := slow(t)
	ours := open(t, config(server))
	put(t, ours, "run/file", []byte("content"))
	server.Advance(2 * time.Hour)
	theirs := open(t, config(server))
	require.NoError(t, theirs.Delete(t.Context(), "run/file"))
	requireAbsent(t, ours, "run/file")
	requireAbsent(t, theirs, "run/file")
	require.NoError(t, ours.Delete(t.Context(), "run/file"))
	put(t, ours, "run/file", []byte("again"))
	requireHas(t, ours, "run/file", []byte("again"))
}

// What this store knows by id is listed and replaced, though listings lack it,
// also after a restart with the journal.
func TestWhatListingsLackIsKnownByID(t *testing.T) {
	server := slow(t)
	cfg := config(server)
	cfg.Journal = journal(t)
	s, err := drive.New(t.Context(), cfg)
	require.NoError(t, err)
	put(t, s, "run/a", []byte("a"))
	put(t, s, "run/b", []byte("b"))
	require.NoError(t, s.Delete(t.Context(), "run/b"))
	require.NoError(t, s.Close())

	s = open(t, cfg)
	entries, err := s.List(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, []checkpoint.Entry{{Name: "run/a", Size: 1}}, entries)
	requireHas(t, s, "run/a", []byte("a"))
	put(t, s, "run/a", []byte("new"))
	require.Len(t, files(server), 1)
}

// What the journal remembers and another machine has deleted is not listed.
func TestListForgetsWhatIsGone(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{})
	cfg := config(server)
	cfg.Journal = journal(t)
	s, err := drive.New(t.Context(), cfg)
	require.NoError(t, err)
	put(t, s, "run/a", []byte("a"))
	put(t, s, "run/b", []byte("b"))
	require.NoError(t, s.Close())
	require.NoError(t, open(t, config(server)).Delete(t.Context(), "run/b"))
	entries, err := open(t, cfg).List(t.Context(), "run/")
	require.NoError(t, err)
	require.Equal(t, []checkpoint.Entry{{Name: "run/a", Size: 1}}, entries)
}

// A lost journal costs time, and nothing else.
func TestLostJournalIsSlowerNeverWrong(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{})
	large := random(5*mib, 1)
	first := open(t, config(server))
	put(t, first, "run/large", large)
	put(t, first, "run/small", []byte("small"))

	s := open(t, config(server))
	server.ResetCounts()
	put(t, s, "run/large", large)
	put(t, s, "run/small", []byte("small"))
	require.Zero(t, server.Count(drivetest.OpSend)+server.Count(drivetest.OpCreate)+server.Count(drivetest.OpCopy), "both are there")
	put(t, s, "run/small", []byte("new"))
	require.NoError(t, s.Delete(t.Context(), "run/large"))
	require.Len(t, files(server), 1)
}

// Two machines that know nothing of each other make the same file: there are
// two of its name, everybody agrees on one, and what is deleted is all of it.
func TestDuplicatesConfuseNobody(t *testing.T) {
	server := slow(t)
	one, two := open(t, config(server)), open(t, config(server))
	put(t, one, "run/file", []byte("one"))
	put(t, two, "run/file", []byte("two"))
	server.Advance(2 * time.Hour)
	require.Len(t, files(server)["Outlast/tests/run/file"], 2)

	var seen [][]byte
	for range 3 {
		got, err := tryGet(t.Context(), open(t, config(server)), "run/file")
		require.NoError(t, err)
		seen = append(seen, got)
	}
	require.Equal(t, [][]byte{seen[0], seen[0], seen[0]}, seen)
	late := open(t, config(server))
	entries, err := late.List(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, entries, 1)
	put(t, late, "run/file", []byte("three"))
	require.Len(t, files(server)["Outlast/tests/run/file"], 1)
	require.NoError(t, late.Delete(t.Context(), "run/file"))
	require.Empty(t, files(server))
}

// What others have put beside our files is not read, replaced or deleted.
func TestFilesOfOthersAreLeftAlone(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{})
	put(t, open(t, config(server)), "run/file", []byte("ours"))
	folder := folderOf(t, server, "Outlast/tests/run")
	foreign := server.Plant(folder, "file", []byte("theirs"), nil)
	server.Plant(folder, "notes", []byte("theirs"), nil)
	twin := server.Plant(folder, "file", []byte("trashed"), map[string]string{"outlast": "1", "seq": "99"})
	server.Trash(twin, true)

	s := open(t, config(server))
	requireHas(t, s, "run/file", []byte("ours"))
	requireAbsent(t, s, "run/notes")
	entries, err := s.List(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, []checkpoint.Entry{{Name: "run/file", Size: 4}}, entries)
	put(t, s, "run/file", []byte("new"))
	require.NoError(t, s.Delete(t.Context(), "run/file"))
	require.NoError(t, s.Delete(t.Context(), "run/notes"))
	got, err := server.Content(foreign)
	require.NoError(t, err)
	require.Equal(t, "theirs", string(got))
	require.Len(t, files(server), 2, "with the folder they are in, which is no longer empty")
}

// Under another sign-in of the same person, Drive does not show what only the
// program that made a file may see. It is found all the same.
func TestFilesOfAnotherSignInAreOurs(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{})
	put(t, open(t, config(server)), "run/file", []byte("ours"))
	server.Plant(folderOf(t, server, "Outlast/tests/run"), "model", []byte("by Colab"), map[string]string{"outlast": "1", "seq": "1"})
	s := open(t, config(server))
	requireHas(t, s, "run/model", []byte("by Colab"))
	require.NoError(t, s.Delete(t.Context(), "run/model"))
	require.Len(t, files(server), 1)
}

// A person has put one file into the trash: it is not there any more.
func TestTrashedFileIsSentAgain(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{})
	s := open(t, config(server))
	put(t, s, "run/file", []byte("content"))
	server.Trash(files(server)["Outlast/tests/run/file"][0].ID, true)
	put(t, s, "run/file", []byte("content"))
	require.Len(t, files(server)["Outlast/tests/run/file"], 1)
}

// A crash between making a version and deleting the one before it leaves both.
// The number decides, whatever the clocks say.
func TestHighestNumberWins(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{})
	put(t, open(t, config(server)), "run/other", []byte("x"))
	folder := folderOf(t, server, "Outlast/tests/run")
	server.Plant(folder, "file", []byte("new"), map[string]string{"outlast": "1", "seq": "10"})
	server.Advance(time.Hour)
	server.Plant(folder, "file", []byte("old"), map[string]string{"outlast": "1", "seq": "9"})
	s := open(t, config(server))
	requireHas(t, s, "run/file", []byte("new"))
	put(t, s, "run/file", []byte("newest"))
	require.Len(t, files(server)["Outlast/tests/run/file"], 1)
}

// A folder that a Put is about to use is not tidied away because its last file
// is deleted meanwhile.
func TestFolderInUseIsNotTidiedAway(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{})
	cfg := config(server)
	cfg.Stall = time.Second
	s := open(t, cfg)
	put(t, s, "run/40/old", []byte("old"))
	server.Inject(drivetest.Fault{Op: drivetest.OpCreate, Kind: drivetest.Stall})
	ended := make(chan error, 1)
	go func() {
		_, err := s.Put(t.Context(), "run/40/new", bytes.NewReader([]byte("new")), digestOf([]byte("new")))
		ended <- err
	}()
	<-server.Stalled()
	require.NoError(t, s.Delete(t.Context(), "run/40/old"))
	for _, f := range server.Files() {
		require.False(t, f.Trashed, f.Path)
	}
	require.NoError(t, <-ended)
	requireHas(t, s, "run/40/new", []byte("new"))
}

// Deletes are for good: the trash does not fill with checkpoints.
func TestDeletedFilesAreNotInTheTrash(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{})
	s := open(t, config(server))
	put(t, s, "run/40/model.pt", random(5*mib, 1))
	put(t, s, "run/60/model.pt", random(5*mib, 2))
	require.NoError(t, s.Delete(t.Context(), "run/40/model.pt"))
	about, err := s.About(t.Context())
	require.NoError(t, err)
	require.Equal(t, drive.About{Account: "ann@example.com", Usage: 5 * mib}, about)
	for _, f := range server.Files() {
		require.Equal(t, f.Path == "Outlast/tests/run/40", f.Trashed, "the folder left empty, and nothing else: %s", f.Path)
	}
}

func TestTrashedFolderStopsTheUpload(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{})
	s := open(t, config(server))
	put(t, s, "run/a", []byte("a"))
	folder := folderOf(t, server, "Outlast")
	server.Trash(folder, true)
	for range 3 {
		_, err := s.Put(t.Context(), "run/b", bytes.NewReader(make([]byte, 5*mib)), digestOf(make([]byte, 5*mib)))
		var problem *drive.AccessError
		require.ErrorAs(t, err, &problem)
		require.Contains(t, problem.Cure(), "out of the trash")
	}
	require.Equal(t, 5, server.Count(drivetest.OpSend), "only the first of them was sent")
	server.Trash(folder, false)
	put(t, s, "run/b", []byte("b"))
	requireHas(t, s, "run/a", []byte("a"))
	require.Len(t, files(server), 2)
}

func TestDeletedFolderIsMadeAgain(t *testing.T) {
	for _, deleted := range []string{"Outlast", "Outlast/tests", "Outlast/tests/run"} {
		t.Run(deleted, func(t *testing.T) {
			server := drivetest.Start(t, drivetest.Options{})
			s := open(t, config(server))
			put(t, s, "run/a", []byte("a"))
			put(t, s, "run/large", random(5*mib, 1))
			server.Remove(folderOf(t, server, deleted))
			put(t, s, "run/b", []byte("b"))
			put(t, s, "run/large", random(5*mib, 1))
			requireAbsent(t, s, "run/a")
			entries, err := s.List(t.Context(), "")
			require.NoError(t, err)
			require.Len(t, entries, 2)
			requireHas(t, open(t, config(server)), "run/b", []byte("b"))
		})
	}
}

// Content that Drive has under another name is copied there.
func TestSameContentIsNotSentTwice(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{})
	s := open(t, config(server))
	frozen := random(6*mib, 1)
	put(t, s, "run/checkpoints/20/base.pt", frozen)
	server.ResetCounts()
	put(t, s, "run/checkpoints/40/base.pt", frozen)
	require.Zero(t, server.Count(drivetest.OpSend))
	require.Equal(t, 1, server.Count(drivetest.OpCopy))
	require.NoError(t, s.Delete(t.Context(), "run/checkpoints/20/base.pt"))
	requireHas(t, open(t, config(server)), "run/checkpoints/40/base.pt", frozen)

	server.Inject(drivetest.Fault{Op: drivetest.OpCopy, Kind: drivetest.NotYours})
	put(t, s, "run/final/base.pt", frozen)
	require.Positive(t, server.Count(drivetest.OpSend), "no copy to be had")
}

// moved is a folder of a store that a person moves away, or gives another name.
func moved() map[string]string {
	return map[string]string{"the store's parent": "Outlast", "the store": "Outlast/tests", "a run": "Outlast/tests/run"}
}

// While a process works, what it says is mirrored must be where the store's
// address leads: it stops until the folder is back.
func TestFolderThatIsMovedAwayStopsTheUpload(t *testing.T) {
	for name, path := range moved() {
		for _, renamed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, renamed %v", name, renamed), func(t *testing.T) {
				server := drivetest.Start(t, drivetest.Options{})
				cfg := config(server)
				cfg.Place = time.Nanosecond
				s := open(t, cfg)
				put(t, s, "run/a", []byte("a"))
				id := folderOf(t, server, path)
				parent := drivetest.RootID
				if above := pathpkg.Dir(path); above != "." {
					parent = folderOf(t, server, above)
				}
				if renamed {
					server.Move(id, parent, "moved away")
				} else {
					server.Move(id, server.PlantFolder(drivetest.RootID, "archive"), pathpkg.Base(path))
				}
				_, err := s.Put(t.Context(), "run/b", bytes.NewReader([]byte("b")), digestOf([]byte("b")))
				var problem *drive.AccessError
				require.ErrorAs(t, err, &problem)
				require.Contains(t, problem.Cure(), "put it back")
				server.Move(id, parent, pathpkg.Base(path))
				put(t, s, "run/b", []byte("b"))
				requireHas(t, open(t, config(server)), "run/a", []byte("a"))
				requireHas(t, open(t, config(server)), "run/b", []byte("b"))
			})
		}
	}
}

// The next process does not follow what was moved by its id, as its journal
// would have it. It leaves that alone, and puts everything where it belongs.
func TestFolderThatWasMovedIsMadeAgain(t *testing.T) {
	for name, path := range moved() {
		t.Run(name, func(t *testing.T) {
			server := drivetest.Start(t, drivetest.Options{})
			cfg := config(server)
			cfg.Journal = journal(t)
			s, err := drive.New(t.Context(), cfg)
			require.NoError(t, err)
			put(t, s, "run/a", []byte("a"))
			require.NoError(t, s.Close())
			server.Move(folderOf(t, server, path), drivetest.RootID, "moved away")
			s = open(t, cfg)
			requireAbsent(t, s, "run/a")
			put(t, s, "run/a", []byte("a"))
			put(t, s, "run/b", []byte("b"))
			requireHas(t, open(t, config(server)), "run/a", []byte("a"))
			requireHas(t, open(t, config(server)), "run/b", []byte("b"))
			require.Len(t, files(server), 3, "what was moved is still there")
		})
	}
}
