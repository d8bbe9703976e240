package kernel

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOnlyUnchangedPagesOfTheProgramAreLetGo(t *testing.T) {
	const smaps = `00400000-00e5d000 r-xp 00000000 fe:00 12 /opt/outlast
Size:              10612 kB
Rss:                8616 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
00e5d000-01a80000 r--p 00a5d000 fe:00 12 /opt/outlast
Anonymous:             0 kB
01a80000-01a81000 r--p 01680000 fe:00 12 /opt/outlast
Anonymous:             4 kB
01a81000-01ffc000 rw-p 01681000 fe:00 12 /opt/outlast
Anonymous:             0 kB
c000000000-c000800000 rw-p 00000000 00:00 0 
Anonymous:             0 kB
7f0000000000-7f0000100000 r-xp 00000000 fe:00 13 /usr/lib/libc.so.6
Anonymous:             0 kB
7f0000200000-7f0000300000 r--s 00000000 fe:00 14 /opt/other/outlast
Anonymous:             0 kB
`
	assert.Equal(t, []area{{0x400000, 0xa5d000}, {0xe5d000, 0xc23000}}, programAreas(smaps, "/opt/outlast"))
	assert.Empty(t, programAreas("", "/opt/outlast"))
	assert.Empty(t, programAreas("x-y r-xp /opt/outlast\nAnonymous: 0 kB\n-\n", "/opt/outlast"))
}

func TestLettingTheProgramGoTakesItsPagesOff(t *testing.T) {
	before := resident(t)
	unmapProgram()
	after := resident(t)
	t.Logf("%d KiB of files before, %d after", before, after)
	require.Less(t, after, before)
}

// resident returns how much of files the process has mapped, in KiB.
func resident(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(status), "RssFile:")
	require.True(t, ok)
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	require.NoError(t, err)
	return n
}
