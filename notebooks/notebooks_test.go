package notebooks_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/notebooks"
)

var update = flag.Bool("update", false, "rewrite the golden files") //nolint:gochecknoglobals // a flag is registered once

// A text is a string that a notebook may keep as a list of lines.
type text string

func (t *text) UnmarshalJSON(data []byte) error {
	var lines []string
	if err := json.Unmarshal(data, &lines); err == nil {
		*t = text(strings.Join(lines, ""))
		return nil
	}
	return json.Unmarshal(data, (*string)(t))
}

type notebook struct {
	Format int `json:"nbformat"`
	Cells  []struct {
		ID             string            `json:"id"`
		Kind           string            `json:"cell_type"`
		Source         text              `json:"source"`
		ExecutionCount *int              `json:"execution_count"`
		Outputs        []json.RawMessage `json:"outputs"`
	} `json:"cells"`
}

func read(t *testing.T, name string) notebook {
	t.Helper()
	data, err := notebooks.Read(name)
	require.NoError(t, err)
	var book notebook
	require.NoError(t, json.Unmarshal(data, &book))
	return book
}

// What a notebook says can be reviewed as text, without the quotes of its format.
func TestNotebooksSayWhatTheirGoldenTextSays(t *testing.T) {
	for _, name := range notebooks.Names() {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			for _, c := range read(t, name).Cells {
				fmt.Fprintf(&b, "──── %s ────\n%s\n\n", c.Kind, strings.TrimRight(string(c.Source), "\n"))
			}
			path := filepath.Join("testdata", name+".golden")
			if *update {
				require.NoError(t, os.MkdirAll("testdata", 0o755))
				require.NoError(t, os.WriteFile(path, []byte(b.String()), 0o644))
				return
			}
			want, err := os.ReadFile(path)
			require.NoError(t, err, "go test ./notebooks -update writes it")
			assert.Equal(t, string(want), b.String(), path)
		})
	}
}

func TestNotebooksAreBundledAsNobodyHasRunThem(t *testing.T) {
	for _, name := range notebooks.Names() {
		t.Run(name, func(t *testing.T) {
			book := read(t, name)
			assert.Equal(t, 4, book.Format)
			seen := map[string]bool{}
			for _, c := range book.Cells {
				assert.NotEmpty(t, c.ID)
				assert.False(t, seen[c.ID], "%s is there twice", c.ID)
				seen[c.ID] = true
				assert.Nil(t, c.ExecutionCount, c.ID)
				assert.Empty(t, c.Outputs, c.ID)
				assert.NotEmpty(t, strings.TrimSpace(string(c.Source)), c.ID)
			}
		})
	}
}

func TestANotebookThatIsNotThereIsToldWithThoseThatAre(t *testing.T) {
	assert.Contains(t, notebooks.Names(), notebooks.Default)
	_, err := notebooks.Read("quickstarts")
	assert.EqualError(t, err, "find notebook quickstarts: there are "+strings.Join(notebooks.Names(), ", "))
}
