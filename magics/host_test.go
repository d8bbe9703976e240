package magics_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"outlast/magics"
)

func TestTheHostIsKnownByWhatItSets(t *testing.T) {
	for name, c := range map[string]struct {
		set  map[string]string
		want magics.Host
	}{
		"nothing":                           {nil, magics.HostJupyter},
		"Colab":                             {map[string]string{"COLAB_RELEASE_TAG": "release-colab_1"}, magics.HostColab},
		"Colab Enterprise":                  {map[string]string{"COLAB_RELEASE_TAG": "release-colab_1", "VERTEX_PRODUCT": "COLAB_ENTERPRISE"}, magics.HostColabEnterprise},
		"Colab Enterprise without a tag":    {map[string]string{"VERTEX_PRODUCT": "COLAB_ENTERPRISE"}, magics.HostColabEnterprise},
		"Workbench":                         {map[string]string{"VERTEX_PRODUCT": "WORKBENCH_INSTANCE"}, magics.HostJupyter},
		"Kaggle, whose image has Colab's":   {map[string]string{"COLAB_RELEASE_TAG": "release-colab_1", "KAGGLE_KERNEL_RUN_TYPE": "Interactive"}, magics.HostKaggle},
		"Kaggle, in a run without a page":   {map[string]string{"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, magics.HostKaggle},
		"JupyterHub":                        {map[string]string{"JUPYTERHUB_API_TOKEN": "x"}, magics.HostJupyterHub},
		"VS Code":                           {map[string]string{"VSCODE_PID": "7"}, magics.HostVSCode},
		"a variable that is set to nothing": {map[string]string{"KAGGLE_KERNEL_RUN_TYPE": "", "COLAB_RELEASE_TAG": ""}, magics.HostJupyter},
	} {
		t.Run(name, func(t *testing.T) {
			lookup := func(variable string) (string, bool) {
				value, ok := c.set[variable]
				return value, ok
			}
			assert.Equal(t, c.want, magics.HostOf(lookup))
		})
	}
}
