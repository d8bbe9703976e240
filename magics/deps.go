package magics

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"outlast/checkpoint"
	"outlast/gpu"
	"outlast/training"
)

// Deps is what magics need from the world. main fills it in; nothing here reads
// the environment. The functions may be called concurrently.
type Deps struct {
	Version string
	Dir     string // data directory, unless a call names another
	DirNote string // why Dir is not where one would look for it; empty: it is
	Mounted string // where Google Drive is mounted, or would be; no runs are kept below it
	RunName string // the run that an unnamed %train makes
	Python  string // interpreter for workers; in a notebook its own is asked for
	WorkDir string // where the program was started
	Home    string // the user's home folder; empty if unknown
	Host    Host
	Session *Session

	KernelID string // how Jupyter's server names this kernel; empty if it does not
	KeepNote string // the file that tells this kernel's next process that keep-alive is on; empty: nothing does
	// MachineAge returns how long this machine, or its container, is up; nil if
	// that cannot be known.
	MachineAge func() (time.Duration, error)

	// Supervisor returns the command that works the run off.
	Supervisor func(dir, run string) training.Command
	// Devices returns the GPUs that this process, and what it starts, may use.
	// DevicesAmong returns those that a value of CUDA_VISIBLE_DEVICES leaves.
	Devices      func(ctx context.Context) (gpu.Inventory, error)
	DevicesAmong func(ctx context.Context, visible string) (gpu.Inventory, error)
	// OpenStore opens the store that url names; the error says what a URL may be.
	// OpenExisting does too, but makes no folder. CloseStore lets go of either.
	OpenStore, OpenExisting func(ctx context.Context, url string) (checkpoint.Store, error)
	CloseStore              func(store checkpoint.Store)
	// DefaultStore returns the store of runs that name none; "" if there is none.
	DefaultStore func(ctx context.Context) string
	// Space says whose store it is and how full; errors.ErrUnsupported if such a
	// store does not know.
	Space func(ctx context.Context, store checkpoint.Store) (Space, error)
	// SignIn begins a sign-in to Google Drive with a browser and the OAuth client in
	// a file; empty: that of the sign-in before. One at a time: another one ends it.
	SignIn func(ctx context.Context, clientFile string) (SignIn, error)
	// Kernels returns the kernelspecs by which Jupyter finds Outlast here.
	Kernels func(ctx context.Context) []Kernelspec
	// FreeDisk returns the bytes free for this user at path.
	FreeDisk func(path string) (uint64, error)
}

// Session is what one notebook has set up so far. It is safe for concurrent use.
type Session struct {
	mu     sync.Mutex
	wishes gpu.Wishes
	shared []sharedCell
	chosen string // the store of runs that name none; empty: not chosen
	keep   *keeper
}

type sharedCell struct{ id, source string }

// Wishes returns the settings that the last %gpu_config asked for.
func (s *Session) Wishes() gpu.Wishes {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wishes
}

func (s *Session) setWishes(w gpu.Wishes) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wishes = w
}

// keeper returns the keep-alive of the notebook.
func (d *Deps) keeper() *keeper {
	s := d.Session
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keep == nil {
		s.keep = &keeper{deps: d}
	}
	return s.keep
}

func (s *Session) useStore(url string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.chosen = url
}

func (s *Session) store() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.chosen
}

// Share remembers a %%shared cell. The same cell run again replaces what it
// said before; cells are told apart by id, and without one by their text.
func (s *Session) Share(id, source string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	same := func(c sharedCell) bool { return c.source == source || id != "" && c.id == id }
	if i := slices.IndexFunc(s.shared, same); i >= 0 {
		s.shared[i].source = source
	} else {
		s.shared = append(s.shared, sharedCell{id, source})
	}
	return len(s.shared)
}

func (s *Session) forgetShared() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shared = nil
}

// Shared returns the text of all %%shared cells, in the order of their first run.
func (s *Session) Shared() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var texts []string
	for _, c := range s.shared {
		texts = append(texts, c.source)
	}
	return texts
}

// optional returns the only positional argument of c, or "".
func optional(m *Magic, c *Call) (string, error) {
	switch len(c.Args) {
	case 0:
		return "", nil
	case 1:
		return c.Args[0], nil
	}
	return "", &UsageError{m, fmt.Sprintf("it takes one name, not %s", strings.Join(c.Args, " "))}
}
