package magics

import "time"

// A Host is where the notebook runs, as far as that decides what keeps it alive.
type Host string

// The hosts that are told apart.
const (
	HostColab           Host = "Google Colab"
	HostColabEnterprise Host = "Colab Enterprise"
	HostKaggle          Host = "Kaggle"
	HostJupyterHub      Host = "JupyterHub"
	HostVSCode          Host = "VS Code"
	HostJupyter         Host = "Jupyter Server"
)

// HostOf tells the host by the variables that each sets.
func HostOf(lookup func(string) (string, bool)) Host {
	for _, sign := range []struct {
		variable string
		host     Host
	}{
		{"VERTEX_PRODUCT", HostColabEnterprise},
		{"COLAB_RELEASE_TAG", HostColab},
		{"KAGGLE_KERNEL_RUN_TYPE", HostKaggle},
		{"JUPYTERHUB_API_TOKEN", HostJupyterHub},
		{"VSCODE_PID", HostVSCode},
	} {
		if value, ok := lookup(sign.variable); ok && value != "" {
			return sign.host
		}
	}
	return HostJupyter
}

// limit returns how long a machine of this host usually lives, whatever it does;
// 0 if there is no such limit.
func (h Host) limit() time.Duration {
	switch h {
	case HostColab, HostKaggle:
		return 12 * time.Hour
	case HostColabEnterprise:
		return 18 * time.Hour
	case HostJupyterHub, HostVSCode, HostJupyter:
	}
	return 0
}

// protection says what keeps a notebook on this host alive, and what nothing
// inside it can do.
func (h Host) protection() (helps, cannot string) {
	switch h {
	case HostColab:
		return "an open tab with a running cell; background execution on Pro+ while a cell runs",
			"a page script cannot press Colab's own buttons (outputs live in a frame of their own), and nothing extends the limit of 12 or 24 hours"
	case HostColabEnterprise:
		return "the administrator's idle time-out counts from the last cell that ran",
			"the runtime is deleted at its maximum age whatever runs"
	case HostKaggle:
		return "'Save & Run All' runs to the end without a tab",
			"the question 'Are you still there?' cannot be answered from a notebook, and 12 hours is the limit"
	case HostJupyterHub:
		return "a running cell: the hub's culler looks at the kernel's activity",
			"a maximum age (--max-age) ends servers even if they work"
	case HostVSCode:
		return "the kernel lives as long as the machine it runs on; nothing culls it",
			"closing a remote window may end its server, and with it the kernel"
	case HostJupyter:
	}
	return "a running cell: the server's culler, if it is switched on, spares busy and connected kernels",
		"a culler with cull_busy, or the machine's own limit"
}
