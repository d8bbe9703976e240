package drive_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/checkpoint/drive"
	"outlast/checkpoint/drivetest"
)

func TestFullDriveNamesAccountAndMissingBytes(t *testing.T) {
	for name, size := range map[string]int{"large": 5 * mib, "small": 2 * mib} {
		t.Run(name, func(t *testing.T) {
			server := drivetest.Start(t, drivetest.Options{Limit: 3 * mib})
			s := open(t, config(server))
			put(t, s, "kept", random(2*mib, 1))
			content := random(size, 2)
			_, err := s.Put(t.Context(), "file", bytes.NewReader(content), digestOf(content))
			var quota *drive.QuotaError
			require.ErrorAs(t, err, &quota)
			assert.Equal(t, int64(size-mib), quota.Missing())
			assert.Contains(t, err.Error(), "ann@example.com")
			assert.Contains(t, err.Error(), "MiB are missing")
			assert.Contains(t, quota.Cure(), "delete something")
			requireHas(t, s, "kept", random(2*mib, 1))
			requireAbsent(t, s, "file")
		})
	}
}

// Once it is known that there is no room, nothing is sent until there may be.
func TestFullDriveIsNotHammered(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{Limit: 6 * mib})
	s := open(t, config(server))
	put(t, s, "old", random(5*mib, 1))
	put(t, s, "other", random(100, 1))
	content := random(5*mib, 2)
	put2 := func() error {
		_, err := s.Put(t.Context(), "new", bytes.NewReader(content), digestOf(content))
		return err
	}
	var quota *drive.QuotaError
	require.ErrorAs(t, put2(), &quota)
	server.ResetCounts()
	for range 50 {
		require.ErrorAs(t, put2(), &quota)
	}
	require.LessOrEqual(t, server.Count(""), 1, "at most the folder is looked at")
	require.Equal(t, int64(4*mib+100), quota.Missing())

	require.NoError(t, s.Delete(t.Context(), "other"))
	require.ErrorAs(t, put2(), &quota, "not enough")
	require.Zero(t, server.Count(drivetest.OpSend))
	require.NoError(t, s.Delete(t.Context(), "old"))
	require.NoError(t, put2(), "room was made: it goes on by itself")
	requireHas(t, s, "new", content)
}

func TestTrashIsNamedWhenItIsWhatFillsDrive(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{Limit: 6 * mib})
	s := open(t, config(server))
	server.Trash(server.Plant(drivetest.RootID, "old film", random(5*mib, 1), nil), true)
	content := random(5*mib, 2)
	_, err := s.Put(t.Context(), "new", bytes.NewReader(content), digestOf(content))
	var quota *drive.QuotaError
	require.ErrorAs(t, err, &quota)
	require.Contains(t, quota.Cure(), "empty the trash of Drive, which holds 5.0 MiB")
}

// The older words for the same thing, and the one for accounts of machines.
func TestOtherWordsForFull(t *testing.T) {
	for _, kind := range []drivetest.Kind{drivetest.FullOld, drivetest.FullService} {
		t.Run(string(kind), func(t *testing.T) {
			server := drivetest.Start(t, drivetest.Options{})
			s := open(t, config(server))
			server.Inject(drivetest.Fault{Op: drivetest.OpOpen, Kind: kind})
			content := random(5*mib, 2)
			_, err := s.Put(t.Context(), "new", bytes.NewReader(content), digestOf(content))
			var quota *drive.QuotaError
			require.ErrorAs(t, err, &quota)
			require.WithinDuration(t, time.Now(), quota.Since, time.Minute)
			require.Zero(t, server.Count(drivetest.OpSend))
		})
	}
}

func TestAbout(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{Account: "bob@example.com", Limit: 15 << 30})
	s := open(t, config(server))
	put(t, s, "kept", random(1000, 1))
	server.Trash(server.Plant(drivetest.RootID, "film", random(500, 1), nil), true)
	about, err := s.About(t.Context())
	require.NoError(t, err)
	require.Equal(t, drive.About{Account: "bob@example.com", Limit: 15 << 30, Usage: 1500, Trash: 500}, about)
	server.Inject(drivetest.Fault{Op: drivetest.OpAbout, Kind: drivetest.NoScope})
	_, err = s.About(t.Context())
	var problem *drive.AccessError
	require.ErrorAs(t, err, &problem)
}
