//go:build unix

package checkpoint_test

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
)

// A process that has no file descriptors left cannot read a checkpoint; that is
// no reason to condemn it, and all before it.
func TestNewestCondemnsNothingInTrouble(t *testing.T) {
	k := newKeeper(t, 3)
	final := finished(t, k, 20, content("20"))
	save(t, k, 30, content("30"))
	for name, look := range map[string]func() ([]checkpoint.Damage, error){
		"newest": func() ([]checkpoint.Damage, error) {
			_, damage, err := k.Newest(model, print)
			return damage, err
		},
		"final": func() ([]checkpoint.Damage, error) {
			_, damage, err := k.Final(model, print)
			return damage, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			for spare := range 6 { // at least one is needed to look at the folder, two for a file
				var damage []checkpoint.Damage
				var err error
				withoutDescriptors(t, spare, func() { damage, err = look() })
				require.Empty(t, damage, "%d descriptors", spare)
				if spare < 2 {
					require.ErrorIs(t, err, syscall.EMFILE)
				}
			}
			require.Equal(t, steps(20, 30), stepFolders(t, k))
			requireCheckpoint(t, final, 20, content("20"))
		})
	}
}

// withoutDescriptors calls f while only so many more files can be opened.
func withoutDescriptors(t *testing.T, spare int, f func()) {
	t.Helper()
	var old syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old))
	var held []*os.File
	defer func() {
		for _, f := range held {
			f.Close() //nolint:errcheck // it was only read
		}
		require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old))
	}()
	lowest, err := os.Open(os.DevNull)
	require.NoError(t, err)
	held = append(held, lowest)
	limit := old
	limit.Cur = 64 + uint64(lowest.Fd())
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
	for {
		more, err := os.Open(os.DevNull)
		if err != nil {
			break
		}
		held = append(held, more)
	}
	for range spare {
		held[len(held)-1].Close() //nolint:errcheck // it was only read
		held = held[:len(held)-1]
	}
	f()
}

// A pipe in the place of a file would never be open.
func TestVerifyOpensNoPipes(t *testing.T) {
	for _, name := range []string{"model.pt", checkpoint.ManifestName} {
		t.Run(name, func(t *testing.T) {
			k := newKeeper(t, 3)
			replacedBy(name, func(path string) error { return syscall.Mkfifo(path, 0o644) })(t, save(t, k, 20, content("20")))
			ended := make(chan error, 1)
			go func() {
				_, err := checkpoint.Verify(checkpoints(k, "20"))
				ended <- err
			}()
			select {
			case err := <-ended:
				var damaged *checkpoint.DamagedError
				require.ErrorAs(t, err, &damaged)
			case <-time.After(10 * time.Second):
				t.Fatal("it waits for somebody who writes")
			}
		})
	}
}

// Links on the way are not followed, not even to the same content.
func TestVerifyFollowsNoLinks(t *testing.T) {
	for name, outside := range map[string]bool{"outside": true, "within": false} {
		t.Run(name, func(t *testing.T) {
			k := newKeeper(t, 3)
			path := save(t, k, 20, content("20"))
			to := filepath.Join(path, "moved")
			if outside {
				to = filepath.Join(t.TempDir(), "moved")
			}
			require.NoError(t, os.Rename(filepath.Join(path, "optimizer"), to))
			require.NoError(t, os.Symlink(to, filepath.Join(path, "optimizer")))
			_, err := checkpoint.Verify(path)
			var damaged *checkpoint.DamagedError
			require.ErrorAs(t, err, &damaged)
			require.Equal(t, "optimizer/state.pt", damaged.Path)
		})
	}
}

// Two checkpoints of one content do not become damaged by what the other's files
// are: a name that only differs in case is refused before anything is moved.
func TestSaveRefusesNamesThatClash(t *testing.T) {
	for i, clash := range []files{
		{"Model.pt": "1", "model.pt": "2"},
		{"a/B": "1", "A/b": "2"},
		{"x\ny": "1"},
		{"Manifest.json": "1"},
	} {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			k := newKeeper(t, 3)
			staged := stage(t, k, clash)
			_, _, err := k.Save(t.Context(), manifest(20), staged)
			if len(namesIn(t, staged)) < len(clash) {
				t.Skip("this file system has no two such files")
			}
			var name *checkpoint.NameError
			require.ErrorAs(t, err, &name)
			require.NotEmpty(t, name.Cure())
			require.NoDirExists(t, checkpoints(k))
			require.DirExists(t, staged)
		})
	}
}
