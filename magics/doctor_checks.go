package magics

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"outlast/checkpoint"
	"outlast/gpu"
	"outlast/training"
)

// lowDisk is where %doctor begins to warn as long as no checkpoint tells how large
// they are: a few of a small model.
const lowDisk = 2 << 30

// A Kernelspec is one by which Jupyter finds Outlast.
type Kernelspec struct {
	Name    string
	Dir     string // its folder
	Program string // what it starts
	Version string // of the Outlast that wrote it; empty if unknown
}

// kernel looks at what starts Outlast as a kernel, and at what runs.
func (e *examination) kernel(ctx context.Context) []finding {
	specs := e.Kernels(ctx)
	var told []string
	if e.call.Notebook != nil {
		told = append(told, "Outlast "+e.Version+" runs this notebook")
	}
	for _, s := range specs {
		if !executable(s.Program) {
			return []finding{wrong("kernel",
				fmt.Sprintf("kernelspec %s in %s starts %s, which is no program", s.Name, s.Dir, s.Program),
				"install it again, as it was installed before: outlast install, with --sys-prefix in an environment")}
		}
		text := fmt.Sprintf("kernelspec %s in %s", s.Name, s.Dir)
		if s.Version != "" && s.Version != e.Version {
			text += ", written by Outlast " + s.Version
		}
		told = append(told, text)
	}
	if len(told) == 0 {
		return []finding{wrong("kernel", "Jupyter finds no kernelspec of Outlast",
			"outlast install, with --sys-prefix in an environment, makes it selectable; training from a terminal needs none")}
	}
	return []finding{fine("kernel", "%s", strings.Join(told, "; "))}
}

// libraries asks Python which of the usual packages it has, without importing
// them: an import of torch takes seconds.
const libraries = `(lambda sys, md: {"python": sys.version.split()[0], "path": sys.executable,
  **{n: md.version(n) for n in ("ipykernel", "torch", "transformers", "peft")
     if any(True for _ in md.distributions(name=n))}})(__import__("sys"), __import__("importlib.metadata").metadata)`

// child looks at the Python of the notebook; at the command line, at the one that
// a notebook and workers would get.
func (e *examination) child(ctx context.Context) []finding {
	if e.call.Notebook == nil {
		return []finding{e.python(ctx)}
	}
	asking, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	raw, err := e.call.Notebook.Eval(asking, libraries)
	if errors.Is(err, context.DeadlineExceeded) {
		return []finding{fine("child", "busy with a cell")}
	}
	found := map[string]string{}
	if err == nil {
		err = json.Unmarshal(raw, &found)
	}
	if err != nil {
		return []finding{failed("child", err, "%outlast restart starts a fresh Python; if that does not help, run in a terminal: python -m ipykernel --version")}
	}
	return []finding{fine("child", "%s", packages(found))}
}

// python asks the interpreter of the command line.
func (e *examination) python(ctx context.Context) finding {
	if !executable(e.Python) {
		return wrong("child", "there is no "+e.Python, "give --python PATH to train, or activate an environment")
	}
	cmd := exec.CommandContext(ctx, e.Python, "-c", "print(__import__('json').dumps("+libraries+"))")
	cmd.WaitDelay = time.Second
	raw, err := cmd.Output()
	found := map[string]string{}
	if err == nil {
		err = json.Unmarshal(raw, &found)
	}
	if err != nil {
		return failed("child", fmt.Errorf("ask %s for its packages: %w", e.Python, err), "activate an environment whose Python works")
	}
	if found["ipykernel"] == "" {
		return wrong("child", packages(found)+", without ipykernel",
			"for notebooks: "+e.Python+" -m pip install ipykernel; 'outlast train' needs none")
	}
	return fine("child", "%s", packages(found))
}

func packages(found map[string]string) string {
	told := []string{fmt.Sprintf("Python %s (%s)", found["python"], found["path"])}
	for _, name := range []string{"ipykernel", "torch", "transformers", "peft"} {
		if v := found[name]; v != "" {
			told = append(told, name+" "+v)
		}
	}
	return strings.Join(told, ", ")
}

// keepAlive looks whether it is on. Where nothing ends an idle notebook it need
// not be.
func (e *examination) keepAlive(context.Context) []finding {
	if e.call.Notebook == nil {
		return []finding{fine("keep-alive", "a matter of notebooks: %%doctor tells there")}
	}
	s := e.keeper().now()
	on := !s.since.IsZero() && s.ended.IsZero()
	idleEnds := slices.Contains([]Host{HostColab, HostColabEnterprise, HostKaggle, HostJupyterHub}, e.Host)
	if !on && idleEnds {
		return []finding{wrong("keep-alive", s.words(), "run %keepalive before a long run: "+string(e.Host)+" ends notebooks that are idle")}
	}
	return []finding{fine("keep-alive", "%s", s.words())}
}

// devices looks at the GPUs, and at what a model would take of them.
func (e *examination) devices(ctx context.Context) []finding {
	found, err := e.Deps.devices(ctx, e.nearby(ctx, e.call.Notebook))
	if err != nil {
		f := failed("gpu", err, "run nvidia-smi in a terminal; if it fails too, the driver is the cause")
		return []finding{f, wrong("batch", "not known without the GPU", "see gpu")}
	}
	return []finding{gpuFinding(found), batchFinding(found, e.Session.Wishes())}
}

func gpuFinding(found gpu.Inventory) finding {
	if len(found.Devices) == 0 {
		return fine("gpu", "none found; training runs on the CPU")
	}
	var told []string
	room := false
	for _, dev := range found.Devices {
		told = append(told, fmt.Sprintf("%s, %d of %d MiB free", dev.Name, dev.MemoryFreeMiB, dev.MemoryTotalMiB))
		room = room || dev.MemoryFreeMiB*10 >= dev.MemoryTotalMiB
	}
	if !room {
		return wrong("gpu", strings.Join(told, "; "), "nvidia-smi shows who holds the memory; a notebook's Python lets go of it when it is restarted")
	}
	return fine("gpu", "%s", strings.Join(told, "; "))
}

func batchFinding(found gpu.Inventory, w gpu.Wishes) finding {
	c, err := gpu.Choose(found.Devices, w)
	if err != nil {
		return failed("batch", err, "%gpu_config without flags chooses anew")
	}
	return fine("batch", "%d × accumulation %d = effective batch %d, %s, on %s", c.BatchSize, c.GradAccum, c.EffectiveBatch, c.Precision, c.Device)
}

// disk looks whether runs can be kept in the data directory, and whether there is
// room: a checkpoint is there before an older one goes.
func (e *examination) disk(size int64) finding {
	if err := CheckDir(e.dir, e.Mounted); err != nil {
		return failed("disk", err, anotherDir)
	}
	there, _ := resolve(e.dir) // the data directory is made by the first run
	free, err := e.FreeDisk(there)
	if err != nil {
		return failed("disk", err, anotherDir)
	}
	text := fmt.Sprintf("%.1f GiB free for %s%s", float64(free)/(1<<30), e.dir, besides(size))
	if free < max(lowDisk, 2*uint64(size)) {
		return wrong("disk", text, "free some space, or "+anotherDir)
	}
	return fine("disk", "%s", text)
}

// besides names the size of a checkpoint, if it is known, beside what is free.
func besides(size int64) string {
	if size == 0 {
		return ""
	}
	return "; the largest checkpoint takes " + fileSize(size)
}

// largestCheckpoint returns how many bytes the largest of the newest checkpoints
// of all models takes; 0 if there is none yet.
func largestCheckpoint(dir string) int64 {
	names, err := training.List(dir)
	if err != nil {
		return 0 // the line of the disk says what is wrong with it
	}
	largest := int64(0)
	for _, name := range names {
		run, err := training.Find(dir, name)
		if err != nil {
			continue
		}
		status, err := run.Status()
		if err != nil {
			continue
		}
		for _, m := range status.Models {
			if m.Checkpoint != nil {
				largest = max(largest, checkpointSize(m.Checkpoint.Path))
			}
		}
	}
	return largest
}

func checkpointSize(dir string) int64 {
	f, err := os.Open(filepath.Join(dir, checkpoint.ManifestName))
	if err != nil {
		return 0
	}
	defer f.Close() //nolint:errcheck // it was only read
	m, err := checkpoint.ReadManifest(f)
	if err != nil {
		return 0 // it is told when it is used
	}
	return m.Bytes()
}

// store looks whether the store can be reached, and how full it is: that of runs
// that name none, or else that of the latest run.
func (e *examination) store(ctx context.Context, size func() int64) []finding {
	url, open, of := e.defaultStore(ctx), e.OpenStore, "runs that name none"
	if url == "" {
		if run, err := training.Find(e.dir, ""); err == nil && run.Plan().Store != "" {
			url, open, of = run.Plan().Store, e.OpenExisting, "run "+run.Name()
		}
	}
	if url == "" {
		return []finding{e.noStore(), fine("quota", "none, as there is no store")}
	}
	unknown := wrong("quota", "not known", "see store")
	store, err := open(ctx, url)
	if err != nil {
		return []finding{failed("store", err, "check its address"), unknown}
	}
	defer e.CloseStore(store)
	space, err := e.Space(ctx, store)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return []finding{
			fine("store", "%s, for %s: a folder, and it can be written to; what is there is called handed, as nobody confirms more", url, of),
			e.folderRoom(url, size()),
		}
	case err != nil:
		return []finding{failed("store", err, "check the network, and with "+e.call.prompt()+"drive status who is signed in"), unknown}
	}
	return []finding{
		fine("store", "%s, for %s: it answers; signed in: %s; what it has confirmed by size and digest is called mirrored",
			url, of, signedInAs(space)),
		e.driveRoom(url, space, size()),
	}
}

func (e *examination) noStore() finding {
	const text = "none: what is trained stays on this machine, and ends with it"
	if e.Session.store() == noStore {
		return fine("store", "%s, as %%drive use said", text)
	}
	return wrong("store", text, "name one with --store URL, a folder or drive:Folder; "+e.call.prompt()+"drive auth signs in to Google Drive")
}

// driveRoom looks whether another checkpoint fits. A larger one than any so far is
// not known.
func (e *examination) driveRoom(url string, space Space, size int64) finding {
	text := room(space) + besides(size)
	if space.Limit > 0 && space.Limit-space.Usage < cmp.Or(size, lowDisk) {
		return wrong("quota", text, "empty the trash of Drive, delete what is not needed, or remove old checkpoints: outlast store prune "+url+" RUN")
	}
	return fine("quota", "%s", text)
}

// folderRoom says what the disk of a folder says. A folder that is a mounted Drive
// tells nothing of it.
func (e *examination) folderRoom(url string, size int64) finding {
	free, err := e.FreeDisk(place{dir: e.WorkDir, home: e.Home}.store(url))
	if err != nil {
		return failed("quota", err, "see whether the folder is there")
	}
	text := fmt.Sprintf("%.1f GiB free, as the disk of the folder says%s", float64(free)/(1<<30), besides(size))
	if free < uint64(cmp.Or(size, lowDisk)) {
		return wrong("quota", text, "free some space there, or remove old checkpoints: outlast store prune "+url+" RUN")
	}
	return fine("quota", "%s", text)
}
