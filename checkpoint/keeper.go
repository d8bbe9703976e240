package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"outlast/checkpoint/durable"
)

// Names below a model's folder.
const (
	checkpointsName = "checkpoints"
	finalName       = "final"
	supersededName  = "superseded"
	modelsName      = "models"
	metricsName     = "metrics.jsonl"
	logName         = "log.txt"
	workedOnFile    = "model.json" // which version of the model was worked on last
)

// A Keeper keeps the checkpoints of one run on the local disk. Calls for
// different models may be concurrent; those for one model may not.
type Keeper struct {
	Dir  string // the run's folder
	Keep int    // checkpoints of each model; at least 1
	Best Best   // which one is kept besides
	Log  *slog.Logger
}

func (k *Keeper) model(model string, below ...string) string {
	return filepath.Join(append([]string{k.Dir, modelsName, model}, below...)...)
}

func (k *Keeper) step(model string, step int64) string {
	return k.model(model, checkpointsName, strconv.FormatInt(step, 10))
}

// Save makes the folder staged the checkpoint of m.Step: it hashes and syncs its
// files, moves them to their place, writes the manifest last, and removes the
// oldest checkpoints beyond Keep. It returns the manifest and the path. When it
// fails, staged is where it was, and Save may be asked again; not so if the error
// is durable.ErrLost: who knows what is in staged then.
//
// A folder outside of the run's, in memory perhaps, is copied, hashed on the
// way, and left to the caller.
func (k *Keeper) Save(ctx context.Context, m Manifest, staged string) (Manifest, string, error) {
	m.Final = false
	target := k.step(m.Model, m.Step)
	take, source, drop := adopt, staged, func() error { return nil }
	if !k.has(staged) {
		source = target + halfSuffix
		take = func(ctx context.Context, half string) ([]File, error) { return copyIn(ctx, staged, half) }
		drop = func() error { return os.RemoveAll(source) } // the disk may be full
	}
	files, err := take(ctx, source)
	if err == nil {
		m, err = putIn(source, target, m, files)
	}
	if err != nil {
		return m, "", fmt.Errorf("save checkpoint %d of %s: %w", m.Step, m.Model, errors.Join(err, drop()))
	}
	if err := errors.Join(dropReplaced(target), k.prune(m)); err != nil { // the new one is safe all the same
		k.Log.WarnContext(ctx, "old checkpoint not removed", "model", m.Model, "error", err)
	}
	return m, target, nil
}

// putIn moves a folder whose files are durable to its place and seals it. When
// it fails, the folder is where it was.
func putIn(source, target string, m Manifest, files []File) (Manifest, error) {
	err := moveIn(source, target)
	if err == nil {
		m, err = seal(target, m, files)
	}
	if err != nil {
		return m, errors.Join(err, giveBack(target, source))
	}
	return m, nil
}

// has reports whether path is below the run's folder.
func (k *Keeper) has(path string) bool {
	rel, err := filepath.Rel(k.Dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// syncLimit is how many files are synced at once: a journal commits many as fast
// as one.
const syncLimit = 8

// adopt hashes and syncs every file below dir, then its folders.
func adopt(ctx context.Context, dir string) ([]File, error) {
	files, err := eachFile(ctx, dir, func(name string) (durable.Digest, error) {
		return durable.SyncFile(filepath.Join(dir, name))
	})
	if err != nil {
		return nil, err
	}
	return files, syncDirs(dir)
}

// copyIn copies every file below from to the new folder to, and hashes it on the
// way; what it returns from is durable.
func copyIn(ctx context.Context, from, to string) ([]File, error) {
	if err := os.RemoveAll(to); err != nil { // what a crash left
		return nil, err
	}
	if err := durable.MkdirAll(to); err != nil {
		return nil, err
	}
	files, err := eachFile(ctx, from, func(name string) (durable.Digest, error) {
		in, err := os.Open(filepath.Join(from, name))
		if err != nil {
			return durable.Digest{}, err
		}
		defer in.Close() //nolint:errcheck // it was only read
		if err := os.MkdirAll(filepath.Join(to, filepath.Dir(name)), 0o755); err != nil {
			return durable.Digest{}, err
		}
		return durable.NewFile(filepath.Join(to, name), durable.Reader(ctx, in))
	})
	if err != nil {
		return nil, err
	}
	return files, syncDirs(to)
}

// eachFile has do make each file below dir durable, and returns what they are.
func eachFile(ctx context.Context, dir string, do func(name string) (durable.Digest, error)) ([]File, error) {
	paths, err := filesBelow(dir)
	if err != nil {
		return nil, err
	}
	files := make([]File, len(paths))
	g, working := errgroup.WithContext(ctx)
	g.SetLimit(syncLimit)
	for i, name := range paths {
		g.Go(func() error {
			if err := working.Err(); err != nil {
				return err
			}
			digest, err := do(filepath.FromSlash(name))
			files[i] = File{Path: name, Size: digest.Size, SHA256: digest.SHA256}
			return err
		})
	}
	return files, errors.Join(g.Wait(), ctx.Err())
}

// filesBelow returns the paths of the files of what is to be a checkpoint. Names
// are refused now that would make its manifest not be believed later.
func filesBelow(dir string) ([]string, error) {
	var paths []string
	taken := newNames()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if !d.Type().IsRegular() {
			return &NameError{name, "it is no regular file"}
		}
		if err := taken.add(name); err != nil {
			return &NameError{name, err.Error()}
		}
		if len(paths) == maxFiles {
			return fmt.Errorf("it has more than %d files", maxFiles)
		}
		paths = append(paths, name)
		return nil
	})
	return paths, err
}

// A NameError says that a file cannot be part of a checkpoint, which must be
// possible to bring back on any machine.
type NameError struct {
	Name string
	Why  string
}

func (e *NameError) Error() string {
	return fmt.Sprintf("a checkpoint's file may not be called %q: %s", e.Name, e.Why)
}

// Cure says what to do.
func (e *NameError) Cure() string {
	return "save plain files whose names differ in more than upper and lower case, without control characters, backslash and colon"
}

// seal writes the manifest, which makes the folder a checkpoint.
func seal(dir string, m Manifest, files []File) (Manifest, error) {
	m.Format, m.Files, m.Created = manifestFormat, files, time.Now().UTC().Truncate(time.Millisecond)
	if m.Files == nil {
		m.Files = []File{}
	}
	return m, durable.WriteJSON(filepath.Join(dir, ManifestName), m)
}

// giveBack puts a folder that could not be sealed back to where it was taken
// from, if it was taken: on a full disk Save is asked again.
func giveBack(dir, staged string) error {
	if _, err := os.Lstat(staged); !errors.Is(err, fs.ErrNotExist) {
		return nil // it is there yet
	}
	if err := os.Remove(filepath.Join(dir, ManifestName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(dir, staged)
}

// Finish makes the checkpoint of m.Step the model's final one. It may be called
// again: the result is the same.
func (k *Keeper) Finish(ctx context.Context, m Manifest) (Manifest, string, error) {
	fail := func(err error) (Manifest, string, error) {
		return m, "", fmt.Errorf("finish %s: %w", m.Model, err)
	}
	source := k.step(m.Model, m.Step)
	from, err := verify(ctx, source)
	if err != nil {
		return fail(err)
	}
	half := k.model(m.Model, finalName+halfSuffix)
	if err := os.RemoveAll(half); err != nil {
		return fail(err)
	}
	for _, f := range from.Files {
		if err := ctx.Err(); err != nil {
			return fail(err)
		}
		if err := link(source, half, f.Path, &durable.Digest{Size: f.Size, SHA256: f.SHA256}); err != nil {
			return fail(err)
		}
	}
	if err := durable.MkdirAll(half); err != nil {
		return fail(err)
	}
	if err := syncDirs(half); err != nil {
		return fail(err)
	}
	m.Final = true
	if m, err = seal(half, m, from.Files); err != nil {
		return fail(err)
	}
	target := k.model(m.Model, finalName)
	if err := moveIn(half, target); err != nil {
		return fail(err)
	}
	if err := dropReplaced(target); err != nil { // the new one is safe all the same
		k.Log.WarnContext(ctx, "replaced result not removed", "model", m.Model, "error", err)
	}
	return m, target, nil
}

// syncDirs makes the entries of dir and of the folders below it durable.
func syncDirs(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return durable.SyncDir(path)
	})
}

// link gives the file called name of the folder from the same name in the folder
// to. Checkpoints are never written to, so that the two may share the content;
// where links are not to be had it is copied, if it is want.
func link(from, to, name string, want *durable.Digest) error {
	source, target := filepath.Join(from, filepath.FromSlash(name)), filepath.Join(to, filepath.FromSlash(name))
	if err := durable.MkdirAll(filepath.Dir(target)); err != nil {
		return err
	}
	if os.Link(source, target) == nil {
		return nil
	}
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // it was only read
	_, err = durable.WriteFile(target, in, want)
	return err
}

// Supersede puts the results of a model's earlier code or parameters aside, in
// superseded/ under the fingerprint they had.
func (k *Keeper) Supersede(model, fingerprint string) error {
	to := k.model(model, supersededName, fingerprint[:min(12, len(fingerprint))])
	if _, err := os.Lstat(to); err == nil {
		if _, err := aside(to, ".older"); err != nil {
			return err
		}
	}
	for _, name := range []string{checkpointsName, finalName, metricsName, logName} {
		from := k.model(model, name)
		if _, err := os.Lstat(from); err != nil {
			continue
		}
		if err := durable.Rename(from, filepath.Join(to, name)); err != nil {
			return fmt.Errorf("put the earlier results of %s aside: %w", model, err)
		}
	}
	return nil
}
