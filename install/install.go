package install

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"outlast/checkpoint/durable"
)

//go:embed logo.svg
var logo []byte

// Options say what to install.
type Options struct {
	Dir     string // Jupyter data folder
	Name    string // of the kernelspec
	Exe     string // our program, by a path that lasts
	Child   Spec   // what it wraps
	Version string
}

// Install writes our kernelspec and returns its folder. It replaces one of ours
// and refuses to replace anybody else's.
func Install(o Options) (string, error) {
	dir := filepath.Join(o.Dir, "kernels", o.Name)
	old, err := read(dir)
	switch {
	case err == nil && !old.Ours():
		return "", &SpecError{o.Name, fmt.Errorf("%s is another program's", dir), "give another --name"}
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", &SpecError{o.Name, err, "remove the folder " + dir}
	}
	if err := durable.MkdirAll(dir); err != nil {
		return "", denied(o.Name, err)
	}
	data, err := json.MarshalIndent(spec(o), "", "  ")
	if err != nil {
		return "", err
	}
	for name, content := range map[string][]byte{"logo-svg.svg": logo, specFile: append(data, '\n')} {
		if _, err := durable.WriteFile(filepath.Join(dir, name), bytes.NewReader(content), nil); err != nil {
			return "", denied(o.Name, err)
		}
	}
	return dir, nil
}

func denied(name string, err error) error {
	hint := "free some space on that disk"
	if errors.Is(err, fs.ErrPermission) {
		hint = "install for yourself with --user, or into an environment of yours with --prefix"
	}
	return &SpecError{name, err, hint}
}

// spec is what our kernel.json says. Interrupts come as messages, which work on
// every platform and from every front end. Encryption is not declared: the child
// is spoken to over local sockets, and we do not speak CURVE.
func spec(o Options) Spec {
	metadata := map[string]any{markName: map[string]any{"version": o.Version, "child": o.Child.Name}}
	if o.Child.Metadata["debugger"] == true {
		metadata["debugger"] = true
	}
	display := "Python 3 (Outlast)"
	if o.Child.Name != DefaultChild {
		display = o.Child.DisplayName + " (Outlast)"
	}
	return Spec{
		// The server fills in its own {prefix}: the environment in which the
		// child is looked for.
		Argv:          []string{o.Exe, "kernel", "-f", "{connection_file}", "--prefix", "{prefix}", "--child", o.Child.Name},
		DisplayName:   display,
		Language:      o.Child.Language,
		InterruptMode: "message",
		Protocol:      "5.5",
		Metadata:      metadata,
	}
}

// Uninstall removes our kernelspec called name from the Jupyter data folder dir,
// and returns its folder.
func Uninstall(dataDir, name string) (string, error) {
	dir := filepath.Join(dataDir, "kernels", name)
	found, err := read(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", &SpecError{name, fmt.Errorf("there is none in %s", filepath.Dir(dir)), "say where it was installed: --user, --sys-prefix or --prefix"}
	case err != nil:
		return "", &SpecError{name, err, "remove the folder " + dir}
	case !found.Ours():
		return "", &SpecError{name, fmt.Errorf("%s is another program's", dir), "remove it with: jupyter kernelspec remove " + name}
	}
	return dir, os.RemoveAll(dir)
}
