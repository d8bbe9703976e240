package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/training"
)

// among is an environment with these variables and no others.
func among(set map[string]string) environment {
	return environment{func(name string) (string, bool) {
		value, ok := set[name]
		return value, ok
	}}
}

func TestRunsLieWhereTheHostKeepsFiles(t *testing.T) {
	here, err := filepath.Abs("outlast-runs")
	require.NoError(t, err)
	for name, c := range map[string]struct {
		set  map[string]string
		want string
	}{
		"anywhere":         {nil, here},
		"Colab":            {map[string]string{"COLAB_RELEASE_TAG": "release-colab_1"}, "/content/outlast-runs"},
		"Colab Enterprise": {map[string]string{"VERTEX_PRODUCT": "COLAB_ENTERPRISE"}, "/content/outlast-runs"},
		"Workbench":        {map[string]string{"VERTEX_PRODUCT": "WORKBENCH_INSTANCE"}, here},
		"Kaggle":           {map[string]string{"COLAB_RELEASE_TAG": "release-colab_1", "KAGGLE_KERNEL_RUN_TYPE": "Interactive"}, here},
		"where it is told": {map[string]string{"COLAB_RELEASE_TAG": "release-colab_1", "OUTLAST_HOME": "/data"}, "/data"},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, c.want, among(c.set).dataDir()) })
	}
}

func TestOnlyColabIsSignedInUnasked(t *testing.T) {
	for name, c := range map[string]struct {
		set  map[string]string
		want bool
	}{
		"anywhere":         {nil, false},
		"Colab":            {map[string]string{"COLAB_RELEASE_TAG": "release-colab_1"}, true},
		"Kaggle":           {map[string]string{"COLAB_RELEASE_TAG": "release-colab_1", "KAGGLE_KERNEL_RUN_TYPE": "Interactive"}, false},
		"with credentials": {map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": "/key.json"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("HOME", t.TempDir())
			t.Setenv("XDG_CONFIG_HOME", t.TempDir())
			p := &program{env: among(c.set)}
			assert.Equal(t, c.want, p.signedIn())
		})
	}
}

func TestAnUnnamedRunHasAnAllowedName(t *testing.T) {
	long := strings.Repeat("x", 99)
	for notebook, want := range map[string]string{
		"":                          "run",
		"digits.ipynb":              "digits",
		"work/My notes (2).ipynb":   "My-notes-2",
		"_draft.ipynb":              "draft",
		".-_hidden_.ipynb":          "hidden_",
		"___.ipynb":                 "run",
		"Übung.ipynb":               "bung",
		long + "yyyy.ipynb":         long + "y",
		long + ".." + long:          long,
		"work/3f2a-8b1c-console-id": "3f2a-8b1c-console-id",
	} {
		t.Run(notebook, func(t *testing.T) {
			name := among(map[string]string{"JPY_SESSION_NAME": notebook}).runName()
			assert.Equal(t, want, name)
			plan := training.Plan{Run: name, Code: training.Code{Kind: training.CodeCell}, Models: []training.Model{{Name: name}}}
			assert.NoError(t, plan.Validate())
		})
	}
}
