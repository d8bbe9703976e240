package drive

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/api/googleapi"

	"outlast/checkpoint/drivetest"
	"outlast/checkpoint/durable"
)

// What Drive takes in a day is named as the likely cause where uploads are refused
// for long, though each begins with a look around that Drive allows.
func TestDailyCapIsSuspected(t *testing.T) {
	const hint = "750 GB"
	tooMuch := &googleapi.Error{Code: 403, Errors: []googleapi.ErrorItem{{Reason: "userRateLimitExceeded"}}}
	try := func(t *testing.T, work *tries) (cure string) { // until it is given up
		t.Helper()
		for {
			if err := work.again(t.Context(), tooMuch); err != nil {
				var problem *AccessError
				require.ErrorAs(t, err, &problem)
				return problem.Cure()
			}
		}
	}
	look := func(s *Store) *tries { return &tries{store: s, what: "look"} }
	upload := func(s *Store) *tries { return &tries{store: s, what: "upload", upload: true} }
	for name, test := range map[string]func(t *testing.T, s *Store){
		"long": func(t *testing.T, s *Store) {
			require.NotContains(t, try(t, upload(s)), hint)
			require.NoError(t, s.do(t.Context(), "look", func() error { return nil }))
			time.Sleep(capSuspicion)
			require.Contains(t, try(t, upload(s)), hint)
			s.pace.uploaded()
			require.NotContains(t, try(t, upload(s)), hint)
		},
		"other requests are refused": func(t *testing.T, s *Store) {
			require.NotContains(t, try(t, look(s)), hint)
			time.Sleep(capSuspicion)
			require.NotContains(t, try(t, upload(s)), hint)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, &Store{cfg: Config{}.withDefaults()}) })
		})
	}
}

// An upload that gets on shows that Drive takes more, and nothing else does.
func TestUploadsEndTheSuspicion(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{})
	s, err := New(t.Context(), Config{Folder: "Outlast", Endpoint: server.URL})
	require.NoError(t, err)
	defer s.Close() //nolint:errcheck // nothing depends on it
	for name, size := range map[string]int64{"small": 1, "large": smallFile + 1} {
		s.pace.refused()
		_, err := s.List(t.Context(), "")
		require.NoError(t, err)
		require.Positive(t, s.pace.limitedFor())
		_, err = s.Put(t.Context(), name, bytes.NewReader(make([]byte, size)), durable.Digest{Size: size})
		require.NoError(t, err)
		require.Zero(t, s.pace.limitedFor(), name)
	}
}

// Copies within Drive have a limit of their own. Where it is used up the content
// is sent, without trying for long first, and the next files do not try at all
// for some time.
func TestCopiesThatAreRefusedAreLeftAlone(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{})
	s, err := New(t.Context(), Config{Folder: "Outlast", Endpoint: server.URL, Pause: time.Millisecond})
	require.NoError(t, err)
	defer s.Close() //nolint:errcheck // nothing depends on it
	step := 0
	save := func() (copies, sent int) { // the same content each time
		server.ResetCounts()
		step++
		_, err := s.Put(t.Context(), fmt.Sprintf("%d/base.pt", step), bytes.NewReader(make([]byte, copyFrom)), durable.Digest{Size: copyFrom})
		require.NoError(t, err)
		return server.Count(drivetest.OpCopy), server.Count(drivetest.OpCreate)
	}
	requireSaved := func(wantCopies, wantSent int) {
		t.Helper()
		copies, sent := save()
		require.Equal(t, []int{wantCopies, wantSent}, []int{copies, sent})
	}
	requireSaved(0, 1)
	server.Inject(drivetest.Fault{Op: drivetest.OpCopy, Kind: drivetest.Unavailable})
	requireSaved(2, 0)
	server.Inject(drivetest.Fault{Op: drivetest.OpCopy, Kind: drivetest.Unavailable, Times: 2})
	requireSaved(2, 1)
	server.Inject(drivetest.Fault{Op: drivetest.OpCopy, Kind: drivetest.UserRateLimit, Times: 2})
	requireSaved(2, 1)
	requireSaved(0, 1)
	s.copies.until = time.Now()
	requireSaved(1, 0)
}
