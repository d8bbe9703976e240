package gpu

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// smiLister asks nvidia-smi.
type smiLister struct {
	path string // empty: the one in PATH
}

var _ Lister = smiLister{}

// The columns that are asked for. Drivers before 510 do not know compute_cap
// and refuse the whole question.
const (
	smiColumns    = "index,name,uuid,memory.total,memory.free,mig.mode.current,compute_cap"
	smiOldColumns = "index,name,uuid,memory.total,memory.free,mig.mode.current"
)

// Exit statuses of nvidia-smi, from its manual.
const (
	smiInvalidArgument = 2
	smiNotFound        = 6
	smiNoDriver        = 9
	smiNoLibrary       = 12
)

// List implements Lister.
func (l smiLister) List(ctx context.Context) ([]Device, error) {
	path := l.path
	if path == "" {
		path = "nvidia-smi"
	}
	path, err := exec.LookPath(path)
	if err != nil {
		if l.path != "" {
			return nil, fmt.Errorf("ask nvidia-smi: %w", err)
		}
		return nil, errNoDriver
	}
	text, err := query(ctx, path, smiColumns)
	if exitStatus(err) == smiInvalidArgument {
		text, err = query(ctx, path, smiOldColumns)
	}
	if slices.Contains([]int{smiNotFound, smiNoDriver, smiNoLibrary}, exitStatus(err)) {
		return nil, errNoDriver
	}
	if err != nil {
		return nil, fmt.Errorf("ask nvidia-smi: %w", err)
	}
	return parseSMI(text)
}

func query(ctx context.Context, path, columns string) (string, error) {
	cmd := exec.CommandContext(ctx, path, "--query-gpu="+columns, "--format=csv,noheader,nounits")
	out, err := cmd.Output()
	if err == nil {
		return string(out), nil
	}
	if why := strings.TrimSpace(string(out)); why != "" { // it complains on stdout
		return "", fmt.Errorf("%s (%w)", why, err)
	}
	return "", err
}

func exitStatus(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

// parseSMI reads the answer to smiColumns or smiOldColumns.
func parseSMI(text string) ([]Device, error) {
	r := csv.NewReader(strings.NewReader(text))
	r.TrimLeadingSpace = true
	r.FieldsPerRecord = -1
	var devices []Device
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return devices, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read nvidia-smi's answer: %w", err)
		}
		if len(row) < 6 {
			return nil, fmt.Errorf("read nvidia-smi's answer: %d columns in %q", len(row), strings.Join(row, ", "))
		}
		d := Device{Name: row[1], UUID: row[2], MIG: row[5] == "Enabled"}
		if d.Index, err = strconv.Atoi(row[0]); err != nil {
			return nil, fmt.Errorf("read nvidia-smi's answer: index %q", row[0])
		}
		if d.MemoryTotalMiB, err = mebibytes(row[3]); err != nil {
			return nil, err
		}
		if d.MemoryFreeMiB, err = mebibytes(row[4]); err != nil {
			return nil, err
		}
		if len(row) > 6 && !unknown(row[6]) {
			d.ComputeCapability = row[6]
		}
		devices = append(devices, d)
	}
}

// unknown recognises "[N/A]", "[Not Supported]" and their kin.
func unknown(field string) bool { return strings.HasPrefix(field, "[") || field == "" }

// mebibytes reads "15360", and "15360 MiB" from tools that add the unit anyway.
func mebibytes(field string) (int64, error) {
	if unknown(field) {
		return 0, nil
	}
	n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(field, "MiB")), 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("read nvidia-smi's answer: memory %q", field)
	}
	return n, nil
}
