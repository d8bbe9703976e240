package main_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// module is our own path, and that of main.
const module = "outlast"

// maxLines is the length beyond which a file holds more than one thing.
const maxLines = 500

// arrows says which of our packages each may import. What is not here must not
// exist: a new package is a decision about the design, and belongs in the
// picture in ARCHITECTURE.md too. Packages made for tests are free, and nothing
// but tests imports them.
func arrows() map[string][]string {
	return map[string][]string{
		"kernel/jupyter":     {},
		"gpu":                {},
		"notebooks":          {},
		"checkpoint/durable": {},
		"kernel":             {"kernel/jupyter"},
		"checkpoint":         {"checkpoint/durable"},
		"checkpoint/folder":  {"checkpoint", "checkpoint/durable"},
		"checkpoint/drive":   {"checkpoint", "checkpoint/durable"},
		"training":           {"checkpoint/durable"},
		"install":            {"checkpoint/durable"},
		"magics":             {"kernel/jupyter", "training", "gpu", "checkpoint"},
		".": {
			"kernel/jupyter", "gpu", "notebooks", "checkpoint/durable", "kernel", "checkpoint",
			"checkpoint/folder", "checkpoint/drive", "training", "install", "magics",
		},
	}
}

// homes says which folder alone may import a library.
func homes() map[string]string {
	return map[string]string{
		"github.com/go-zeromq/zmq4":    "kernel",
		"github.com/NVIDIA/go-nvml":    "gpu",
		"google.golang.org/api":        "checkpoint/drive",
		"golang.org/x/oauth2":          "checkpoint/drive",
		"cloud.google.com/go":          "checkpoint/drive",
		"gonum.org/v1/plot":            "magics",
		"github.com/jedib0t/go-pretty": "magics",
		"github.com/goccy/go-yaml":     "training",
	}
}

// testingOnly lists what belongs in test files and in packages named *test.
func testingOnly() []string {
	return []string{"testing", "github.com/stretchr/testify", "github.com/rogpeppe/go-internal"}
}

// madeForTests reports whether a package, or one that it lies below, is named
// *test.
func madeForTests(folder string) bool {
	return slices.ContainsFunc(strings.Split(folder, "/"), func(part string) bool { return strings.HasSuffix(part, "test") })
}

// banned lists what nobody imports, and what to use in its place.
func banned() map[string]string {
	return map[string]string{
		"log":                               "log/slog, passed in",
		"io/ioutil":                         "io and os",
		"github.com/pkg/errors":             "fmt.Errorf with %w",
		"github.com/stretchr/testify/mock":  "a fake",
		"github.com/stretchr/testify/suite": "plain functions",
	}
}

// environmentReaders lists the functions of os and syscall that read or change
// the environment: main's alone, which hands on what others need.
func environmentReaders() []string {
	return []string{"Getenv", "LookupEnv", "Environ", "ExpandEnv", "Setenv", "Unsetenv", "Clearenv"}
}

// A source is one Go file of ours, on whatever platform it compiles.
type source struct {
	path    string // with slashes, relative to the module's root
	folder  string // likewise; "." for main
	test    bool   // a test file, or one of a package made for tests
	imports []string
	file    *ast.File
}

func TestPackagesImportOnlyWhatTheDesignAllows(t *testing.T) {
	allowed := arrows()
	for _, s := range sources(t) {
		own := allowed[s.folder]
		for _, i := range s.imports {
			assert.NotEqual(t, module, i, "%s imports main", s.path)
			if to, ours := strings.CutPrefix(i, module+"/"); ours && !s.test {
				assert.Contains(t, own, to, s.path)
			}
		}
	}
}

func TestTheDesignNamesEveryPackageThatExistsAndNoOther(t *testing.T) {
	have := map[string]bool{}
	for _, s := range sources(t) {
		if !madeForTests(s.folder) {
			have[s.folder] = true
		}
	}
	named := map[string]bool{}
	for from, to := range arrows() {
		for _, folder := range append(to, from) {
			named[folder] = true
		}
	}
	assert.Equal(t, named, have, "expected: what the table of arrows names; actual: the packages")
}

func TestLibrariesStayInTheirHomes(t *testing.T) {
	for _, s := range sources(t) {
		for _, i := range s.imports {
			for library, home := range homes() {
				if within(i, library) {
					assert.Equal(t, home, s.folder, "%s imports %s", s.path, i)
				}
			}
			for library, instead := range banned() {
				assert.NotEqual(t, library, i, "%s: use %s", s.path, instead)
			}
		}
	}
}

func TestProductionCodeDoesNotImportWhatTestsUse(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		for _, i := range s.imports {
			assert.False(t, slices.ContainsFunc(testingOnly(), func(l string) bool { return within(i, l) }), "%s imports %s", s.path, i)
			assert.False(t, strings.HasPrefix(i, module+"/") && strings.HasSuffix(i, "test"), "%s imports %s", s.path, i)
		}
	}
}

func TestOnlyMainReadsTheEnvironment(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || s.folder == "." {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			selector, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			from, ok := selector.X.(*ast.Ident)
			if ok && (from.Name == "os" || from.Name == "syscall") {
				assert.NotContains(t, environmentReaders(), selector.Sel.Name, s.path)
			}
			return true
		})
	}
}

func TestNoFileIsLong(t *testing.T) {
	for _, file := range append(files(t, ".go"), files(t, ".py")...) {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.LessOrEqual(t, bytes.Count(text, []byte("\n")), maxLines, file)
	}
}

// within reports whether the import path is the library's or below it.
func within(imported, library string) bool {
	return imported == library || strings.HasPrefix(imported, library+"/")
}

// sources parses every Go file of ours, whatever its build constraints.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	for _, name := range files(t, ".go") {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		s := source{path: filepath.ToSlash(name), file: file}
		s.folder = path.Dir(s.path)
		s.test = strings.HasSuffix(s.path, "_test.go") || madeForTests(s.folder)
		for _, i := range file.Imports {
			imported, err := strconv.Unquote(i.Path.Value)
			require.NoError(t, err)
			s.imports = append(s.imports, imported)
		}
		all = append(all, s)
	}
	require.NotEmpty(t, all)
	return all
}

// files returns the files with this ending, without those of tools, builds and
// hidden folders.
func files(t *testing.T, ending string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := entry.Name()
		if entry.IsDir() && name != "." {
			if strings.HasPrefix(base, ".") || slices.Contains([]string{"build", "outlast-runs", "node_modules", "testdata"}, base) {
				return fs.SkipDir
			}
		}
		if !entry.IsDir() && filepath.Ext(base) == ending {
			found = append(found, name)
		}
		return nil
	})
	require.NoError(t, err)
	return found
}
