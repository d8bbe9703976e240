package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"outlast/gpu"
	"outlast/install"
	"outlast/magics"
)

// environment reads the variables that Outlast knows. Nothing else does.
type environment struct {
	lookup func(string) (string, bool)
}

func (e environment) get(name string) string {
	value, _ := e.lookup(name)
	return value
}

// host is where the notebook runs.
func (e environment) host() magics.Host { return magics.HostOf(e.lookup) }

// dataDir is where runs live unless a call says otherwise, or that is on a
// mounted Drive.
func (e environment) dataDir() string {
	dir := "outlast-runs"
	if home := e.get("OUTLAST_HOME"); home != "" {
		dir = home
	} else if host := e.host(); host == magics.HostColab || host == magics.HostColabEnterprise {
		dir = "/content/outlast-runs"
	}
	if abs, err := filepath.Abs(dir); err == nil {
		return abs
	}
	return dir
}

// runsDir is where runs live unless a call says otherwise, and what there is to
// say about that. Where nobody has chosen it, it is not on a mounted Drive.
func (p *program) runsDir() (dir, note string) {
	dir = p.env.dataDir()
	if p.env.get("OUTLAST_HOME") != "" || !magics.Below(p.mount, dir) {
		return dir, ""
	}
	beside := filepath.Join(filepath.Dir(p.mount), filepath.Base(dir))
	return beside, "The working directory is on the mounted Google Drive, where no runs are kept: they are in " + beside + "."
}

// python is the interpreter of the command line: the active environment's,
// else the one in PATH.
func (e environment) python() string {
	if venv := e.get("VIRTUAL_ENV"); venv != "" {
		if path := install.PrefixPython(venv); path != "" {
			return path
		}
	}
	for _, name := range []string{"python3", "python"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return "python3"
}

var unsafeName = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// longestName is how long the name of a run may be.
const longestName = 100

// runName is what an unnamed %train is called: after the notebook, which
// Jupyter Server names in JPY_SESSION_NAME, as far as that may name a run.
func (e environment) runName() string {
	base := filepath.Base(e.get("JPY_SESSION_NAME"))
	name := unsafeName.ReplaceAllString(strings.TrimSuffix(base, ".ipynb"), "-")
	name = strings.TrimLeft(name, "-._")
	name = strings.TrimRight(name[:min(len(name), longestName)], "-.")
	if name == "" {
		return "run"
	}
	return name
}

// parentPID is the process that started the kernel, as Jupyter says; 0 if it
// says nothing.
func (e environment) parentPID() int {
	pid, err := strconv.Atoi(e.get("JPY_PARENT_PID"))
	if err != nil {
		return 0
	}
	return pid
}

// cacheDir is where the workers' Python module is unpacked.
func (e environment) cacheDir() string {
	if dir, err := os.UserCacheDir(); err == nil {
		return filepath.Join(dir, "outlast")
	}
	return filepath.Join(os.TempDir(), "outlast-cache")
}

// devices returns the GPUs that programs see in this environment.
func (e environment) devices(ctx context.Context) (gpu.Inventory, error) {
	if list, restricted := e.lookup("CUDA_VISIBLE_DEVICES"); restricted {
		return e.devicesAmong(ctx, list)
	}
	return gpu.Detect(ctx, e.get("OUTLAST_NVIDIA_SMI"))
}

// devicesAmong returns the GPUs that programs see with CUDA_VISIBLE_DEVICES set to
// list.
func (e environment) devicesAmong(ctx context.Context, list string) (gpu.Inventory, error) {
	if list == "" || list == "-1" { // a driver that hangs is hidden like this
		return gpu.Inventory{Source: gpu.SourceNone}, nil
	}
	found, err := gpu.Detect(ctx, e.get("OUTLAST_NVIDIA_SMI"))
	found.Devices = gpu.Visible(found.Devices, list)
	return found, err
}

// deps connects the magics to this machine.
func (p *program) deps() *magics.Deps {
	dir, err := os.Getwd()
	if err != nil { // the folder is gone; workers need one that is there
		dir = os.TempDir()
	}
	home, err := os.UserHomeDir()
	if err != nil { // there are users without one
		home = ""
	}
	runs, note := p.runsDir()
	return &magics.Deps{
		Version:      version,
		Dir:          runs,
		DirNote:      note,
		Mounted:      p.mount,
		RunName:      p.env.runName(),
		Python:       p.env.python(),
		WorkDir:      dir,
		Home:         home,
		Host:         p.env.host(),
		Session:      &magics.Session{},
		MachineAge:   machineAge,
		Supervisor:   supervisorCommand,
		Devices:      p.env.devices,
		DevicesAmong: p.env.devicesAmong,
		OpenStore:    p.openStore,
		OpenExisting: p.openExisting,
		CloseStore:   p.closeStore,
		DefaultStore: p.defaultStore,
		Space:        p.space,
		SignIn:       (&signIns{program: p}).begin,
		FreeDisk:     freeDisk,
	}
}
