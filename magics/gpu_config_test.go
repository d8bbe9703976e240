package magics

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/gpu"
)

// aScreen keeps what was shown.
type aScreen struct{ shown []View }

func (s *aScreen) Show(v View) { s.shown = append(s.shown, v) }
func (s *aScreen) Live() Live  { return s }

func (s *aScreen) Update(v View) { s.Show(v) }

// aNotebook keeps what it was told to execute.
type aNotebook struct {
	Notebook
	executed []string
}

// Eval says nothing of where it is.
func (n *aNotebook) Eval(context.Context, string) (json.RawMessage, error) {
	return nil, errors.New("it does not say")
}

func (n *aNotebook) Exec(_ context.Context, code string) error {
	n.executed = append(n.executed, code)
	return nil
}

// machines are what a machine may have, by the name of its golden file.
func machines() map[string]gpu.Inventory {
	l4 := gpu.Device{Name: "NVIDIA L4", UUID: "GPU-bbbb0000", MemoryTotalMiB: 23034, MemoryFreeMiB: 1201, ComputeCapability: "8.9"}
	free := l4
	free.Index, free.UUID, free.MemoryFreeMiB = 1, "GPU-bbbb0001", 22563
	slice := gpu.Device{
		Name: "NVIDIA A100-SXM4-40GB MIG 3g.20gb", UUID: "MIG-a1000000", MemoryTotalMiB: 20096, MemoryFreeMiB: 20077,
		ComputeCapability: "8.0", MIG: true,
	}
	return map[string]gpu.Inventory{
		"none":    {Source: gpu.SourceNone},
		"two":     {Devices: []gpu.Device{l4, free}, Source: gpu.SourceNVML},
		"slice":   {Devices: []gpu.Device{slice}, Source: gpu.SourceSMI},
		"unknown": {Devices: []gpu.Device{{Name: "NVIDIA GB10", UUID: "GPU-9a9a0000"}}, Source: gpu.SourceSMI},
	}
}

// configure runs the magic on a machine.
func configure(t *testing.T, found gpu.Inventory, nb Notebook, args ...string) (stdout string, screen *aScreen, session *Session, err error) {
	t.Helper()
	d := &Deps{
		Session: &Session{},
		Devices: func(context.Context) (gpu.Inventory, error) { return found, nil },
	}
	var out bytes.Buffer
	screen = &aScreen{}
	err = GPUConfig(d).Run(t.Context(), args, &Call{Stdout: &out, Stderr: &out, Screen: screen, Notebook: nb})
	return out.String(), screen, d.Session, err
}

func TestGPUConfigShowsWhatItFoundAndChose(t *testing.T) {
	for name, found := range machines() {
		t.Run(name, func(t *testing.T) {
			_, screen, _, err := configure(t, found, nil)
			require.NoError(t, err)
			require.Len(t, screen.shown, 1)
			golden(t, "gpu/"+name+".txt", screen.shown[0].Text)
			stdout, screen, _, err := configure(t, found, nil, "--json")
			require.NoError(t, err)
			assert.Empty(t, screen.shown)
			golden(t, "gpu/"+name+".json", stdout)
		})
	}
}

func TestGPUConfigSetsTheNotebooksEnvironment(t *testing.T) {
	nb := &aNotebook{}
	_, _, _, err := configure(t, machines()["slice"], nb)
	require.NoError(t, err)
	require.Len(t, nb.executed, 1)
	for _, part := range []string{"os').environ.update", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "MIG-a1000000"} {
		assert.Contains(t, nb.executed[0], part)
	}

	nb = &aNotebook{}
	_, _, _, err = configure(t, machines()["none"], nb)
	require.NoError(t, err)
	assert.Empty(t, nb.executed, "a CPU needs none")
}

func TestGPUConfigIsRememberedForTraining(t *testing.T) {
	_, _, session, err := configure(t, machines()["two"], nil,
		"--batch-size", "2", "--effective-batch", "32", "--lora-rank", "8", "--precision", "fp16", "--memory-fraction", "0.5")
	require.NoError(t, err)
	assert.Equal(t, gpu.Wishes{BatchSize: 2, EffectiveBatch: 32, LoRARank: 8, Precision: "fp16", MemoryFraction: 0.5}, session.Wishes())
}

func TestGPUConfigRefusesWhatCannotBe(t *testing.T) {
	for name, args := range map[string][]string{
		"an argument":         {"L4"},
		"no batch":            {"--batch-size", "0"},
		"no effective batch":  {"--effective-batch=0"},
		"no rank":             {"--lora-rank", "0"},
		"no memory":           {"--memory-fraction", "0.0"},
		"a batch in words":    {"--batch-size", "large"},
		"an unknown flag":     {"--gpu", "1"},
		"a negative batch":    {"--batch-size", "-1"},
		"a strange precision": {"--precision", "fp8"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, session, err := configure(t, machines()["two"], nil, args...)
			var usage *UsageError
			var choice *gpu.ChoiceError
			assert.True(t, errors.As(err, &usage) || errors.As(err, &choice), "%v", err)
			assert.Equal(t, gpu.Wishes{}, session.Wishes(), "nothing is remembered")
		})
	}
}

func TestGPUConfigIsADictInPython(t *testing.T) {
	d := &Deps{Session: &Session{}, Devices: func(context.Context) (gpu.Inventory, error) { return machines()["none"], nil }}
	var got json.RawMessage
	err := GPUConfig(d).Run(t.Context(), nil, &Call{Screen: &aScreen{}, Result: func(v json.RawMessage) { got = v }})
	require.NoError(t, err)
	var object map[string]any
	require.NoError(t, json.Unmarshal(got, &object))
	assert.Equal(t, []any{}, object["devices"])
	assert.Equal(t, "none", object["source"])
}
