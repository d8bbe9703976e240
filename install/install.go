package install

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"outlast/checkpoint/durable"
)

// logos are the pictures of the kernel, under the names that Jupyter looks for.
//
//go:embed logo-32x32.png logo-64x64.png logo-svg.svg
var logos embed.FS

// Options say what to install.
type Options struct {
	Dir     string // Jupyter data folder
	Name    string // of the kernelspec
	Program Program
	Child   Spec // what it wraps
	// Prefix is the Python environment in which the child is looked for; empty
	// means that of the server that starts the kernel.
	Prefix  string
	Version string
}

// prefixOf is what a server replaces by its own environment. Some do not; then
// the kernel takes that of the command line.
const prefixOf = "{prefix}"

// Argv is the command that starts the kernel by the program at exe. child names
// the kernelspec to wrap, or is its folder.
func (o Options) Argv(exe, child string) []string {
	prefix := o.Prefix
	if prefix == "" {
		prefix = prefixOf
	}
	return []string{exe, "kernel", "-f", "{connection_file}", "--prefix", prefix, "--child", child}
}

// Install writes our kernelspec and returns its folder. It replaces one of ours
// and refuses to replace anybody else's. Doing it twice is doing it once.
func Install(o Options) (string, error) {
	if err := checkName(o.Name); err != nil {
		return "", err
	}
	dir := specDir(o.Dir, o.Name)
	old, err := read(dir)
	switch {
	case err == nil && !old.Ours():
		return "", &SpecError{o.Name, fmt.Errorf("%s is another program's", dir), "give another --name"}
	case err == nil && old.mark().Shadow:
		return "", &SpecError{o.Name, fmt.Errorf("%s was installed with --colab", dir), "install with --colab again, or undo that first: outlast uninstall --colab"}
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", &SpecError{o.Name, err, "remove the folder " + dir}
	}
	m := mark{Version: o.Version, Child: o.Child.Name, Created: old.mark().Created}
	if m.Created == "" {
		m.Created = firstMissing(dir)
	}
	return dir, o.write(dir, m, o.Child.Name)
}

// write puts our kernelspec into dir. Jupyter sees it when kernel.json is there,
// which comes last.
func (o Options) write(dir string, m mark, child string) error {
	exe, err := o.Program.lasting(o.Dir)
	if err != nil {
		return denied(o.Name, err)
	}
	for _, name := range []string{"logo-32x32.png", "logo-64x64.png", "logo-svg.svg"} {
		content, err := logos.ReadFile(name)
		if err != nil {
			return err
		}
		if _, err := durable.WriteFile(filepath.Join(dir, name), bytes.NewReader(content), nil); err != nil {
			return denied(o.Name, err)
		}
	}
	if err := durable.WriteJSON(filepath.Join(dir, specFile), o.spec(m, o.Argv(exe, child))); err != nil {
		return denied(o.Name, err)
	}
	return nil
}

// denied says what to do about a folder that cannot be written.
func denied(name string, err error) error {
	hint := "see what is at that path"
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		hint = "install for yourself with --user, or into an environment of yours with --prefix"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		hint = "free some space on that disk"
	}
	return &SpecError{name, err, hint}
}

// spec is what our kernel.json says. Interrupts come as messages, which work on
// every platform and from every front end. Encryption is not declared: the child
// is spoken to over local sockets, and we do not speak CURVE.
func (o Options) spec(m mark, argv []string) Spec {
	metadata := map[string]any{markName: m}
	if o.Child.Metadata["debugger"] == true {
		metadata["debugger"] = true
	}
	display := "Python 3 (Outlast)"
	switch {
	case m.Shadow: // nobody is to notice
		display = o.Child.DisplayName
	case o.Child.Name != DefaultChild:
		display = o.Child.DisplayName + " (Outlast)"
	}
	return Spec{
		Argv:          argv,
		DisplayName:   display,
		Language:      o.Child.Language,
		InterruptMode: "message",
		Protocol:      "5.5",
		Metadata:      metadata,
	}
}

// Uninstall removes our kernelspec called name from the Jupyter data folder, and
// returns its folder. Folders that Install made go too, if nothing else is there.
func Uninstall(dataDir, name string) (string, error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	dir := specDir(dataDir, name)
	found, err := read(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", &SpecError{name, fmt.Errorf("there is none in %s", filepath.Dir(dir)), "say where it was installed: --user, --sys-prefix or --prefix"}
	case err != nil:
		return "", &SpecError{name, err, "remove the folder " + dir}
	case !found.Ours():
		return "", &SpecError{name, fmt.Errorf("%s is another program's", dir), "remove it with: jupyter kernelspec remove " + name}
	case found.mark().Shadow:
		return "", &SpecError{name, fmt.Errorf("%s was installed with --colab", dir), "undo that with: outlast uninstall --colab"}
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", denied(name, err)
	}
	sweep(dataDir, filepath.Dir(dir), found.mark().Created)
	return dir, nil
}

// sweep removes the copy of our program that no kernelspec starts any more, and
// the folders from dir up to created, as long as they are empty.
func sweep(dataDir, dir, created string) {
	if !used(dataDir, lastingCopy(dataDir)) {
		os.Remove(lastingCopy(dataDir)) //nolint:errcheck // most have none, and Windows keeps what runs
	}
	os.Remove(ownDir(dataDir)) //nolint:errcheck // not if something is in it
	if created == "" {
		return
	}
	for within(dir, filepath.Dir(created)) {
		if os.Remove(dir) != nil {
			return // something is in it
		}
		dir = filepath.Dir(dir)
	}
}

// used reports whether a kernelspec in dataDir starts the program at exe.
func used(dataDir, exe string) bool {
	entries, err := os.ReadDir(filepath.Join(dataDir, "kernels"))
	if err != nil {
		return false
	}
	for _, e := range entries {
		if spec, err := read(filepath.Join(dataDir, "kernels", e.Name())); err == nil && spec.Argv[0] == exe {
			return true
		}
	}
	return false
}

// firstMissing returns the topmost of path and its parents that is not there;
// "" if all are.
func firstMissing(path string) string {
	missing := ""
	for {
		if _, err := os.Lstat(path); err == nil || path == filepath.Dir(path) {
			return missing
		}
		missing, path = path, filepath.Dir(path)
	}
}
