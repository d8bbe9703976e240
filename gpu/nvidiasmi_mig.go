package gpu

import (
	"encoding/xml"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// slicesList matches the lines of 'nvidia-smi -L'. Only this list has the UUIDs
// of slices.
var slicesList = regexp.MustCompile(
	`(?m)^GPU (\d+): .*$|^\s+MIG (\S+)\s+Device\s+(\d+): \(UUID: (MIG-[^)]+)\)`)

// smiLog is the part of 'nvidia-smi -q -x' that tells the memory of slices.
type smiLog struct {
	GPUs []struct {
		UUID   string `xml:"uuid"`
		Slices []struct {
			Index  int `xml:"index"`
			Memory struct {
				Total string `xml:"total"`
				Free  string `xml:"free"`
			} `xml:"fb_memory_usage"`
		} `xml:"mig_devices>mig_device"`
	} `xml:"gpu"`
}

// divide replaces GPUs that are marked as divided by their slices: list is the
// answer to -L, details that to -q -x. A GPU without slices is left out, as long
// as there is another device.
func divide(whole []Device, list, details string) ([]Device, error) {
	var log smiLog
	if err := xml.Unmarshal([]byte(details), &log); err != nil {
		return nil, fmt.Errorf("read the details: %w", err)
	}
	found := map[int][]Device{}
	index := -1
	for _, match := range slicesList.FindAllStringSubmatch(list, -1) {
		if match[1] != "" {
			index = number(match[1])
			continue
		}
		slice := Device{Index: index, Name: "MIG " + match[2], UUID: match[4], MIG: true}
		for i := range whole {
			if whole[i].Index == index {
				slice.Name = whole[i].Name + " " + slice.Name
				slice.ComputeCapability = whole[i].ComputeCapability
				slice.MemoryTotalMiB, slice.MemoryFreeMiB = log.memory(whole[i].UUID, number(match[3]))
			}
		}
		found[index] = append(found[index], slice)
	}
	var devices []Device
	for _, d := range whole {
		if d.MIG {
			devices = append(devices, found[d.Index]...)
		} else {
			devices = append(devices, d)
		}
	}
	if len(devices) == 0 {
		return nil, errNoSlice
	}
	return devices, nil
}

// memory returns the total and the free memory of a slice, in MiB; 0 for what
// the driver does not tell.
func (l *smiLog) memory(uuid string, slice int) (total, free int64) {
	for _, g := range l.GPUs {
		for _, s := range g.Slices {
			if strings.TrimSpace(g.UUID) == uuid && s.Index == slice {
				total, _ = mebibytes(s.Memory.Total)
				free, _ = mebibytes(s.Memory.Free)
			}
		}
	}
	return total, free
}

// number reads digits that a pattern has matched.
func number(digits string) int {
	n, err := strconv.Atoi(digits)
	if err != nil {
		return -1 // more digits than any machine has GPUs
	}
	return n
}
