package checkpoint

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"outlast/checkpoint/durable"
)

// A candidate is a checkpoint that might be brought back.
type candidate struct {
	folder   string // below the run, with slashes
	manifest Manifest
	raw      []byte // the manifest as it is written
	err      error  // why it is none
}

// found returns, of each model in the store, the folders of its checkpoints: the
// final one, then the newest first.
func (r *restorer) found(ctx context.Context) (map[string][]string, error) {
	entries, err := r.store.List(ctx, path.Join(r.run, modelsName)+"/")
	if err != nil {
		return nil, err
	}
	for i := range entries {
		entries[i].Name = strings.TrimPrefix(entries[i].Name, r.run+"/")
	}
	there := slices.DeleteFunc(group("", entries), func(s Stored) bool { return s.Superseded || s.State == StoredHalf })
	slices.SortFunc(there, func(a, b Stored) int {
		return cmp.Or(later(a.Final, b.Final), cmp.Compare(b.Step, a.Step), cmp.Compare(b.revision, a.revision))
	})
	folders := map[string][]string{}
	for _, s := range there {
		folders[s.Model] = append(folders[s.Model], s.Folder)
	}
	return folders, nil
}

// models brings every model, a few at a time, and reports in their order.
func (r *restorer) models(ctx context.Context) error {
	found, err := r.found(ctx)
	if err != nil {
		return err
	}
	models := slices.Sorted(maps.Keys(found))
	notes := make([][]string, len(models))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(copyLimit)
	for i, model := range models {
		g.Go(func() (err error) {
			one := &modelRestorer{restorer: r, model: model}
			if err = one.best(ctx, found[model]); err != nil {
				err = fmt.Errorf("model %s: %w", model, err)
			}
			notes[i] = one.notes
			return err
		})
	}
	err = g.Wait()
	r.report.Notes = append(r.report.Notes, slices.Concat(notes...)...)
	return err
}

// A modelRestorer brings one model.
type modelRestorer struct {
	*restorer
	model string
	notes []string
}

func (r *modelRestorer) note(format string, args ...any) {
	r.notes = append(r.notes, r.model+": "+fmt.Sprintf(format, args...))
}

// best brings the best checkpoint of the model: of the history that leads, the
// final one, else the newest whose content is what its manifest says.
func (r *modelRestorer) best(ctx context.Context, folders []string) error {
	here := r.here()
	for c, err := range r.ranked(ctx, folders) {
		if err != nil {
			return err
		}
		if c.err == nil && r.stale(r.model, c.manifest) {
			continue
		}
		if c.err == nil && r.keeps(ctx, here, c) {
			return nil
		}
		if c.err == nil {
			c.err = r.bring(ctx, c)
		}
		var damaged *DamagedError
		if errors.As(c.err, &damaged) || errors.Is(c.err, ErrNotFound) {
			r.note("the copy in %s is damaged (%v) and is not used; the one before it is tried.", c.folder, c.err)
			continue
		}
		if c.err != nil {
			return c.err
		}
		what := fmt.Sprintf("the checkpoint at step %d", c.manifest.Step)
		if c.manifest.Final {
			what = "the finished model"
		}
		r.note("%s was brought from the store and verified.", what)
		r.restored(c.manifest)
		return r.records(ctx, c.manifest)
	}
	return nil
}

func (r *modelRestorer) restored(m Manifest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Restored[r.model] = m.Step
	r.report.Generation = max(r.report.Generation, m.Generation)
}

// ranked yields the store's checkpoints, the best first. Manifests are read as
// they are needed: the first one mostly says that it is of the history that
// leads. If it does not, two have written, and all have to be asked.
func (r *modelRestorer) ranked(ctx context.Context, folders []string) func(yield func(candidate, error) bool) {
	return func(yield func(candidate, error) bool) {
		var all []candidate
		for i, folder := range folders {
			c, err := r.candidate(ctx, folder)
			if err != nil {
				yield(c, err)
				return
			}
			if i > 0 && all == nil || i == 0 && r.leads(c) {
				if !yield(c, nil) {
					return
				}
				continue
			}
			all = append(all, c)
		}
		slices.SortStableFunc(all, func(a, b candidate) int { return r.compare(b, a) })
		for _, c := range all {
			if !yield(c, nil) {
				return
			}
		}
	}
}

// leads reports whether nothing in the store can be of a later history than c.
func (r *restorer) leads(c candidate) bool {
	return r.claim == nil || c.err == nil && (c.manifest.Generation > r.claim.Generation || r.claim.holds(c.manifest))
}

func (c Claim) holds(m Manifest) bool { return c.Generation == m.Generation && c.Writer == m.Writer }

// compare orders checkpoints: those of a later generation are better, then those
// of who has the run now, then the final one, then the later step. One that
// cannot be read comes first, to be told of.
func (r *restorer) compare(a, b candidate) int {
	rank := func(c candidate) []int64 {
		if c.err != nil {
			return []int64{math.MaxInt64}
		}
		claimed, final := int64(0), int64(0)
		if r.claim != nil && r.claim.holds(c.manifest) {
			claimed = 1
		}
		if c.manifest.Final {
			final = 1
		}
		return []int64{c.manifest.Generation, claimed, final, c.manifest.Step}
	}
	return slices.Compare(rank(a), rank(b))
}

// candidate reads the manifest of a folder in the store. What is wrong with it
// is in the candidate; an error is one of the store.
func (r *modelRestorer) candidate(ctx context.Context, folder string) (candidate, error) {
	c := candidate{folder: folder}
	var err error
	c.raw, err = fetch(ctx, r.store, path.Join(r.run, folder, ManifestName), maxManifestBytes)
	switch {
	case errors.Is(err, ErrNotFound):
		c.err = &DamagedError{ManifestName, "it is missing"}
		return c, nil
	case errors.Is(err, errTooLarge):
		c.err = &DamagedError{ManifestName, err.Error()}
		return c, nil
	case err != nil:
		return c, err
	}
	c.manifest, c.err = ReadManifest(bytes.NewReader(c.raw))
	if c.err == nil {
		c.err = r.misplaced(c)
	}
	return c, nil
}

// misplaced says why a manifest does not belong into the folder it lies in.
func (r *modelRestorer) misplaced(c candidate) error {
	m := c.manifest
	step, _, isStep := revisionOf(path.Base(c.folder))
	switch {
	case m.Model != r.model || m.Run != r.run:
		return &DamagedError{ManifestName, fmt.Sprintf("it is of the model %q of the run %q", m.Model, m.Run)}
	case isStep && step != m.Step:
		return &DamagedError{ManifestName, fmt.Sprintf("it is of step %d", m.Step)}
	case isStep == m.Final:
		return &DamagedError{ManifestName, "it is of another kind"}
	}
	return nil
}

// here returns what this disk has of the model and of its plan's version.
func (r *modelRestorer) here() []candidate {
	k := &Keeper{Dir: r.dir}
	var here []candidate
	for _, place := range k.places(r.model) {
		m, err := manifestOf(place)
		if err == nil && !r.stale(r.model, m) && m.Model == r.model {
			here = append(here, candidate{folder: place, manifest: m})
		}
	}
	slices.SortStableFunc(here, func(a, b candidate) int { return r.compare(b, a) })
	return here
}

// keeps reports whether this disk has something as good as c that verifies.
func (r *modelRestorer) keeps(ctx context.Context, here []candidate, c candidate) bool {
	for _, h := range here {
		if r.compare(h, c) < 0 || r.overtaken(h.manifest, c.manifest) {
			return false
		}
		if m, err := verify(ctx, h.folder); err == nil {
			r.restored(m)
			return true
		}
	}
	return false
}

// overtaken reports whether h was saved here, and c by another runtime that has
// taken the run over since: each process that was begun here after that was in
// vain, but had a higher generation than the one before it.
func (r *restorer) overtaken(h, c Manifest) bool {
	return r.claim != nil && !r.past.knows(*r.claim) && !r.foreign(h) && !r.past.holds(c) && c.Generation > r.past.adopted()
}

// outdate puts aside what this disk has of another version of the model than c,
// and forgets that it was the last that was worked on here: whoever trains next
// would take c for that version's, and put it aside.
func (r *modelRestorer) outdate(c candidate) error {
	path := filepath.Join(r.dir, modelsName, r.model, workedOnFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var was struct {
		Fingerprint string `json:"fingerprint"`
	}
	if json.Unmarshal(data, &was) != nil || was.Fingerprint == "" || was.Fingerprint == c.manifest.Fingerprint {
		return nil //nolint:nilerr // one that cannot be read tells nobody anything
	}
	k := &Keeper{Dir: r.dir}
	if err := k.Supersede(r.model, was.Fingerprint); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}

// leaveBehind puts aside what this disk has of a history that c's has left
// behind: checkpoints that would be taken for newer, and logs that tell of other
// steps.
func (r *modelRestorer) leaveBehind(c candidate) error {
	whose, last := r.leftBehind(c)
	if whose == "" {
		return nil
	}
	k := &Keeper{Dir: r.dir}
	if err := k.Supersede(r.model, whose); err != nil {
		return err
	}
	r.note("what this disk had%s is of a history that another runtime has not gone on from; it was put aside as %s/%s.", last, supersededName, whose)
	return nil
}

// leftBehind names the history, if there is one to put aside, and says how far it
// had come.
func (r *modelRestorer) leftBehind(c candidate) (whose, last string) {
	for _, h := range r.here() {
		m := h.manifest
		elsewhere := r.foreign(c.manifest) && !r.foreign(m)
		newer := (m.Final || m.Step >= c.manifest.Step) && (m.Generation != c.manifest.Generation || m.Writer != c.manifest.Writer)
		if elsewhere || newer && r.compare(h, c) < 0 {
			return historyName(m), fmt.Sprintf(" saved up to step %d", m.Step)
		}
	}
	claims := r.past.Claims
	if len(claims) == 0 || !r.foreign(c.manifest) {
		return "", ""
	}
	if _, err := os.Lstat(filepath.Join(r.dir, modelsName, r.model, metricsName)); err != nil {
		return "", ""
	}
	mine := claims[len(claims)-1]
	return historyName(Manifest{Generation: mine.Generation, Writer: mine.Writer}), " logged"
}

// foreign reports whether a checkpoint was not written from this folder.
func (r *restorer) foreign(m Manifest) bool {
	return !slices.ContainsFunc(r.past.Claims, func(c Claim) bool { return c.Writer == m.Writer })
}

// bring fetches one checkpoint: into a folder of its own, each file compared with
// the manifest while it arrives, then in one move.
func (r *modelRestorer) bring(ctx context.Context, c candidate) error {
	target := filepath.Join(r.dir, filepath.FromSlash(folderOf(r.model, c.manifest.Step, c.manifest.Final)))
	half := filepath.Join(r.dir, modelsName, r.model, "restore-"+path.Base(c.folder)+halfSuffix)
	if err := r.guard(folderOf(r.model, c.manifest.Step, c.manifest.Final)); err != nil {
		return err
	}
	if err := os.RemoveAll(half); err != nil {
		return err
	}
	g, working := errgroup.WithContext(ctx)
	for _, file := range c.manifest.Files {
		select { // a slot for each file, of all models together
		case <-working.Done():
		case r.slots <- struct{}{}:
			g.Go(func() error {
				defer func() { <-r.slots }()
				return r.file(working, path.Join(c.folder, file.Path), filepath.Join(half, filepath.FromSlash(file.Path)), file)
			})
		}
	}
	err := cmp.Or(g.Wait(), ctx.Err())
	if err != nil {
		os.RemoveAll(half) //nolint:errcheck // the next try does it again
		return err
	}
	if _, err := durable.WriteFile(filepath.Join(half, ManifestName), bytes.NewReader(c.raw), nil); err != nil {
		return err
	}
	if err := r.outdate(c); err != nil {
		return err
	}
	if err := r.leaveBehind(c); err != nil {
		return err
	}
	if err := moveIn(half, target); err != nil {
		return err
	}
	return dropDamaged(target)
}

// dropDamaged removes what had to make way for the checkpoint at path, as far as
// it was no checkpoint any more.
func dropDamaged(path string) error {
	_, err := Verify(path + replacedSuffix)
	var damaged *DamagedError
	if errors.As(err, &damaged) || errors.Is(err, ErrNoManifest) {
		return dropReplaced(path)
	}
	return nil
}

// guard refuses to write below a link: it would lead outside the run's folder.
func (r *restorer) guard(folder string) error {
	for dir := filepath.FromSlash(folder); dir != "."; dir = filepath.Dir(dir) {
		info, err := os.Lstat(filepath.Join(r.dir, dir))
		if err == nil && info.Mode().Type()&os.ModeSymlink != 0 {
			return &RestoreError{
				r.run, fmt.Errorf("%s is a link, which may lead outside the run", filepath.Join(r.dir, dir)),
				"remove the link, or restore into another folder with --dir",
			}
		}
	}
	return nil
}

func (r *restorer) file(ctx context.Context, name, target string, want File) error {
	in, err := r.store.Get(ctx, path.Join(r.run, name))
	if errors.Is(err, ErrNotFound) {
		return &DamagedError{want.Path, "it is missing"}
	}
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // it was only read
	// One byte more than announced is enough to know that it is wrong.
	_, err = durable.WriteFile(target, io.LimitReader(in, want.Size+1), &durable.Digest{Size: want.Size, SHA256: want.SHA256})
	if errors.Is(err, durable.ErrContent) {
		return &DamagedError{want.Path, "its content differs from the manifest"}
	}
	return err
}

// records brings what the model has logged up to m. What this disk has logged
// itself tells more than its copy, and stays.
func (r *modelRestorer) records(ctx context.Context, m Manifest) error {
	base := path.Join(modelsName, r.model)
	if err := r.guard(base); err != nil {
		return err
	}
	for _, name := range []string{metricsName, logName} {
		target := filepath.Join(r.dir, filepath.FromSlash(base), name)
		if _, err := os.Stat(target); err == nil {
			if r.claim == nil || !r.foreign(m) {
				continue
			}
			if len(r.past.Adopted) == 0 { // it is no copy of the store's
				if _, err := aside(target, ".older"); err != nil {
					return err
				}
			}
		}
		data, err := r.store.Get(ctx, path.Join(r.run, base, name))
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		_, err = durable.WriteFile(target, data, nil)
		data.Close() //nolint:errcheck // it was only read
		if err != nil {
			return err
		}
	}
	return nil
}
