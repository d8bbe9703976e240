//go:build unix

package kernel

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// stateAfter returns how a shell that ran command ended.
func stateAfter(t *testing.T, command string) *os.ProcessState {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", command)
	cmd.Dir = t.TempDir() // for a core file
	cmd.Run()             //nolint:errcheck // the state says how it ended
	return cmd.ProcessState
}

func TestADeathSaysWhatIsCertain(t *testing.T) {
	for name, c := range map[string]struct {
		command string
		kills   kills
		want    string
	}{
		"exit status":           {"exit 3", kills{}, "it ended by itself, with exit status 3"},
		"exit without an error": {"exit 0", kills{known: true}, "it ended by itself, with exit status 0"},
		"memory ran out":        {"kill -KILL $$", kills{3, 4, true}, "memory ran out, and the system killed it (SIGKILL, signal 9; oom_kill went from 3 to 4)"},
		"killed":                {"kill -KILL $$", kills{3, 3, true}, "somebody killed it (SIGKILL, signal 9); it was not the system for lack of memory"},
		"killed, no counter":    {"kill -KILL $$", kills{}, "it was killed (SIGKILL, signal 9); whether memory ran out is not known here"},
		"crash":                 {"kill -SEGV $$", kills{3, 4, true}, "compiled code crashed in it (SIGSEGV, signal 11)"},
		"abort":                 {"kill -ABRT $$", kills{}, "compiled code crashed in it (SIGABRT, signal 6)"},
		"other signal":          {"kill -TERM $$", kills{}, "it was ended by SIGTERM (signal 15)"},
	} {
		t.Run(name, func(t *testing.T) {
			d := death{state: stateAfter(t, c.command), kills: c.kills}
			assert.Equal(t, c.want, d.String())
			d.memory = 3 << 29
			assert.Equal(t, c.want+"; the most memory it had was 1.5 GiB", d.String())
		})
	}
	assert.Equal(t, "no such file", death{instead: "no such file"}.String())
	assert.Equal(t, "it was restarted", death{state: stateAfter(t, "kill -KILL $$"), instead: "it was restarted"}.String())
}

func TestThePeakOfAProcessIsToldIfItCanBe(t *testing.T) {
	ours := ownPeak()
	state := stateAfter(t, "head -c 100000000 /dev/zero | tail -c 90000000 | wc -c")
	peak := peakMemory(state, 0)
	assert.Greater(t, peak, int64(80<<20), "what its children had counts")
	assert.Less(t, peak, ours+(300<<20), "the unit is right")
	assert.Zero(t, peakMemory(state, peak), "it may be ours")
	assert.Equal(t, peak, peakMemory(state, peak-1))
	assert.Zero(t, peakMemory(nil, 0))
}

func TestSizesAreForPeople(t *testing.T) {
	for bytes, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536 << 20: "1.5 GiB", 5 << 50: "5120 TiB"} {
		assert.Equal(t, want, size(bytes))
	}
}

// tree writes files below a new folder.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for path, text := range files {
		full := filepath.Join(root, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(full), 0o700))
		require.NoError(t, os.WriteFile(full, []byte(text), 0o600))
	}
	return root
}

func TestTheCounterOfKillsIsFoundWhereverTheSystemKeepsIt(t *testing.T) {
	const v1, v2 = "oom_kill_disable 0\nunder_oom 0\noom_kill %d\n", "low 0\noom 9\noom_kill %d\noom_group_kill 0\n"
	for name, c := range map[string]struct {
		proc  string
		files map[string]string
		want  int64
		known bool
	}{
		"unified": {"0::/user/a\n", map[string]string{"user/a/memory.events": fmt.Sprintf(v2, 5)}, 5, true},
		"first generation": {
			"12:memory:/jobs/b\n1:name=systemd:/x\n0::/x\n",
			map[string]string{"memory/jobs/b/memory.oom_control": fmt.Sprintf(v1, 7)},
			7, true,
		},
		"controllers together":        {"3:cpu,memory:/c\n", map[string]string{"memory/c/memory.oom_control": fmt.Sprintf(v1, 2)}, 2, true},
		"in a container, unified":     {"0::/docker/of/the/host\n", map[string]string{"memory.events": fmt.Sprintf(v2, 1)}, 1, true},
		"in a container, first":       {"5:memory:/docker/of/the/host\n", map[string]string{"memory/memory.oom_control": fmt.Sprintf(v1, 4)}, 4, true},
		"an old kernel without count": {"5:memory:/\n", map[string]string{"memory/memory.oom_control": "oom_kill_disable 0\n"}, 0, false},
		"no memory controller":        {"0::/\n", nil, 0, false},
		"nonsense":                    {"what\n:\n", map[string]string{"memory.events": "oom_kill many\n"}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			proc, cgroup := tree(t, map[string]string{"42/cgroup": c.proc}), tree(t, c.files)
			n, known := oomCounterOf(proc, cgroup, 42).read()
			assert.Equal(t, c.known, known)
			assert.Equal(t, c.want, n)
			_, known = oomCounterOf(proc, cgroup, 43).read()
			assert.False(t, known, "a process that is not there")
		})
	}
}
