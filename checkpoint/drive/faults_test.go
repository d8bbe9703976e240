package drive_test

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/drive"
	"outlast/checkpoint/drivetest"
)

// Whatever goes wrong with one request, a large and a small file arrive, once
// each, and say so.
func TestEveryPassingFaultIsOvercome(t *testing.T) {
	t.Parallel()
	kinds := []drivetest.Kind{
		drivetest.RateLimit, drivetest.UserRateLimit, drivetest.TooMany, drivetest.ServerError, drivetest.BadGateway,
		drivetest.Unavailable, drivetest.Drop, drivetest.Lose, drivetest.TornAnswer, drivetest.Stall,
	}
	ops := []drivetest.Op{
		drivetest.OpIDs, drivetest.OpList, drivetest.OpMake, drivetest.OpCreate, drivetest.OpOpen, drivetest.OpSend,
		drivetest.OpGet, drivetest.OpDownload, drivetest.OpDelete,
	}
	for _, op := range ops {
		for _, kind := range kinds {
			t.Run(fmt.Sprintf("%s/%s", op, kind), func(t *testing.T) {
				t.Parallel()
				requireOvercome(t, drivetest.Fault{Op: op, Kind: kind, Times: 2})
			})
		}
	}
	for op, kinds := range map[drivetest.Op][]drivetest.Kind{
		drivetest.OpSend:     {drivetest.Cut, drivetest.Short, drivetest.StallMiddle, drivetest.Expire404, drivetest.Expire410, drivetest.Flip},
		drivetest.OpDownload: {drivetest.Cut, drivetest.StallMiddle},
		drivetest.OpCreate:   {drivetest.Flip, drivetest.StaleID},
		drivetest.OpOpen:     {drivetest.StaleID},
		drivetest.OpList:     {drivetest.Incomplete},
	} {
		for _, kind := range kinds {
			t.Run(fmt.Sprintf("%s/%s", op, kind), func(t *testing.T) {
				t.Parallel()
				requireOvercome(t, drivetest.Fault{Op: op, Kind: kind, Times: 2})
			})
		}
	}
}

// requireOvercome puts, replaces, gets and lists files while a fault happens.
func requireOvercome(t *testing.T, fault drivetest.Fault) {
	t.Helper()
	server := drivetest.Start(t, drivetest.Options{})
	cfg := config(server)
	cfg.Stall = 100 * time.Millisecond
	s := open(t, cfg)
	server.Inject(fault)
	large, small := random(5*mib, 1), []byte("{}")
	put(t, s, "run/model.pt", large)
	put(t, s, "run/run.json", []byte("old"))
	put(t, s, "run/run.json", small)
	put(t, s, "run/run.json", small)
	again := open(t, cfg) // knows nothing
	requireHas(t, again, "run/model.pt", large)
	requireHas(t, again, "run/run.json", small)
	require.Positive(t, server.Injected(fault.Kind), "the fault has happened")
	for path, versions := range files(server) {
		require.Len(t, versions, 1, path)
	}
	require.Len(t, files(server), 2)
}

// The id that was settled for the next version was not used for too long, as
// those in stock: the version gets another one.
func TestIDsThatLieAboutForTooLong(t *testing.T) {
	for name, content := range map[string][]byte{"small": []byte("new"), "large": random(5*mib, 1)} {
		t.Run(name, func(t *testing.T) {
			server := drivetest.Start(t, drivetest.Options{})
			s := open(t, config(server))
			put(t, s, "run/file", []byte("old"))
			server.ExpireIDs()
			put(t, s, "run/file", content)
			requireHas(t, open(t, config(server)), "run/file", content)
			require.Len(t, files(server)["Outlast/tests/run/file"], 1)
		})
	}
}

// A session that is lost near its end costs the bytes that it had, and no more:
// what Drive takes of them the second time is no failure.
func TestSessionLostLateBeginsAgain(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{})
	cfg := config(server)
	cfg.Tries = 3
	s := open(t, cfg)
	server.Inject(drivetest.Fault{Op: drivetest.OpSend, Kind: drivetest.Expire404, Skip: 38})
	put(t, s, "file", random(40*mib, 1))
	require.Equal(t, 39+40, server.Count(drivetest.OpSend))
	require.Zero(t, server.Count(drivetest.OpAsk), "there is nothing to be asked")
}

// A session that is lost at the same place each time is given up.
func TestSessionLostAgainAndAgainIsGivenUp(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{})
	cfg := config(server)
	cfg.Tries = 3
	s := open(t, cfg)
	for n := range 10 { // each time with four chunks accepted
		server.Inject(drivetest.Fault{Op: drivetest.OpSend, Kind: drivetest.Expire404, Skip: 4 * (n + 1)})
	}
	content := random(6*mib, 1)
	_, err := s.Put(t.Context(), "file", bytes.NewReader(content), digestOf(content))
	var problem *drive.AccessError
	require.ErrorAs(t, err, &problem)
	require.Equal(t, 3, server.Injected(drivetest.Expire404))
	requireAbsent(t, s, "file")
}

// What lasts is told in three parts, and nothing is half there.
func TestLastingFaultsAreExplained(t *testing.T) {
	for name, test := range map[string]struct {
		kind drivetest.Kind
		why  string // part of the reason
		cure string // part of what to do
	}{
		"no scope":                {drivetest.NoScope, "insufficientPermissions", "auth"},
		"API not enabled":         {drivetest.NotEnabled, "accessNotConfigured", "enable the Google Drive API"},
		"administrator":           {drivetest.DomainPolicy, "domainPolicy", "another account"},
		"another program's":       {drivetest.NotYours, "appNotAuthorizedToFile", "another folder"},
		"folder full":             {drivetest.TooManyChildren, "numChildrenInNonRootLimitExceeded", "another folder"},
		"daily limit":             {drivetest.DailyLimit, "dailyLimitExceeded", "tried again"},
		"token refused":           {drivetest.Unauthorized, "authError", "sign in"},
		"servers down":            {drivetest.BadGateway, "502", "tried again"},
		"too many requests":       {drivetest.RateLimit, "rateLimitExceeded", "tried again"},
		"connections always lost": {drivetest.Drop, "EOF", "network"},
	} {
		for _, large := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, large %v", name, large), func(t *testing.T) {
				server := drivetest.Start(t, drivetest.Options{})
				cfg := config(server)
				cfg.Tries = 4
				s := open(t, cfg)
				op, content := drivetest.OpCreate, []byte("small")
				if large {
					op, content = drivetest.OpOpen, random(5*mib, 1)
				}
				put(t, s, "first", []byte("so that the folder is there"))
				server.Inject(drivetest.Fault{Op: op, Kind: test.kind, Times: 1000})
				_, err := s.Put(t.Context(), "file", bytes.NewReader(content), digestOf(content))
				var problem *drive.AccessError
				require.ErrorAs(t, err, &problem)
				assert.Contains(t, err.Error(), "file")
				assert.Contains(t, err.Error(), test.why)
				assert.Contains(t, problem.Cure(), test.cure)
				assert.Less(t, server.Injected(test.kind), 6, "no hammering")
				requireAbsent(t, s, "file")
			})
		}
	}
}

// Drive sometimes does not know the SHA-256. Then nothing is called mirrored.
func TestWithoutChecksumNothingIsMirrored(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{})
	s := open(t, config(server))
	server.HideChecksums(true)
	for name, content := range map[string][]byte{"small": []byte("small"), "large": random(5*mib, 1)} {
		d, err := s.Put(t.Context(), name, bytes.NewReader(content), digestOf(content))
		require.NoError(t, err)
		require.Equal(t, checkpoint.Handed, d)
		requireHas(t, s, name, content)
	}
	server.HideChecksums(false)
	put(t, s, "small", []byte("small"))
	require.Len(t, files(server), 2)
}

// A file that Drive keeps wrongly each time is never called mirrored, and does
// not stay.
func TestWrongContentIsNeverMirrored(t *testing.T) {
	for name, op := range map[string]drivetest.Op{"small": drivetest.OpCreate, "large": drivetest.OpSend} {
		t.Run(name, func(t *testing.T) {
			server := drivetest.Start(t, drivetest.Options{})
			s := open(t, config(server))
			content := random(5*mib, 1)
			if name == "small" {
				content = content[:100]
			}
			put(t, s, "file", []byte("old"))
			server.Inject(drivetest.Fault{Op: op, Kind: drivetest.Flip, Times: 1000})
			_, err := s.Put(t.Context(), "file", bytes.NewReader(content), digestOf(content))
			require.Error(t, err)
			requireHas(t, s, "file", []byte("old"))
			require.Len(t, files(server)["Outlast/tests/file"], 1)
		})
	}
}

func TestRotIsNoticed(t *testing.T) {
	for name, damage := range map[string]func(server *drivetest.Server, id string){
		"one bit":   func(server *drivetest.Server, id string) { server.Rot(id) },
		"cut short": func(server *drivetest.Server, id string) { server.Truncate(id, 3) },
		"empty":     func(server *drivetest.Server, id string) { server.Truncate(id, 0) },
	} {
		for _, size := range []int{100, 5 * mib} {
			t.Run(fmt.Sprintf("%s, %d bytes", name, size), func(t *testing.T) {
				server := drivetest.Start(t, drivetest.Options{})
				s := open(t, config(server))
				put(t, s, "file", random(size, 1))
				damage(server, files(server)["Outlast/tests/file"][0].ID)
				_, err := tryGet(t.Context(), s, "file")
				require.ErrorIs(t, err, errContent)
			})
		}
	}
}

// Drive answers what it is asked, and says when to come again.
func TestRetryAfterIsObeyed(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{})
	s := open(t, config(server))
	put(t, s, "first", []byte("1"))
	server.Inject(drivetest.Fault{Op: drivetest.OpCreate, Kind: drivetest.TooMany, RetryAfter: time.Second})
	began := time.Now()
	put(t, s, "file", []byte("content"))
	require.GreaterOrEqual(t, time.Since(began), time.Second)
}

func TestSessionOnAnotherHostIsNotFollowed(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{})
	s := open(t, config(server))
	content := random(5*mib, 1)
	server.Inject(drivetest.Fault{Op: drivetest.OpOpen, Kind: drivetest.OtherHost})
	_, err := s.Put(t.Context(), "file", bytes.NewReader(content), digestOf(content))
	require.ErrorContains(t, err, "another host")
	require.Equal(t, 0, server.Count(drivetest.OpSend))
}

// Uploads that do not get through are tried in smaller pieces.
func TestUploadsGoOnWhereDriveSays(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{Seed: 3})
	cfg := config(server)
	cfg.Chunk = 64 * mib
	s := open(t, cfg)
	server.Inject(
		drivetest.Fault{Op: drivetest.OpSend, Kind: drivetest.Short, Times: 4},
		drivetest.Fault{Op: drivetest.OpSend, Kind: drivetest.Cut, Times: 4},
		drivetest.Fault{Op: drivetest.OpAsk, Kind: drivetest.LoseBytes, Times: 1},
	)
	content := random(40*mib, 1)
	put(t, s, "file", content)
	require.Equal(t, 1, server.Count(drivetest.OpOpen), "one session was enough")
	requireHas(t, s, "file", content)
}

// The source must not change while it is read; if it does, nothing is published.
func TestSourceThatChangesIsNotPublished(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{})
	s := open(t, config(server))
	content := random(6*mib, 1)
	want := digestOf(content)
	changing := &changingFile{Reader: bytes.NewReader(content), content: content}
	_, err := s.Put(t.Context(), "file", changing, want)
	require.ErrorIs(t, err, errContent)
	require.Zero(t, server.Count(drivetest.OpDelete), "it was there for a moment")
	require.Empty(t, files(server))
	requireAbsent(t, s, "file")
}

// changingFile changes behind the reader's back once half of it was read.
type changingFile struct {
	*bytes.Reader
	content []byte
	once    sync.Once
}

func (c *changingFile) ReadAt(p []byte, offset int64) (int, error) {
	if offset > int64(len(c.content)/2) {
		c.once.Do(func() { c.content[len(c.content)-1] ^= 1 })
	}
	return c.Reader.ReadAt(p, offset)
}

// A session of an earlier process that answers questions, but takes nothing, is
// dropped. That Drive takes nothing from anybody is no fault of the session.
func TestSessionThatTakesNothingIsDropped(t *testing.T) {
	for kind, opens := range map[drivetest.Kind]int{drivetest.Unavailable: 1, drivetest.UserRateLimit: 0} {
		t.Run(string(kind), func(t *testing.T) {
			server := drivetest.Start(t, drivetest.Options{})
			cfg := config(server)
			cfg.Journal, cfg.Tries = journal(t), 3
			content := random(6*mib, 1)
			once := func() error {
				s, err := drive.New(t.Context(), cfg)
				require.NoError(t, err)
				defer s.Close() //nolint:errcheck // nothing depends on it
				_, err = s.Put(t.Context(), "file", bytes.NewReader(content), digestOf(content))
				return err
			}
			server.Inject(drivetest.Fault{Op: drivetest.OpSend, Kind: kind, Skip: 4, Times: 2 * cfg.Tries})
			require.Error(t, once(), "it has moved, and is kept")
			server.ResetCounts()
			require.Error(t, once(), "it has not")
			require.Zero(t, server.Count(drivetest.OpOpen))
			require.NoError(t, once())
			require.Equal(t, opens, server.Count(drivetest.OpOpen))
			requireHas(t, open(t, config(server)), "file", content)
		})
	}
}

// A reader that cannot go back goes on with what an earlier process has sent: it
// reads up to there, in its first window or far behind it.
func TestStreamGoesOnWithAnEarlierSession(t *testing.T) {
	for _, sent := range []int{3, 12} {
		t.Run(fmt.Sprintf("%d MiB", sent), func(t *testing.T) {
			server := drivetest.Start(t, drivetest.Options{})
			cfg := config(server)
			cfg.Journal, cfg.Tries = journal(t), 3
			content := random(20*mib, 1)
			once := func() (checkpoint.Durability, error) {
				s, err := drive.New(t.Context(), cfg)
				require.NoError(t, err)
				defer s.Close() //nolint:errcheck // nothing depends on it
				return s.Put(t.Context(), "file", struct{ io.Reader }{bytes.NewReader(content)}, digestOf(content))
			}
			server.Inject(drivetest.Fault{Op: drivetest.OpSend, Kind: drivetest.Unavailable, Skip: sent, Times: cfg.Tries})
			_, err := once()
			require.Error(t, err)
			server.ResetCounts()
			d, err := once()
			require.NoError(t, err)
			require.Equal(t, checkpoint.Mirrored, d)
			require.Zero(t, server.Count(drivetest.OpOpen), "the upload was begun again")
			require.Equal(t, 20-sent, server.Count(drivetest.OpSend))
			requireHas(t, open(t, config(server)), "file", content)
		})
	}
}
