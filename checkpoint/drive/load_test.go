package drive_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"outlast/checkpoint/drive"
	"outlast/checkpoint/drivetest"
)

// bigFile makes a file of so many bytes that do not compress.
func bigFile(t testing.TB, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "big")
	f, err := os.Create(path)
	require.NoError(t, err)
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{1}), size)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return path
}

// However large a file is, it needs little memory: measured on a process that
// does nothing else.
func TestLargeFilesNeedLittleMemory(t *testing.T) {
	const most = 64 << 10 // KiB
	if raceDetector {
		t.Skip("the race detector takes several times as much")
	}
	path := bigFile(t, 300*mib)
	for name, e := range map[string]errand{
		"file":                       {},
		"reader that cannot go back": {Stream: true},
		"there and back":             {Get: true},
	} {
		t.Run(name, func(t *testing.T) {
			server := drivetest.Start(t, drivetest.Options{})
			e.Config = config(server)
			e.Config.Chunk = 0
			e.Files, e.Order = map[string]string{"big": path}, []string{"big"}
			cmd, said := e.command(t)
			require.NoError(t, cmd.Run(), "%s", said)
			match := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindStringSubmatch(said.String())
			if match == nil {
				t.Skip("this system does not tell a process's largest size")
			}
			used, err := strconv.Atoi(match[1])
			require.NoError(t, err)
			t.Logf("%d KiB at most", used)
			require.LessOrEqual(t, used, most)
		})
	}
}

// With one fault in five, whatever is said to be mirrored is there, and right.
func TestManyFilesAtOnceUnderFaults(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			server := drivetest.Start(t, drivetest.Options{Percent: 20, Seed: seed, Lag: time.Minute, PageSize: 7})
			cfg := config(server)
			cfg.Journal = journal(t)
			s := open(t, cfg)
			var mu sync.Mutex
			contents := map[string][]byte{}
			var g errgroup.Group
			for n := range 40 {
				g.Go(func() error {
					name := fmt.Sprintf("run/models/m%d/checkpoints/40/file%d", n%8, n)
					for version := range 2 {
						content := random(1+n*1000, byte(n+version))
						if n%8 == 0 {
							content = random(5*mib+n, byte(n+version))
						}
						_, err := s.Put(t.Context(), name, bytes.NewReader(content), digestOf(content))
						for n := 0; errors.Is(err, errContent) && n < 3; n++ { // kept wrongly three times, which a store may say
							_, err = s.Put(t.Context(), name, bytes.NewReader(content), digestOf(content))
						}
						if err != nil {
							return fmt.Errorf("%s: %w", name, err)
						}
						mu.Lock()
						contents[name] = content
						mu.Unlock()
					}
					return nil
				})
			}
			require.NoError(t, g.Wait())
			requireOnce(t, server, contents)
			fresh := open(t, config(server))
			for name, content := range contents {
				requireHas(t, fresh, name, content)
			}
			require.Greater(t, server.Injected(""), 50)
		})
	}
}

// A storm of refusals ends, and is not answered with one of requests.
func TestStormOfRefusalsIsWeathered(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{})
	s := open(t, config(server))
	put(t, s, "run/first", []byte("1"))
	server.Inject(
		drivetest.Fault{Kind: drivetest.UserRateLimit, Times: 8}, drivetest.Fault{Kind: drivetest.Unavailable, Times: 8},
		drivetest.Fault{Kind: drivetest.TooMany, Times: 8},
	)
	server.ResetCounts()
	var g errgroup.Group
	for n := range 6 {
		g.Go(func() error {
			content := random(100, byte(n))
			_, err := s.Put(t.Context(), fmt.Sprintf("run/%d", n), bytes.NewReader(content), digestOf(content))
			return err
		})
	}
	require.NoError(t, g.Wait())
	require.Equal(t, 24+6, server.Count(""), "each refusal costs one request, each file one more")
}

// The budget of a save: 39 models of 5 small files and a manifest.
func TestRequestsOfManySmallFiles(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{Lag: time.Minute})
	cfg := config(server)
	cfg.Journal = journal(t)
	s := open(t, cfg)
	save := func(step int) {
		var g errgroup.Group
		g.SetLimit(6)
		for m := range 39 {
			g.Go(func() error {
				folder := fmt.Sprintf("run/models/m%d/checkpoints/%d/", m, step)
				_, _ = tryGet(t.Context(), s, folder+"manifest.json") // as the mirror looks
				for n := range 6 {
					name := fmt.Sprintf("%sfile%d", folder, n)
					if n == 5 {
						name = folder + "manifest.json"
					}
					content := random(2000, byte(m*7+n+step))
					if _, err := s.Put(t.Context(), name, bytes.NewReader(content), digestOf(content)); err != nil {
						return err
					}
				}
				return nil
			})
		}
		require.NoError(t, g.Wait())
	}
	for _, step := range []int{20, 40} {
		server.ResetCounts()
		save(step)
		t.Logf("step %d: %d requests", step, server.Count(""))
		require.LessOrEqual(t, server.Count(""), 39*(2*5+1))
	}
}

// A connection that accepts and then does nothing is given up, and the file
// arrives over another.
func TestSocketThatStallsIsGivenUp(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{})
	cfg := config(server)
	cfg.Stall = 200 * time.Millisecond
	s := open(t, cfg)
	server.Inject(
		drivetest.Fault{Op: drivetest.OpSend, Kind: drivetest.StallMiddle},
		drivetest.Fault{Op: drivetest.OpAsk, Kind: drivetest.Stall},
	)
	content := random(40*mib, 1)
	put(t, s, "file", content)
	requireHas(t, s, "file", content)
}

// A cancelled Put ends at once, also in the middle of bytes.
func TestCancelledPutEnds(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{})
	s := open(t, config(server))
	server.Inject(drivetest.Fault{Op: drivetest.OpSend, Kind: drivetest.StallMiddle})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	content := random(5*mib, 1)
	go func() {
		_, err := s.Put(ctx, "file", bytes.NewReader(content), digestOf(content))
		ended <- err
	}()
	<-server.Stalled()
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	requireAbsent(t, s, "file")
	put(t, s, "file", content)
}

// BenchmarkPut compares a large file with a plain PUT of the same bytes to a
// server that does the same with them; both know the SHA-256 at the end.
func BenchmarkPut(b *testing.B) {
	const size = 1 << 30
	path := bigFile(b, size)
	server := drivetest.Start(b, drivetest.Options{Discard: true})
	cfg := drive.Config{Folder: "Outlast", Endpoint: server.URL}
	s, err := drive.New(b.Context(), cfg)
	require.NoError(b, err)
	defer s.Close() //nolint:errcheck // nothing depends on it
	plain := httptest.NewServer(http.HandlerFunc(server.Sink))
	defer plain.Close()
	want := plainPut(b, plain.URL, path)
	ours, theirs := time.Hour, time.Hour // the fastest of each: others use this machine too
	for n := range b.N {
		began := time.Now()
		plainPut(b, plain.URL, path)
		theirs = min(theirs, time.Since(began))
		f, err := os.Open(path)
		require.NoError(b, err)
		began = time.Now()
		_, err = s.Put(b.Context(), fmt.Sprintf("run/%d", n), f, want)
		ours = min(ours, time.Since(began))
		require.NoError(b, err)
		require.NoError(b, f.Close())
		require.NoError(b, s.Delete(b.Context(), fmt.Sprintf("run/%d", n))) // or the next one is copied
	}
	b.SetBytes(size)
	b.ReportMetric(theirs.Seconds()/ours.Seconds(), "of-plain-PUT")
}

// plainPut sends a file in one request, and hashes it on the way.
func plainPut(b *testing.B, url, path string) (d durableDigest) {
	b.Helper()
	f, err := os.Open(path)
	require.NoError(b, err)
	defer f.Close() //nolint:errcheck // it was only read
	info, err := f.Stat()
	require.NoError(b, err)
	sum := sha256.New()
	req, err := http.NewRequestWithContext(b.Context(), http.MethodPut, url, io.TeeReader(f, sum))
	require.NoError(b, err)
	req.ContentLength = info.Size()
	resp, err := http.DefaultClient.Do(req)
	require.NoError(b, err)
	answer, err := io.ReadAll(resp.Body)
	require.NoError(b, err)
	require.NoError(b, resp.Body.Close())
	d.Size, d.SHA256 = info.Size(), hex.EncodeToString(sum.Sum(nil))
	require.Equal(b, d.SHA256, string(answer))
	return d
}
