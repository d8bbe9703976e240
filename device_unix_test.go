//go:build unix

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/training"
)

// What a notebook lets its workers see counts, not what the supervisor was given.
func TestTheMemoryOfTheDeviceIsThatOfTheWorkers(t *testing.T) {
	smi := filepath.Join(t.TempDir(), "nvidia-smi")
	require.NoError(t, os.WriteFile(smi, []byte("#!/bin/sh\necho '0, a card, GPU-1, 16000, 12000, [N/A], 8.0'\n"), 0o755))
	p := &program{env: among(map[string]string{"OUTLAST_NVIDIA_SMI": smi, "CUDA_VISIBLE_DEVICES": ""})}
	set := training.Settings{Device: "cuda:0", Env: map[string]string{"CUDA_VISIBLE_DEVICES": "0"}}
	memory, err := p.deviceMemory(set)(t.Context())
	require.NoError(t, err)
	assert.Positive(t, memory.Total)

	set.Env = nil
	_, err = p.deviceMemory(set)(t.Context())
	require.ErrorContains(t, err, "there are 0")
}
