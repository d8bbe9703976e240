package checkpoint_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A class is one way in which checkpoints get lost on their way to a store, what
// holds all the same, and the tests that show it.
type class struct {
	name  string
	holds string
	tests []string
}

// classes is the table of all that can go wrong. It is the first thing to extend
// when something does that is not in it.
func classes() []class {
	return []class{
		{"kill -9 anywhere", "what was acknowledged restores bit-equal, nothing half is offered, nothing is there twice", []string{
			"TestCrashAtEachStepOfSaveAndFinish", "TestCrashAtEachStepOfTheMirror", "TestCrashAtEachStepOfRestore",
			"TestKilledAtAnyCallOfASaveToTheDrive", "TestKilledAtAnyStepIsGoneOnWith", "TestWhatWasMadeBeforeAKillIsNotMadeTwice", "TestKilledWriterLeavesWholeFiles",
		}},
		{"power loss", "what was synced is enough; any of the rest may be lost, torn or reordered", []string{
			"TestPowerCutBehindEachStepOfSaveAndFinish", "TestPowerCutBehindEachStepOfRestore", "TestPowerCutBehindEachStepOfRecordsAndLogs",
		}},
		{"a step of a durable write fails", "the error is told, the old content stays, asking again does it", []string{
			"TestEachStepOfSaveAndFinishFailsOnce", "TestWriteFileKeepsTheOldContentOnError", "TestWriteFileLeavesNothingWhenItCannotRename",
		}},
		{"no space on the disk", "state stays readable, the error is told, it goes on when there is room", []string{
			"TestLogOnAFullDisk", "TestJournalOnAFullDiskIsDoneWithout", "TestMakeRoomKeepsTheNewestThatVerifies",
		}},
		{"the medium fails", "a file whose sync failed is not believed; what cannot be read is not condemned", []string{
			"TestEachStepOfSaveAndFinishFailsOnce", "TestNewestCondemnsNothingInTrouble",
		}},
		{"the source changes meanwhile", "what is published is one version, hashed as it was sent", []string{
			"TestSourceThatChangesIsNotPublished", "TestMirrorHoldsWhatWaits",
		}},
		{"rot in the store", "training never sees it: the checkpoint before it is taken, and that is said", []string{
			"TestRotIsNoticed", "TestRestoreFallsBack", "TestRestoreFallsBackFromTheFinalOne", "TestScrub",
		}},
		{"an upload kept in part, or wrongly", "size and SHA-256 of the store decide; without them it is handed, not mirrored", []string{
			"TestWrongContentIsNeverMirrored", "TestWithoutChecksumNothingIsMirrored", "TestUploadsGoOnWhereDriveSays", "TestMirrorNeverOverstates",
		}},
		{"a lost answer", "exactly one object", []string{
			"TestEveryPassingFaultIsOvercome", "TestWhatWasMadeBeforeAKillIsNotMadeTwice", "TestManyFilesAtOnceUnderFaults",
		}},
		{"duplicates, twins in the trash, files of others", "they confuse nobody, and are not touched", []string{
			"TestDuplicatesConfuseNobody", "TestTrashedFileIsSentAgain", "TestFilesOfOthersAreLeftAlone", "TestFilesOfAnotherSignInAreOurs",
		}},
		{"tokens expire or are withdrawn", "one new token, the same bytes; a withdrawn permission says what to do", []string{
			"TestExpiredTokensAreReplaced", "TestRefusedTokenIsReplacedOnce", "TestWithdrawnPermissionIsExplained",
			"TestRenewedSignInIsKeptForEverybody", "TestSignInThatWasWithdrawnIsExplained",
		}},
		{"the account is full", "one question at a time, account and missing bytes are named, it goes on by itself", []string{
			"TestFullDriveNamesAccountAndMissingBytes", "TestFullDriveIsNotHammered", "TestTrashIsNamedWhenItIsWhatFillsDrive", "TestOtherWordsForFull",
		}},
		{"storms of refusals", "they end, and are not answered with one of requests", []string{
			"TestStormOfRefusalsIsWeathered", "TestRetryAfterIsObeyed", "TestLastingFaultsAreExplained", "TestMirrorBacksOff",
		}},
		{"a slow or dead network", "what stalls is cut, nothing leaks, the newest checkpoint overtakes", []string{
			"TestSocketThatStallsIsGivenUp", "TestCancelledPutEnds", "TestClosedStoreLeavesNothingBehind", "TestMirrorSkipsWhatWasOvertaken", "TestMirrorOutlastsAnOutage",
		}},
		{"clocks differ", "numbers decide, not times", []string{
			"TestHighestNumberWins", "TestExpiredTokensAreReplaced", "TestRestorePrefersTheLaterHistory",
		}},
		{"two runtimes on one run", "one history; the other's data is set aside, never merged, never deleted", []string{
			"TestSuspendedOwnerIsFencedByTheDrive", "TestASecondRuntimeFencesTheFirst", "TestTwoTakeOverAtOnce", "TestBothHistoriesStay",
		}},
		{"listings that lag or lack", "nothing is deleted or made again because a listing lacks it", []string{
			"TestWhatListingsLackIsKnownByID", "TestReplacedByAnotherMachineIsSeenWithoutListing", "TestLostJournalIsSlowerNeverWrong", "TestDriveIsAStore",
		}},
		{"folders trashed, deleted or moved, permission lost", "it stops and says so, or makes them again", []string{
			"TestTrashedFolderStopsTheUpload", "TestDeletedFolderIsMadeAgain", "TestFolderThatIsMovedAwayStopsTheUpload",
			"TestFolderThatWasMovedIsMadeAgain", "TestLastingFaultsAreExplained",
		}},
		{"a hostile manifest", "nothing is written outside, sizes and counts are bounded", []string{
			"TestRestoreOfAHostileStore", "TestRestoreWritesBelowNoLink", "TestReadManifestIsBounded", "FuzzReadManifest",
		}},
		// What is in a folder that somebody else can write to is theirs to choose:
		// digests show damage, not malice. Workers load tensors with weights_only first.
		{"untrusted content", "nothing is unpickled here; only what a manifest lists is handed on", []string{
			"TestRestoreOfAHostileStore", "TestRestoreIgnoresWhatIsForeign",
		}},
		{"secrets", "no log, output or list of processes has a token, and files that hold one are their owner's alone", []string{
			"TestTokensAreNotLogged", "TestSignInTellsNoSecret", "TestJournalIsForItsOwnerOnly", "TestAddressThatABrowserIsStartedWithIsGoodOnce",
		}},
	}
}

func TestEveryFailureClassHasItsTests(t *testing.T) {
	there := testsBelow(t, ".")
	for _, c := range classes() {
		require.NotEmpty(t, c.tests, c.name)
		for _, name := range c.tests {
			assert.True(t, there[name], "%s: there is no %s", c.name, name)
		}
	}
}

// testsBelow returns the names of all tests in this folder and those below.
func testsBelow(t *testing.T, dir string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				found[f.Name.Name] = true
			}
		}
		return nil
	}))
	return found
}
