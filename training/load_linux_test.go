package training

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// system writes the files of a system below a folder, and returns it.
func system(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
	}
	return root
}

func TestTheMemoryOfTheMachineIsThatOfItsControlGroup(t *testing.T) {
	const info = "MemTotal:       16777216 kB\nMemFree:         1048576 kB\nMemAvailable:    8388608 kB\n"
	with := func(files map[string]string) map[string]string {
		files["proc/meminfo"] = info
		return files
	}
	tests := map[string]struct {
		files       map[string]string
		free, total float64
	}{
		"without one": {with(map[string]string{}), 8192, 16384},
		"version 2, a limit above us": {with(map[string]string{
			"proc/self/cgroup":                     "0::/box/me\n",
			"sys/fs/cgroup/box/me/memory.max":      "max\n",
			"sys/fs/cgroup/box/me/memory.current":  "1048576\n",
			"sys/fs/cgroup/box/memory.max":         "4294967296\n",
			"sys/fs/cgroup/box/memory.current":     "3221225472\n",
			"sys/fs/cgroup/box/memory.stat":        "anon 5\ninactive_file 1073741824\n",
			"sys/fs/cgroup/unrelated/memory.max":   "1\n",
			"sys/fs/cgroup/unrelated/memory.stat":  "inactive_file 0\n",
			"sys/fs/cgroup/unrelated/cgroup.procs": "",
		}), 2048, 4096},
		"version 2 in a container that is the world": {with(map[string]string{
			"proc/self/cgroup":             "0::/docker/0123\n",
			"sys/fs/cgroup/memory.max":     "2147483648\n",
			"sys/fs/cgroup/memory.current": "536870912\n",
			"sys/fs/cgroup/memory.stat":    "inactive_file 0\n",
		}), 1536, 2048},
		"version 1": {with(map[string]string{
			"proc/self/cgroup": "5:cpu:/x\n4:memory:/box\n",
			"sys/fs/cgroup/memory/box/memory.limit_in_bytes": "3221225472\n",
			"sys/fs/cgroup/memory/box/memory.usage_in_bytes": "3221225472\n",
			"sys/fs/cgroup/memory/box/memory.stat":           "total_inactive_file 1073741824\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":     "9223372036854771712\n",
			"sys/fs/cgroup/memory/memory.usage_in_bytes":     "1\n",
		}), 1024, 3072},
		"more used than there is": {with(map[string]string{
			"proc/self/cgroup":             "0::/\n",
			"sys/fs/cgroup/memory.max":     "1073741824\n",
			"sys/fs/cgroup/memory.current": "2147483648\n",
		}), 0, 1024},
		"a limit above the machine": {with(map[string]string{
			"proc/self/cgroup":             "0::/\n",
			"sys/fs/cgroup/memory.max":     "34359738368\n",
			"sys/fs/cgroup/memory.current": "34359738368\n",
		}), 8192, 16384},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			free, total, ok := hostMemory(system(t, test.files))
			require.True(t, ok)
			assert.InDelta(t, test.free, free, 1)
			assert.InDelta(t, test.total, total, 1)
		})
	}
	_, _, ok := hostMemory(t.TempDir())
	assert.False(t, ok, "there is nothing to read")
	free, total, ok := hostMemory("/")
	assert.True(t, ok)
	assert.Greater(t, total, free)
}

// A group is measured with all its members.
func TestTheUsageOfAWorkerIsThatOfItsGroup(t *testing.T) {
	// Two processes that compute, and have about 64 MiB each.
	work := `import os, time
hoard = bytearray(os.urandom(1) * (64 << 20))
end = time.process_time() + 0.2
while time.process_time() < end: pass
os.write(1, b"x")
time.sleep(100)`
	cmd := exec.CommandContext(t.Context(), "python3", "-c", "import os\nos.fork()\n"+work)
	group(cmd)
	said, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		killGroup(cmd.Process.Pid) //nolint:errcheck // it is there
		cmd.Wait()                 //nolint:errcheck // it was killed
	})
	for n := 0; n < 2; {
		got, err := said.Read(make([]byte, 2))
		require.NoError(t, err)
		n += got
	}
	all, ok := groupsUsage([]int{cmd.Process.Pid, 1 << 30})
	require.True(t, ok)
	u := all[cmd.Process.Pid]
	assert.GreaterOrEqual(t, u.cpu, 0.38)
	assert.GreaterOrEqual(t, u.memory, 128.0)
	assert.Less(t, u.memory, 256.0)
	assert.Equal(t, usage{}, all[1<<30], "there is none")
}
