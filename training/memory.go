package training

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// A memory is what is known of a device that had too little, in MiB; 0 is
// unknown.
type memory struct {
	Tried     float64 `json:"tried_mib,omitempty"`
	Free      float64 `json:"free_mib,omitempty"`
	Total     float64 `json:"total_mib,omitempty"`
	Allowed   float64 `json:"allowed_mib,omitempty"`   // the limit that we set
	Allocated float64 `json:"allocated_mib,omitempty"` // in use by the program
	Reserved  float64 `json:"reserved_mib,omitempty"`  // held by its allocator, and not in use
	Peak      float64 `json:"peak_mib,omitempty"`      // the most that it ever had
}

const (
	// contextMiB is what a process takes on a device beside its tensors.
	contextMiB = 512
	// scatteredShare is how much of a device must lie idle in pieces before we
	// believe that the pieces are the trouble.
	scatteredShare = 0.1
)

// shortage says whose memory it was.
func (m memory) shortage() Shortage {
	if m.Total == 0 || m.Tried == 0 {
		return ShortageOwn
	}
	ours := m.Allocated + m.Reserved
	others := m.Total - m.Free - ours - contextMiB
	switch {
	case m.Reserved >= m.Tried && m.Reserved >= scatteredShare*m.Total:
		return ShortageScattered
	case m.Allowed > 0 && m.Free >= m.Tried:
		return ShortageCap
	// Another one has more than we have, and alone we would have had room.
	case ours > 0 && others > ours && ours+m.Tried+contextMiB < m.Total/2:
		return ShortageNeighbour
	}
	return ShortageOwn
}

// need is what the model would have had to have, in MiB, as far as it got.
func (m memory) need() float64 { return m.Allocated + m.Tried }

// words says it for people.
func (m memory) words() string {
	var parts []string
	if m.Allocated > 0 {
		parts = append(parts, fmt.Sprintf("it had %s and wanted %s more", size(m.Allocated), size(m.Tried)))
	} else if m.Tried > 0 {
		parts = append(parts, fmt.Sprintf("it wanted %s more", size(m.Tried)))
	}
	if m.Total > 0 {
		parts = append(parts, fmt.Sprintf("the device has %s, of which %s were free", size(m.Total), size(m.Free)))
	}
	if m.Allowed > 0 {
		parts = append(parts, fmt.Sprintf("the limit set for it is %s", size(m.Allowed)))
	}
	return strings.Join(parts, "; ")
}

func size(mib float64) string {
	if mib < 1024 {
		return fmt.Sprintf("%.0f MiB", mib)
	}
	return fmt.Sprintf("%.1f GiB", mib/1024)
}

// amount is a quantity as torch and jax write it.
const amount = `([\d.]+)\s?([KMG]i?B|bytes)`

// readMemory reads the figures of an out-of-memory message. What it does not
// say stays unknown. The second pattern of a figure is that of torch before 2.1.
func readMemory(text string) memory {
	find := func(patterns ...string) float64 {
		for _, p := range patterns {
			if found := regexp.MustCompile(p).FindStringSubmatch(text); found != nil {
				return mib(found[1], found[2])
			}
		}
		return 0
	}
	m := memory{
		Tried:     find(`Tried to allocate `+amount, `trying to allocate `+amount),
		Free:      find(`of which `+amount+` is free`, amount+` free`),
		Total:     find(`total capacity of `+amount, amount+` total capacity`),
		Allowed:   find(amount + ` allowed;`),
		Allocated: find(amount+` is allocated by PyTorch`, amount+` already allocated`),
		Reserved:  find(amount + ` is reserved by PyTorch but unallocated`),
	}
	if total := find(amount + ` reserved in total by PyTorch`); total > m.Allocated {
		m.Reserved = total - m.Allocated
	}
	return m
}

// mib converts a quantity.
func mib(number, unit string) float64 {
	n, err := strconv.ParseFloat(strings.TrimSuffix(number, "."), 64)
	if err != nil {
		return 0
	}
	switch unit[0] {
	case 'b':
		return n / (1 << 20)
	case 'K':
		return n / 1024
	case 'G':
		return n * 1024
	}
	return n
}
