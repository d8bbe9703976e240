package gpu

import (
	"slices"
	"strconv"
	"strings"
)

// Visible returns the devices that CUDA_VISIBLE_DEVICES leaves a program, in
// the order in which CUDA numbers them. As CUDA does, it takes indices and
// beginnings of UUIDs, and stops at the first that is neither: "" and "-1" hide
// all devices. Indices count in PCI bus order, which Choose makes CUDA do.
func Visible(devices []Device, list string) []Device {
	var seen []Device
	for entry := range strings.SplitSeq(list, ",") {
		d := named(devices, strings.TrimSpace(entry))
		if d == nil || slices.Contains(seen, *d) {
			break
		}
		seen = append(seen, *d)
	}
	return seen
}

// named returns the device that entry means; of a divided GPU its first slice.
func named(devices []Device, entry string) *Device {
	if entry == "" {
		return nil
	}
	index, err := strconv.Atoi(entry)
	i := slices.IndexFunc(devices, func(d Device) bool {
		if err == nil {
			return d.Index == index
		}
		return strings.HasPrefix(d.UUID, entry)
	})
	if i < 0 {
		return nil
	}
	return &devices[i]
}
