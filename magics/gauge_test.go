//go:build unix

package magics_test

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/gpu"
	"outlast/magics"
)

// oneT4 gives d a GPU that is used more and more.
func oneT4(d *magics.Deps) {
	var looks atomic.Int64
	busy := 87
	d.Devices = func(context.Context) (gpu.Inventory, error) {
		free := 15360 - 1024*looks.Add(1)
		return gpu.Inventory{Source: gpu.SourceSMI, Devices: []gpu.Device{{
			Name: "Tesla T4", UUID: "GPU-1", MemoryTotalMiB: 15360, MemoryFreeMiB: free, ComputeCapability: "7.5", Busy: &busy,
		}}}, nil
	}
}

func TestTheGPUsMemoryIsShownWhileARunWorks(t *testing.T) {
	d := deps(t)
	leaveNothing(t, d)
	oneT4(d)
	list := scripts(t, d, map[string][]string{"a": {"hello", "restore", "await go", "train 10 every 5", "finish"}}, "a")
	must(t, d, "train digits --detach "+list+" "+worker(t))
	assert.Contains(t, must(t, d, "status"), "GPU 0, Tesla T4: 2.0 GiB of 15.0 GiB in use, 87 % busy", "train looked once")

	var c typed
	once(&c.screen, `GPU 0, Tesla T4: 3\.0 GiB of 15\.0 GiB in use`, func() {
		assert.NoError(t, os.WriteFile(filepath.Join(d.Dir, "digits", "go"), nil, 0o644))
	})
	require.NoError(t, c.run(t.Context(), d, "attach"))
	assert.NotContains(t, c.screen.text(), "in use", "what is over uses nothing")
}

func TestADriverThatHangsHoldsNothingUp(t *testing.T) {
	d := deps(t)
	leaveNothing(t, d)
	oneT4(d)
	list := scripts(t, d, map[string][]string{"a": {"hello", "restore", "await go", "train 10 every 5", "finish"}}, "a")
	must(t, d, "train digits --detach "+list+" "+worker(t))
	d.Devices = func(ctx context.Context) (gpu.Inventory, error) {
		<-ctx.Done()
		return gpu.Inventory{}, ctx.Err()
	}
	text := must(t, d, "status")
	assert.Contains(t, text, "digits: running")
	assert.NotContains(t, text, "in use")

	var c typed
	once(&c.screen, "running", func() {
		assert.NoError(t, os.WriteFile(filepath.Join(d.Dir, "digits", "go"), nil, 0o644))
	})
	require.NoError(t, c.run(t.Context(), d, "attach"))
	assert.Contains(t, c.screen.text(), "digits: done")
}
