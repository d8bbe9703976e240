package magics

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"
)

// lowDisk is where %doctor begins to warn: a few checkpoints of a small model.
const lowDisk = 2 << 30

// finding is one line of %doctor.
type finding struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Cure   string `json:"cure,omitempty"`
}

// Doctor returns %doctor: what is set up, and what is missing.
func Doctor(d *Deps) *Magic {
	m := &Magic{
		Name:  "doctor",
		Verb:  "doctor",
		Short: "Check kernel, Python, GPU, disk and runs: a line each, ok or what to do",
		Line:  true,
		Looks: true,
	}
	m.Bind = func(fs *pflag.FlagSet) func(context.Context, *Call) error {
		dir := d.dirFlag(fs)
		asJSON := fs.Bool("json", false, "print one JSON object")
		return func(ctx context.Context, c *Call) error {
			if len(c.Args) > 0 {
				return &UsageError{m, "it takes flags only"}
			}
			findings := d.examine(ctx, c, *dir)
			object := map[string]any{"checks": findings}
			if err := c.result(object); err != nil {
				return err
			}
			if *asJSON {
				return writeJSON(c, object)
			}
			g := grid{Title: "Outlast " + d.Version}
			for _, f := range findings {
				sign := "✓"
				if !f.OK {
					sign = "!"
				}
				g.Rows = append(g.Rows, []string{sign, f.Name, f.Detail})
				if f.Cure != "" {
					g.Rows = append(g.Rows, []string{"", "", "→ " + f.Cure})
				}
			}
			g.Header = []string{"", "check", "found"}
			c.Screen.Show(g.view())
			return nil
		}
	}
	return m
}

func (d *Deps) examine(ctx context.Context, c *Call, dir string) []finding {
	return []finding{
		{Name: "host", OK: true, Detail: string(d.Host)},
		d.checkPython(ctx, c),
		d.checkGPU(ctx),
		d.checkDisk(dir),
		checkRuns(dir),
	}
}

// libraries asks Python which of the usual packages it has, without importing
// them: an import of torch takes seconds.
const libraries = `(lambda sys, md: {"python": sys.version.split()[0], "path": sys.executable,
  **{n: md.version(n) for n in ("torch", "transformers", "peft")
     if any(True for _ in md.distributions(name=n))}})(__import__("sys"), __import__("importlib.metadata").metadata)`

func (d *Deps) checkPython(ctx context.Context, c *Call) finding {
	f := finding{Name: "python", Detail: d.Python}
	if c.Notebook == nil {
		f.OK = executable(d.Python)
		if !f.OK {
			f.Cure = "give --python PATH to train, or activate an environment"
		}
		return f
	}
	asking, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	raw, err := c.Notebook.Eval(asking, libraries)
	if errors.Is(err, context.DeadlineExceeded) {
		f.OK, f.Detail = true, "busy with a cell"
		return f
	}
	if err != nil {
		f.Detail, f.Cure = err.Error(), "restart the kernel; if that does not help, run: python -m ipykernel --version"
		return f
	}
	found := map[string]string{}
	if err := json.Unmarshal(raw, &found); err != nil {
		f.Detail = err.Error()
		return f
	}
	f.OK = true
	f.Detail = fmt.Sprintf("%s (%s)", found["python"], found["path"])
	for _, name := range []string{"torch", "transformers", "peft"} {
		if v := found[name]; v != "" {
			f.Detail += fmt.Sprintf(", %s %s", name, v)
		}
	}
	return f
}

func (d *Deps) checkGPU(ctx context.Context) finding {
	f := finding{Name: "gpu", OK: true}
	found, err := d.Devices(ctx)
	switch {
	case err != nil:
		f.OK, f.Detail, f.Cure = false, err.Error(), "run nvidia-smi in a terminal; if it fails too, the driver is the cause"
	case len(found.Devices) == 0:
		f.Detail = "none found; training runs on the CPU"
	default:
		for i, dev := range found.Devices {
			if i > 0 {
				f.Detail += "; "
			}
			f.Detail += fmt.Sprintf("%s, %d of %d MiB free", dev.Name, dev.MemoryFreeMiB, dev.MemoryTotalMiB)
		}
	}
	return f
}

func (d *Deps) checkDisk(dir string) finding {
	f := finding{Name: "disk"}
	there := dir
	for { // the data directory is made by the first run
		if _, err := os.Stat(there); err == nil || there == filepath.Dir(there) {
			break
		}
		there = filepath.Dir(there)
	}
	free, err := d.FreeDisk(there)
	if err != nil {
		f.Detail, f.Cure = err.Error(), "choose another data directory: OUTLAST_HOME or --dir"
		return f
	}
	f.OK = free >= lowDisk
	f.Detail = fmt.Sprintf("%.1f GiB free for %s", float64(free)/(1<<30), dir)
	if !f.OK {
		f.Cure = "free some space, or choose another data directory: OUTLAST_HOME or --dir"
	}
	return f
}

func checkRuns(dir string) finding {
	working := workingRuns(dir)
	if len(working) == 0 {
		return finding{Name: "runs", OK: true, Detail: "none is working"}
	}
	return finding{Name: "runs", OK: true, Detail: fmt.Sprintf("working: %v", working)}
}
