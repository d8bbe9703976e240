// Package checkpoint keeps the checkpoints of a run: it makes them durable,
// verifies them, keeps a few of each model, and copies them to a store and back.
//
// A checkpoint is a folder of files with a manifest that was written last. It
// knows nothing of processes or of what is in the files.
package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"outlast/checkpoint/durable"
)

// ManifestName is the file that makes a folder a checkpoint.
const ManifestName = "manifest.json"

// Bounds of a manifest that is believed. A hostile or damaged one must not
// make us read or allocate without end.
const (
	manifestFormat   = 1
	maxManifestBytes = 64 << 20
	maxFiles         = 100_000
)

// Durability says how safe a checkpoint is; it is never overstated.
type Durability string

// From the least to the most that can be said.
const (
	Staged   Durability = "staged"   // in memory or unsynced
	Local    Durability = "local"    // synced and hashed on this disk
	Handed   Durability = "handed"   // written to a folder; nobody has confirmed it
	Mirrored Durability = "mirrored" // the store has confirmed size and SHA-256
)

// A File is one file of a checkpoint.
type File struct {
	Path   string `json:"path"` // relative to the checkpoint, with slashes
	Size   int64  `json:"size"` // bytes
	SHA256 string `json:"sha256"`
}

// A Manifest says what a checkpoint is and what is in it.
type Manifest struct {
	Format      int            `json:"format"`
	Run         string         `json:"run"`
	Model       string         `json:"model"`
	Fingerprint string         `json:"fingerprint"`
	Step        int64          `json:"step"` // completed steps
	Generation  int64          `json:"generation"`
	Writer      string         `json:"writer"`
	Created     time.Time      `json:"created"`
	Final       bool           `json:"final"`
	Metrics     map[string]any `json:"metrics,omitempty"`
	Files       []File         `json:"files"`
}

// ErrNoManifest says that a folder is no checkpoint, or not yet one.
var ErrNoManifest = errors.New("it has no manifest")

// A DamagedError says how a checkpoint differs from its manifest.
type DamagedError struct {
	Path string // of the file, within the checkpoint
	Why  string
}

func (e *DamagedError) Error() string { return e.Path + ": " + e.Why }

// ReadManifest reads a manifest and refuses one that could lead outside its
// folder or exhaust this machine.
func ReadManifest(r io.Reader) (Manifest, error) {
	var m Manifest
	data, err := io.ReadAll(io.LimitReader(r, maxManifestBytes+1))
	if err != nil {
		return m, fmt.Errorf("read manifest: %w", err)
	}
	if len(data) > maxManifestBytes {
		return m, &DamagedError{ManifestName, "it is too large to be one"}
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, &DamagedError{ManifestName, "it is no JSON of a manifest"}
	}
	return m, m.check()
}

func (m Manifest) check() error {
	if m.Format != manifestFormat {
		return &DamagedError{ManifestName, fmt.Sprintf("its format is %d, and this version knows %d", m.Format, manifestFormat)}
	}
	if len(m.Files) > maxFiles || m.Step < 0 {
		return &DamagedError{ManifestName, "its numbers make no sense"}
	}
	seen := map[string]bool{ManifestName: true}
	for _, f := range m.Files {
		if !safePath(f.Path) || seen[f.Path] || f.Size < 0 || len(f.SHA256) != 64 {
			return &DamagedError{ManifestName, fmt.Sprintf("its entry %q cannot be trusted", f.Path)}
		}
		seen[f.Path] = true
	}
	return nil
}

// safePath reports whether name stays within the folder it is relative to, on
// every system.
func safePath(name string) bool {
	return name != "" && name != "." && utf8.ValidString(name) && name == path.Clean(name) && filepath.IsLocal(filepath.FromSlash(name)) &&
		!strings.ContainsAny(name, "\\:\x00")
}

// Verify reads the manifest of the checkpoint in dir and compares every file
// with it. The error wraps ErrNoManifest or is a *DamagedError if the
// checkpoint is not to be used.
func Verify(dir string) (Manifest, error) {
	m, err := manifestOf(dir)
	if err != nil {
		return m, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return m, err
	}
	defer root.Close() //nolint:errcheck // it was only read
	for _, f := range m.Files {
		if err := verifyFile(root, f); err != nil {
			return m, err
		}
	}
	return m, nil
}

func manifestOf(dir string) (Manifest, error) {
	f, err := os.Open(filepath.Join(dir, ManifestName))
	if os.IsNotExist(err) {
		return Manifest{}, ErrNoManifest
	}
	if err != nil {
		return Manifest{}, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	return ReadManifest(f)
}

func verifyFile(root *os.Root, f File) error {
	info, err := root.Lstat(filepath.FromSlash(f.Path))
	if err != nil {
		return &DamagedError{f.Path, "it is missing"}
	}
	if !info.Mode().IsRegular() {
		return &DamagedError{f.Path, "it is no regular file"}
	}
	if info.Size() != f.Size {
		return &DamagedError{f.Path, fmt.Sprintf("it has %d bytes instead of %d", info.Size(), f.Size)}
	}
	d, err := durable.HashFile(filepath.Join(root.Name(), filepath.FromSlash(f.Path)))
	if err != nil {
		return &DamagedError{f.Path, "it cannot be read: " + err.Error()}
	}
	if d.SHA256 != f.SHA256 {
		return &DamagedError{f.Path, "its SHA-256 differs"}
	}
	return nil
}
