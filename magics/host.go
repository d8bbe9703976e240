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
	HostConsole         Host = "Jupyter console"
)

// HostOf tells the host by the variables that each sets.
func HostOf(lookup func(string) (string, bool)) Host {
	for _, sign := range []struct {
		variable string
		value    string // empty: any
		host     Host
	}{
		{"KAGGLE_KERNEL_RUN_TYPE", "", HostKaggle},                  // first: its image is built on Colab's, and has its variable too
		{"VERTEX_PRODUCT", "COLAB_ENTERPRISE", HostColabEnterprise}, // Workbench has another value
		{"COLAB_RELEASE_TAG", "", HostColab},
		{"JUPYTERHUB_API_TOKEN", "", HostJupyterHub},
		{"VSCODE_PID", "", HostVSCode},
	} {
		if value, ok := lookup(sign.variable); ok && value != "" && (sign.value == "" || value == sign.value) {
			return sign.host
		}
	}
	return HostJupyter
}

// InConsole returns the host of a kernel that a console has started there: no
// server of Jupyter's is between them.
func (h Host) InConsole() Host {
	if h == HostJupyter {
		return HostConsole
	}
	return h
}

// colab reports whether the notebook is a page of Colab's, with google.colab
// behind it.
func (h Host) colab() bool { return h == HostColab || h == HostColabEnterprise }

// serves reports whether pages of this host can link to files beside the notebook.
func (h Host) serves() bool { return h == HostJupyter || h == HostJupyterHub }

// limit returns how long a machine of this host usually lives, whatever it does;
// 0 if there is no such limit.
func (h Host) limit() time.Duration {
	switch h {
	case HostColab, HostKaggle:
		return 12 * time.Hour
	case HostColabEnterprise:
		return 18 * time.Hour
	case HostJupyterHub, HostVSCode, HostJupyter, HostConsole:
	}
	return 0
}

// protection says what keeps a notebook on this host alive, and what nothing
// inside it can do.
func (h Host) protection() (helps, cannot string) {
	switch h {
	case HostColab:
		return "an open tab with a running cell: %train runs as long as it trains, and after a reload %attach does; with Pro+, background execution while a cell runs; in VS Code, Colab's extension while the kernel is busy",
			"limits stay limits: 12 hours at most (24 with Pro+), fewer where GPUs are short, and the question whether you are there. Scripts in outputs cannot press Colab's own buttons, and its terms forbid ways around its limits; %resume goes on with the next machine"
	case HostColabEnterprise:
		return "a cell that runs: the idle time-out that the administrator chose counts from its end",
			"the runtime is deleted at its maximum age, whatever runs; %resume goes on with the next one"
	case HostKaggle:
		return "'Save & Run All' runs to the end without a tab; in the editor, an open tab",
			"the question 'Are you still there?' cannot be answered from a notebook, and a session has 12 hours at most"
	case HostJupyterHub:
		return "a kernel that gives signs of life: the hub's culler asks when a server was last active",
			"a maximum age (--max-age) ends servers even if they work, and what trains on their machine ends with it"
	case HostVSCode:
		return "the kernel lives as long as the machine it runs on; nothing culls it",
			"closing a remote window may end its server, and with it the kernel; the run goes on as long as the machine does"
	case HostConsole:
		return "nothing ends the kernel of a console but the console itself, and a run goes on without both",
			"the end of the machine; a run outlives its console, not its machine"
	case HostJupyter:
	}
	return "a busy kernel: the server's culler, if it is switched on, leaves it alone",
		"a culler told to end busy kernels (cull_busy) within less than a minute, and the end of the machine; a run outlives its kernel, not its machine"
}
