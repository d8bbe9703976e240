package checkpoint_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/folder"
)

// The benchmarks measure what a promise costs: each does its work and, in turn,
// that of a peer without the promise, and reports how many times as long it took
// (x_plain). They are about the disk that the temporary folder is on.

// shapes are those of checkpoints: one large file, or many small ones.
func shapes() map[string][]int {
	small := make([]int, 256)
	for i := range small {
		small[i] = 64 << 10
	}
	return map[string][]int{"1x256MiB": {256 << 20}, "256x64KiB": small}
}

func each(b *testing.B, f func(b *testing.B, sizes []int)) {
	b.Helper()
	for _, name := range []string{"1x256MiB", "256x64KiB"} {
		b.Run(name, func(b *testing.B) {
			sizes := shapes()[name]
			total := 0
			for _, size := range sizes {
				total += size
			}
			b.SetBytes(int64(total))
			f(b, sizes)
		})
	}
}

// fileNames returns the names of files of these sizes.
func fileNames(sizes []int) []string {
	names := make([]string, len(sizes))
	for i := range sizes {
		names[i] = fmt.Sprintf("%03d.pt", i)
	}
	return names
}

func writeSizes(b *testing.B, dir string, sizes []int) {
	b.Helper()
	require.NoError(b, os.MkdirAll(dir, 0o755))
	data := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{}).Read(data) //nolint:errcheck // it never fails
	for i, name := range fileNames(sizes) {
		f, err := os.Create(filepath.Join(dir, name))
		require.NoError(b, err)
		for left := sizes[i]; left > 0; left -= len(data) {
			_, err := f.Write(data[:min(left, len(data))])
			require.NoError(b, err)
		}
		require.NoError(b, f.Close())
	}
}

// ratio runs ours and plain in turn and reports how they compare.
func ratio(b *testing.B, ours, plain func(n int)) {
	b.Helper()
	var took, peer time.Duration
	n := 0
	for b.Loop() {
		start := time.Now()
		ours(n)
		took += time.Since(start)
		b.StopTimer()
		start = time.Now()
		plain(n)
		peer += time.Since(start)
		b.StartTimer()
		n++
	}
	b.ReportMetric(float64(took)/float64(peer), "x_plain")
	b.ReportMetric(float64(peer.Microseconds())/float64(n)/1000, "plain_ms")
}

// Writing a checkpoint as a worker does and saving it, against writing and
// syncing the same files.
func BenchmarkSave(b *testing.B) {
	each(b, func(b *testing.B, sizes []int) {
		b.Helper()
		dir := b.TempDir()
		k := keeperIn(dir, 1)
		ratio(b, func(n int) {
			staged := filepath.Join(dir, "staged")
			writeSizes(b, staged, sizes)
			_, _, err := k.Save(b.Context(), manifest(int64(n)), staged)
			require.NoError(b, err)
		}, func(int) {
			plain := filepath.Join(dir, "plain")
			writeSizes(b, plain, sizes)
			for _, name := range fileNames(sizes) {
				syncFile(b, filepath.Join(plain, name))
			}
			require.NoError(b, os.RemoveAll(plain))
		})
	})
}

func syncFile(b *testing.B, path string) {
	b.Helper()
	f, err := os.Open(path)
	require.NoError(b, err)
	require.NoError(b, f.Sync())
	require.NoError(b, f.Close())
}

// copySynced copies a file as one would who wants it to survive.
func copySynced(b *testing.B, from, to string) {
	b.Helper()
	in, err := os.Open(from)
	require.NoError(b, err)
	out, err := os.Create(to)
	require.NoError(b, err)
	_, err = io.Copy(out, in)
	require.NoError(b, err)
	require.NoError(b, out.Sync())
	require.NoError(b, out.Close())
	require.NoError(b, in.Close())
}

// Copying a checkpoint to a folder, hashed, read back and sealed, against
// copying and syncing its files.
func BenchmarkMirror(b *testing.B) {
	each(b, func(b *testing.B, sizes []int) {
		b.Helper()
		dir := b.TempDir()
		store, err := folder.New(filepath.Join(dir, "store"))
		require.NoError(b, err)
		k := keeperIn(dir, 1)
		m := &checkpoint.Mirror{Store: store, Dir: dir, Name: run, Keep: 1, Log: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithCancel(b.Context())
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()
		staged := filepath.Join(dir, "staged")
		writeSizes(b, staged, sizes)
		_, path, err := k.Save(b.Context(), manifest(0), staged)
		require.NoError(b, err)
		ratio(b, func(n int) {
			m.Saved(model, int64(n), path, false)
			require.NoError(b, m.Flush(b.Context()))
		}, func(int) {
			plain := filepath.Join(dir, "plain")
			require.NoError(b, os.MkdirAll(plain, 0o755))
			for _, name := range fileNames(sizes) {
				copySynced(b, filepath.Join(path, name), filepath.Join(plain, name))
			}
			require.NoError(b, os.RemoveAll(plain))
		})
		cancel()
		require.NoError(b, <-ended)
	})
}

// Restoring a checkpoint from a folder, compared with its manifest on the way,
// against copying and syncing its files; and from a store that is as slow as a
// good line, 1 Gbit/s, where the comparison costs nothing.
func BenchmarkRestore(b *testing.B) {
	each(b, func(b *testing.B, sizes []int) {
		b.Helper()
		for name, rate := range map[string]int{"folder": 0, "1Gbit": 125 << 20} {
			b.Run(name, func(b *testing.B) { benchRestore(b, sizes, rate) })
		}
	})
}

func benchRestore(b *testing.B, sizes []int, rate int) {
	b.Helper()
	dir := b.TempDir()
	base, err := folder.New(filepath.Join(dir, "store"))
	require.NoError(b, err)
	store := &slow{base, rate}
	k := keeperIn(dir, 1)
	write := func(name string, data []byte) {
		_, err := base.Put(b.Context(), name, bytes.NewReader(data), digest(string(data)))
		require.NoError(b, err)
	}
	write(run+"/run.json", []byte("{}"))
	staged := filepath.Join(dir, "staged")
	writeSizes(b, staged, sizes)
	_, path, err := k.Save(b.Context(), manifest(10), staged)
	require.NoError(b, err)
	require.NoError(b, os.CopyFS(filepath.Join(dir, "store", run, "models", model, "checkpoints", "10"), os.DirFS(path)))
	total := 0
	for _, size := range sizes {
		total += size
	}
	b.SetBytes(int64(total))
	ratio(b, func(n int) {
		to := filepath.Join(dir, fmt.Sprint("to", n))
		report, err := checkpoint.Restore(b.Context(), store, run, to)
		require.NoError(b, err)
		require.Len(b, report.Restored, 1)
		require.NoError(b, os.RemoveAll(to))
	}, func(int) {
		plain := filepath.Join(dir, "plain")
		require.NoError(b, os.MkdirAll(plain, 0o755))
		for _, name := range fileNames(sizes) {
			in, err := store.Get(b.Context(), run+"/models/"+model+"/checkpoints/10/"+name)
			require.NoError(b, err)
			out, err := os.Create(filepath.Join(plain, name))
			require.NoError(b, err)
			_, err = io.Copy(out, in)
			require.NoError(b, err)
			require.NoError(b, out.Sync())
			require.NoError(b, out.Close())
			require.NoError(b, in.Close())
		}
		require.NoError(b, os.RemoveAll(plain))
	})
}

// A slow store gives so many bytes a second, for each file; 0 is no limit.
type slow struct {
	checkpoint.Store
	rate int
}

func (s *slow) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	f, err := s.Store.Get(ctx, name)
	if err != nil || s.rate == 0 {
		return f, err
	}
	return &slowReader{f, s.rate, time.Now(), 0}, nil
}

type slowReader struct {
	io.ReadCloser
	rate  int
	start time.Time
	read  int
}

func (r *slowReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p[:min(len(p), 64<<10)])
	r.read += n
	time.Sleep(time.Until(r.start.Add(time.Duration(float64(r.read) / float64(r.rate) * float64(time.Second)))))
	return n, err
}

// Verifying a checkpoint, against reading its files.
func BenchmarkVerify(b *testing.B) {
	each(b, func(b *testing.B, sizes []int) {
		b.Helper()
		dir := b.TempDir()
		staged := filepath.Join(dir, "staged")
		writeSizes(b, staged, sizes)
		_, path, err := keeperIn(dir, 1).Save(b.Context(), manifest(10), staged)
		require.NoError(b, err)
		ratio(b, func(int) {
			_, err := checkpoint.Verify(path)
			require.NoError(b, err)
		}, func(int) {
			for _, name := range fileNames(sizes) {
				f, err := os.Open(filepath.Join(path, name))
				require.NoError(b, err)
				_, err = io.Copy(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f})
				require.NoError(b, err)
				require.NoError(b, f.Close())
			}
		})
	})
}
