package install

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// PrefixDir returns the Jupyter data folder of a Python environment.
func PrefixDir(prefix string) string { return filepath.Join(prefix, "share", "jupyter") }

// A Lookup returns an environment variable, and whether it is set.
type Lookup func(name string) (string, bool)

func (l Lookup) get(name string) string {
	value, _ := l(name)
	return value
}

// isOn reads a switch of jupyter_core.
func (l Lookup) isOn(name string) bool {
	value, ok := l(name)
	return ok && !slices.Contains([]string{"no", "n", "false", "off", "0", "0.0"}, strings.ToLower(value))
}

func (l Lookup) home() string {
	if runtime.GOOS == "windows" {
		return l.get("USERPROFILE")
	}
	return l.get("HOME")
}

// UserDir returns the user's Jupyter data folder, as jupyter_core finds it.
func UserDir(lookup Lookup) (string, error) {
	if dir := lookup.get("JUPYTER_DATA_DIR"); dir != "" {
		return dir, nil
	}
	home := lookup.home()
	switch {
	case runtime.GOOS == "windows" && lookup.get("APPDATA") != "":
		return filepath.Join(lookup.get("APPDATA"), "jupyter"), nil
	case runtime.GOOS != "darwin" && runtime.GOOS != "windows" && lookup.get("XDG_DATA_HOME") != "":
		return filepath.Join(lookup.get("XDG_DATA_HOME"), "jupyter"), nil
	case home == "":
		return "", &SpecError{"the user's", errors.New("there is no home folder to keep it in"), "set HOME, or give --prefix"}
	case runtime.GOOS == "darwin":
		return filepath.Join(home, "Library", "Jupyter"), nil
	case runtime.GOOS == "windows":
		return filepath.Join(home, ".jupyter", "data"), nil
	}
	return filepath.Join(home, ".local", "share", "jupyter"), nil
}

// SearchPath returns the Jupyter data folders in the order in which Jupyter
// looks into them, for the Python environment in prefix; "" is none.
func SearchPath(lookup Lookup, prefix string) []string {
	var path []string
	add := func(dirs ...string) {
		for _, dir := range dirs {
			if dir != "" && !slices.Contains(path, dir) {
				path = append(path, dir)
			}
		}
	}
	if extra := lookup.get("JUPYTER_PATH"); extra != "" {
		for _, dir := range filepath.SplitList(extra) {
			add(strings.TrimRight(dir, string(filepath.Separator)))
		}
	}
	user := userDirs(lookup)
	system := systemDirs(lookup)
	var environment []string
	if prefix != "" && !slices.Contains(system, PrefixDir(prefix)) {
		environment = []string{PrefixDir(prefix)}
	}
	if prefersEnvironment(lookup, prefix) {
		add(environment...)
		add(user...)
	} else {
		add(user...)
		add(environment...)
	}
	add(system...)
	add(ipythonDir(lookup))
	return path
}

// userDirs are the user's data folder and that of pip's --user, which differ on
// macOS and Windows only, where the latter has Python's version in its name.
func userDirs(lookup Lookup) []string {
	var dirs []string
	if user, err := UserDir(lookup); err == nil {
		dirs = append(dirs, user)
	}
	base := lookup.get("PYTHONUSERBASE")
	if home := lookup.home(); base == "" && home != "" && runtime.GOOS == "linux" {
		base = filepath.Join(home, ".local")
	}
	if base != "" {
		dirs = append(dirs, PrefixDir(base))
	}
	return dirs
}

func systemDirs(lookup Lookup) []string {
	if runtime.GOOS != "windows" {
		return []string{"/usr/local/share/jupyter", "/usr/share/jupyter"}
	}
	if dir := lookup.get("PROGRAMDATA"); dir != "" && lookup.isOn("JUPYTER_USE_PROGRAMDATA") {
		return []string{filepath.Join(dir, "jupyter")}
	}
	return nil
}

// ipythonDir is where kernels were before Jupyter; it is still looked into.
func ipythonDir(lookup Lookup) string {
	if dir := lookup.get("IPYTHONDIR"); dir != "" {
		return dir
	}
	if home := lookup.home(); home != "" {
		return filepath.Join(home, ".ipython")
	}
	return ""
}

// prefersEnvironment reports whether the environment comes before the user: if
// it was asked for, or in a virtual environment of this user's.
func prefersEnvironment(lookup Lookup, prefix string) bool {
	if _, ok := lookup("JUPYTER_PREFER_ENV_PATH"); ok {
		return lookup.isOn("JUPYTER_PREFER_ENV_PATH")
	}
	if prefix == "" || !owned(prefix) {
		return false
	}
	if _, err := os.Stat(filepath.Join(prefix, "pyvenv.cfg")); err == nil {
		return true
	}
	conda, base := lookup.get("CONDA_PREFIX"), lookup.get("CONDA_DEFAULT_ENV")
	return conda != "" && strings.HasPrefix(prefix, conda) && base != "" && base != "base"
}
