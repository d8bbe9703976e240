package drive_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/checkpointtest"
	"outlast/checkpoint/drive"
	"outlast/checkpoint/drivetest"
	"outlast/checkpoint/durable"
)

const mib = 1 << 20

// config is that of a store on a fake Drive, without long pauses.
func config(server *drivetest.Server) drive.Config {
	return drive.Config{Folder: "Outlast/tests", Endpoint: server.URL, Pause: time.Millisecond, Chunk: mib, Tries: 16}
}

// open opens a store for one test.
func open(t *testing.T, cfg drive.Config) *drive.Store {
	t.Helper()
	if cfg.Log == nil && testing.Verbose() {
		cfg.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	s, err := drive.New(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// journal is a place for one.
func journal(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "drive.journal")
}

// random returns bytes that look random, and are the same each time.
func random(n int, seed byte) []byte {
	content := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(content) //nolint:errcheck // it returns nil always
	return content
}

func digestOf(content []byte) durable.Digest {
	sum := sha256.Sum256(content)
	return durable.Digest{Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}
}

// put puts content from a reader that can go back, and wants it mirrored.
func put(t *testing.T, s checkpoint.Store, name string, content []byte) {
	t.Helper()
	d, err := s.Put(t.Context(), name, bytes.NewReader(content), digestOf(content))
	require.NoError(t, err, name)
	require.Equal(t, checkpoint.Mirrored, d, name)
}

func tryGet(ctx context.Context, s checkpoint.Store, name string) ([]byte, error) {
	r, err := s.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(r)
	return content, errors.Join(err, r.Close())
}

// requireHas wants a file's content to be there, byte for byte.
func requireHas(t *testing.T, s checkpoint.Store, name string, want []byte) {
	t.Helper()
	got, err := tryGet(t.Context(), s, name)
	require.NoError(t, err, name)
	require.True(t, bytes.Equal(want, got), "%s has %d bytes that are not those put", name, len(got))
}

func requireAbsent(t *testing.T, s checkpoint.Store, name string) {
	t.Helper()
	_, err := tryGet(t.Context(), s, name)
	require.ErrorIs(t, err, checkpoint.ErrNotFound)
}

// files returns the files, not folders, that are really in the fake and not in
// its trash, by path.
func files(server *drivetest.Server) map[string][]drivetest.File {
	found := map[string][]drivetest.File{}
	for _, f := range server.Files() {
		if !f.Folder && !f.Trashed {
			found[f.Path] = append(found[f.Path], f)
		}
	}
	return found
}

func TestDriveIsAStore(t *testing.T) {
	for name, options := range map[string]drivetest.Options{
		"as documented":         {},
		"listings that lag":     {Lag: 5 * time.Minute, ListLag: 5 * time.Minute},
		"short and empty pages": {PageSize: 2},
		"one fault in five":     {Percent: 20, Seed: 1, Lag: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			checkpointtest.TestStore(t, func(t *testing.T) checkpoint.Store {
				cfg := config(drivetest.Start(t, options))
				cfg.Journal = journal(t)
				return open(t, cfg)
			})
		})
	}
}

// errContent is what damage is called.
var errContent = durable.ErrContent

// durableDigest is what a file holds.
type durableDigest = durable.Digest
