package checkpoint_test

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
)

// A manifest comes from a disk or a store that others can write to: what it says
// is not believed before it is checked.
func TestReadManifest(t *testing.T) {
	sum := strings.Repeat("0", 64)
	file := func(path string) string { return fmt.Sprintf(`{"path":%q,"size":1,"sha256":%q}`, path, sum) }
	with := func(files ...string) string {
		return `{"format":1,"step":20,"files":[` + strings.Join(files, ",") + `]}`
	}
	for name, test := range map[string]struct {
		text string
		ok   bool
	}{
		"no files":                 {with(), true},
		"one file":                 {with(file("model.pt")), true},
		"a file below":             {with(file("a/b/c.pt")), true},
		"two files":                {with(file("a"), file("b")), true},
		"a name with blanks":       {with(file("my model (1).pt")), true},
		"a manifest below":         {with(file("a/manifest.json")), true},
		"a field we do not know":   {`{"format":1,"colour":"red","files":[]}`, true},
		"nothing":                  {``, false},
		"null":                     {`null`, false},
		"another format":           {`{"format":2,"files":[]}`, false},
		"no format":                {`{"files":[]}`, false},
		"torn":                     {`{"format":1,"files":[`, false},
		"something behind it":      {with() + "{}", false},
		"a negative step":          {`{"format":1,"step":-1,"files":[]}`, false},
		"a file above":             {with(file("../model.pt")), false},
		"a file above, in between": {with(file("a/../../model.pt")), false},
		"an absolute file":         {with(file("/etc/passwd")), false},
		"a drive":                  {with(file("C:/model.pt")), false},
		"a backslash":              {with(file(`..\model.pt`)), false},
		"a name not clean":         {with(file("a//b")), false},
		"a dot":                    {with(file(".")), false},
		"no name":                  {with(file("")), false},
		"a zero byte":              {with(file("a\x00b")), false},
		"itself":                   {with(file("manifest.json")), false},
		"twice the same":           {with(file("a"), file("a")), false},
		"a negative size":          {`{"format":1,"files":[{"path":"a","size":-1,"sha256":"` + sum + `"}]}`, false},
		"no SHA-256":               {`{"format":1,"files":[{"path":"a","size":1}]}`, false},
		"a negative generation":    {`{"format":1,"generation":-1,"files":[]}`, false},
		"a SHA-256 that is none":   {`{"format":1,"files":[{"path":"a","size":1,"sha256":"` + strings.Repeat("z", 64) + `"}]}`, false},
		"sizes that add up":        {`{"format":1,"files":[` + huge("a", sum) + `,` + huge("b", sum) + `]}`, false},
		"the same in upper case":   {with(file("model.pt"), file("Model.PT")), false},
		"itself in upper case":     {with(file("Manifest.JSON")), false},
		"a file and a folder":      {with(file("a"), file("a/b")), false},
		"a folder and a file":      {with(file("a/b/c"), file("A/b")), false},
		"below itself":             {with(file("manifest.json/a")), false},
		"two of one folder":        {with(file("a/b"), file("a/c"), file("ab")), true},
		"an escape sequence":       {with(file("a\x1b[2Jb")), false},
		"a line feed":              {with(file("a\nb")), false},
		"a leftover of a write":    {with(file("a.outlast-tmp-1")), false},
		"below a leftover":         {with(file("a.outlast-tmp-1/b")), false},
		"a name that is too long":  {with(file(strings.Repeat("n", 256))), false},
		"a long name":              {with(file(strings.Repeat("n", 255))), true},
		"a path that is too long":  {with(file(strings.Repeat("nnnnnnn/", 128) + "n")), false},
		"a path that is too deep":  {with(file(strings.Repeat("n/", 32) + "n")), false},
		"no list of files":         {`{"format":1,"step":20}`, false},
		"files are null":           {`{"format":1,"files":null}`, false},
		"files are no list":        {`{"format":1,"files":{"path":"a"}}`, false},
		"a file is no object":      {`{"format":1,"files":["a"]}`, false},
		"a size that overflows":    {`{"format":1,"files":[{"path":"a","size":99999999999999999999}]}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := checkpoint.ReadManifest(strings.NewReader(strings.ReplaceAll(test.text, `\x00`, `\u0000`)))
			if test.ok {
				require.NoError(t, err)
				return
			}
			var damaged *checkpoint.DamagedError
			require.ErrorAs(t, err, &damaged)
			require.Equal(t, checkpoint.ManifestName, damaged.Path)
		})
	}
}

func huge(name, sum string) string {
	return fmt.Sprintf(`{"path":%q,"size":%d,"sha256":%q}`, name, int64(1)<<50-1, sum)
}

// A few bytes of a manifest become many of memory: it must not be the one who
// wrote it that says how many.
func TestReadManifestIsBounded(t *testing.T) {
	for name, r := range map[string]io.Reader{
		"endless":       endless{},
		"files":         strings.NewReader(`{"format":1,"files":[` + strings.Repeat("{},", 300_000) + `{}]}`),
		"metrics":       strings.NewReader(`{"format":1,"files":[],"metrics":{"a":[` + strings.Repeat("[],", 400_000) + `[]]}}`),
		"unknown":       strings.NewReader(`{"format":1,"files":[],"x":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`),
		"files of null": strings.NewReader(`{"format":1,"files":[` + strings.Repeat("null,", 300_000) + `null]}`),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := checkpoint.ReadManifest(r)
			runtime.ReadMemStats(&after)
			var damaged *checkpoint.DamagedError
			require.ErrorAs(t, err, &damaged)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(150<<20), "all that was ever allocated")
		})
	}
}

// endless is a reader without end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func FuzzReadManifest(f *testing.F) {
	f.Add(`{"format":1,"step":20,"files":[{"path":"a/b","size":1,"sha256":"` + strings.Repeat("0", 64) + `"}]}`)
	f.Add(`{"format":1,"files":[{"path":"../a"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		m, err := checkpoint.ReadManifest(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, file := range m.Files {
			require.NotContains(t, strings.Split(file.Path, "/"), "..")
			require.NotRegexp(t, `^/`, file.Path)
		}
		again, err := json.Marshal(m)
		require.NoError(t, err)
		read, err := checkpoint.ReadManifest(strings.NewReader(string(again)))
		require.NoError(t, err)
		require.Equal(t, m.Files, read.Files)
	})
}
