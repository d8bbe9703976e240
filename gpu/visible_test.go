package gpu_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"outlast/gpu"
)

func TestVisibleNumbersAsCUDADoes(t *testing.T) {
	devices := []gpu.Device{
		{Index: 0, UUID: "GPU-aaaa0000"},
		{Index: 1, UUID: "MIG-bbbb0000", MIG: true},
		{Index: 1, UUID: "MIG-bbbb0001", MIG: true},
		{Index: 2, UUID: "GPU-cccc0000"},
	}
	for list, want := range map[string][]string{
		"0,2":                      {"GPU-aaaa0000", "GPU-cccc0000"},
		"2,0":                      {"GPU-cccc0000", "GPU-aaaa0000"},
		" 2 , 0 ":                  {"GPU-cccc0000", "GPU-aaaa0000"},
		"1":                        {"MIG-bbbb0000"},
		"GPU-cccc":                 {"GPU-cccc0000"},
		"MIG-bbbb0001":             {"MIG-bbbb0001"},
		"":                         nil,
		"-1":                       nil,
		"2,-1,0":                   {"GPU-cccc0000"},
		"0,7,2":                    {"GPU-aaaa0000"},
		"0,0":                      {"GPU-aaaa0000"},
		"NoDevFiles":               nil,
		"GPU-cccc,,GPU-aaaa":       {"GPU-cccc0000"},
		"99999999999999999999,GPU": nil,
	} {
		t.Run(list, func(t *testing.T) {
			var got []string
			for _, d := range gpu.Visible(devices, list) {
				got = append(got, d.UUID)
			}
			assert.Equal(t, want, got)
		})
	}
}
