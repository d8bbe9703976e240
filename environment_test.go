package main

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
