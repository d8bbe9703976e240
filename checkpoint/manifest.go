// Package checkpoint keeps the checkpoints of a run: it makes them durable,
// verifies them, keeps a few of each model, and copies them to a store and back.
//
// A checkpoint is a folder of files with a manifest that was written last. It
// knows nothing of processes or of what is in the files.
package checkpoint

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"outlast/checkpoint/durable"
)

// ManifestName is the file that makes a folder a checkpoint.
const ManifestName = "manifest.json"

// Bounds of a manifest that is believed. A hostile or damaged one must not
// make us read, allocate or write without end.
const (
	manifestFormat   = 1
	maxManifestBytes = 32 << 20
	maxMetricsBytes  = 1 << 20
	maxFiles         = 100_000
	maxTotalBytes    = 1 << 50 // of all files; no disk has more
	maxPathBytes     = 1024
	maxNameBytes     = 255 // of one part of a path: what file systems take
	maxDepth         = 32  // parts of a path
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

// atMost returns the lesser of two durabilities: a checkpoint is as safe as the
// least safe of its files.
func (d Durability) atMost(other Durability) Durability {
	order := []Durability{Staged, Local, Handed, Mirrored}
	return order[max(0, min(slices.Index(order, d), slices.Index(order, other)))]
}

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

// Bytes returns the size of all files together.
func (m Manifest) Bytes() (total int64) {
	for _, f := range m.Files {
		total += f.Size
	}
	return total
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
	data, err := io.ReadAll(io.LimitReader(r, maxManifestBytes+1))
	if err != nil {
		return Manifest{}, fmt.Errorf("read manifest: %w", err)
	}
	if len(data) > maxManifestBytes {
		return Manifest{}, &DamagedError{ManifestName, "it is too large to be one"}
	}
	var m Manifest
	if err := decodeManifest(data, &m); err != nil {
		return m, err
	}
	return m, m.check()
}

// decodeManifest decodes what may have grown without end last, and within
// bounds: a few bytes of JSON become many of memory.
func decodeManifest(data []byte, m *Manifest) error {
	type plain Manifest
	bounded := struct {
		*plain
		Metrics json.RawMessage `json:"metrics"`
		Files   boundedFiles    `json:"files"`
	}{plain: (*plain)(m)}
	err := json.Unmarshal(data, &bounded)
	if err == nil && len(bounded.Metrics) > maxMetricsBytes {
		err = errTooMany
	}
	if err == nil && bounded.Metrics != nil {
		err = json.Unmarshal(bounded.Metrics, &m.Metrics)
	}
	if err == nil && bounded.Files == nil {
		err = errNoList
	}
	if errors.Is(err, errTooMany) {
		return &DamagedError{ManifestName, "its numbers make no sense"}
	}
	if err != nil {
		return &DamagedError{ManifestName, "it is no JSON of a manifest"}
	}
	m.Files = bounded.Files
	return nil
}

var (
	errTooMany = errors.New("too many to be believed")
	errNoList  = errors.New("no list")
)

// boundedFiles is a list of files that ends with an error when it is too long.
type boundedFiles []File

// UnmarshalJSON implements json.Unmarshaler.
func (b *boundedFiles) UnmarshalJSON(data []byte) error {
	d := json.NewDecoder(strings.NewReader(string(data)))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return errors.Join(errNoList, err)
	}
	*b = boundedFiles{}
	for d.More() {
		if len(*b) == maxFiles {
			return errTooMany
		}
		var f File
		if err := d.Decode(&f); err != nil {
			return err
		}
		*b = append(*b, f)
	}
	return nil
}

func (m Manifest) check() error {
	if m.Format != manifestFormat {
		return &DamagedError{ManifestName, fmt.Sprintf("its format is %d, and this version knows %d", m.Format, manifestFormat)}
	}
	if m.Step < 0 || m.Generation < 0 {
		return &DamagedError{ManifestName, "its numbers make no sense"}
	}
	names := newNames()
	left := int64(maxTotalBytes)
	for _, f := range m.Files {
		if sum, err := hex.DecodeString(f.SHA256); err != nil || len(sum) != 32 || f.Size < 0 {
			return &DamagedError{ManifestName, fmt.Sprintf("its entry %q cannot be trusted", f.Path)}
		}
		if err := names.add(f.Path); err != nil {
			return &DamagedError{ManifestName, fmt.Sprintf("its entry %q cannot be trusted: %v", f.Path, err)}
		}
		if f.Size > left {
			return &DamagedError{ManifestName, "its numbers make no sense"}
		}
		left -= f.Size
	}
	return nil
}

// names are the paths of one checkpoint, which must be those of different files
// on every file system: many do not tell upper from lower case.
type names struct {
	files   map[string]bool // folded
	folders map[string]bool // folded
}

func newNames() *names {
	return &names{files: map[string]bool{fold(ManifestName): true}, folders: map[string]bool{}}
}

func fold(name string) string { return strings.ToLower(strings.ToUpper(name)) }

func (n *names) add(name string) error {
	if !safePath(name) {
		return errors.New("it is no name that a file may have everywhere")
	}
	folded := fold(name)
	if n.files[folded] || n.folders[folded] {
		return errors.New("another file has this name, or one that differs in upper and lower case only")
	}
	for dir := path.Dir(folded); dir != "."; dir = path.Dir(dir) {
		if n.files[dir] {
			return errors.New("it lies in what is a file")
		}
		n.folders[dir] = true
	}
	n.files[folded] = true
	return nil
}

// safePath reports whether name stays within the folder it is relative to, on
// every system, and can be told to a terminal.
func safePath(name string) bool {
	if name == "" || name == "." || len(name) > maxPathBytes || !utf8.ValidString(name) || name != path.Clean(name) ||
		!filepath.IsLocal(filepath.FromSlash(name)) || strings.ContainsAny(name, "\\:") || strings.ContainsFunc(name, unicode.IsControl) {
		return false
	}
	parts := strings.Split(name, "/")
	return len(parts) <= maxDepth && !slices.ContainsFunc(parts, func(part string) bool {
		return len(part) > maxNameBytes || durable.IsTemp(part) // those are swept
	})
}

// safeName reports whether name can be that of a run or a model: a folder of
// its own on every system.
func safeName(name string) bool { return safePath(name) && !strings.Contains(name, "/") }
