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
	"time"
)

// smiLister asks nvidia-smi.
type smiLister struct {
	path string // empty: the one in PATH
}

var _ Lister = smiLister{}

// smiColumns are the columns that every driver knows; smiMIG and smiCompute came
// with drivers 450 and 510, smiBusy is asked last because it is needed least. A
// driver refuses the whole question for a column that it does not know.
const (
	smiColumns = "index,name,uuid,memory.total,memory.free"
	smiMIG     = "mig.mode.current"
	smiCompute = "compute_cap"
	smiBusy    = "utilization.gpu"
)

// Exit statuses of nvidia-smi, from its manual.
const (
	smiInvalidArgument = 2
	smiNotFound        = 6
	smiNoDriver        = 9
	smiNoLibrary       = 12
)

// smiWaitDelay is how long a killed nvidia-smi's pipe is waited for.
const smiWaitDelay = time.Second

// noDevices is what nvidia-smi says, with a status of its own or with 0, on a
// machine whose driver has no GPU.
const noDevices = "No devices were found"

// List implements Lister. A GPU that is divided (MIG) is listed as its slices.
func (l smiLister) List(ctx context.Context) ([]Device, error) {
	path := l.path
	if path == "" {
		path = "nvidia-smi"
	}
	path, err := exec.LookPath(path)
	if err != nil {
		if l.path != "" {
			return nil, &ProgramError{l.path, err}
		}
		return nil, errNoDriver
	}
	devices, err := l.whole(ctx, path)
	if slices.Contains([]int{smiNotFound, smiNoDriver, smiNoLibrary}, exitStatus(err)) {
		return nil, errNoDriver
	}
	if err != nil || !slices.ContainsFunc(devices, func(d Device) bool { return d.MIG }) {
		return devices, err
	}
	list, err := ask(ctx, path, "-L")
	if err != nil {
		return nil, err
	}
	details, err := ask(ctx, path, "-q", "-x")
	if err != nil {
		return nil, err
	}
	return divide(devices, list, details)
}

// whole lists the GPUs, asking for less and less until the driver knows all of
// it. GPUs that are divided are marked with MIG.
func (smiLister) whole(ctx context.Context, path string) ([]Device, error) {
	var err error
	for _, later := range [][]string{{smiMIG, smiCompute, smiBusy}, {smiMIG, smiCompute}, {smiMIG}, nil} {
		columns := strings.Join(append([]string{smiColumns}, later...), ",")
		var text string
		text, err = ask(ctx, path, "--query-gpu="+columns, "--format=csv,noheader,nounits")
		if exitStatus(err) == smiInvalidArgument {
			continue
		}
		if err != nil {
			return nil, err
		}
		return parseSMI(text)
	}
	return nil, err
}

// ask runs nvidia-smi and returns what it printed.
func ask(ctx context.Context, path string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = smiWaitDelay
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
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return 0
}

// parseSMI reads the answer to smiColumns, and to the later columns if they are
// there.
func parseSMI(text string) ([]Device, error) {
	if strings.TrimSpace(text) == noDevices {
		return nil, nil
	}
	r := csv.NewReader(strings.NewReader(text))
	r.TrimLeadingSpace, r.LazyQuotes, r.FieldsPerRecord = true, true, -1
	var devices []Device
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return devices, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the answer: %w", err)
		}
		d, err := parseRow(row)
		if err != nil {
			return nil, fmt.Errorf("read the answer %q: %w", strings.Join(row, ", "), err)
		}
		if d != nil {
			devices = append(devices, *d)
		}
	}
}

// parseRow reads one GPU; nil if the GPU is lost and says so in its row.
func parseRow(row []string) (*Device, error) {
	known := strings.Count(smiColumns, ",") + 1
	if len(row) < known {
		return nil, fmt.Errorf("%d columns instead of %d", len(row), known)
	}
	for i := range row {
		row[i] = strings.TrimSpace(row[i])
	}
	index, err := strconv.Atoi(row[0])
	if err != nil || index < 0 {
		return nil, fmt.Errorf("index %q", row[0])
	}
	if slices.ContainsFunc(row, func(field string) bool { return strings.Contains(field, "GPU is lost") }) {
		return nil, nil
	}
	d := &Device{Index: index, Name: row[1], UUID: row[2]}
	if d.MemoryTotalMiB, err = mebibytes(row[3]); err != nil {
		return nil, err
	}
	if d.MemoryFreeMiB, err = mebibytes(row[4]); err != nil {
		return nil, err
	}
	if len(row) > known {
		d.MIG = row[known] == "Enabled"
	}
	if len(row) > known+1 && !unknown(row[known+1]) {
		d.ComputeCapability = row[known+1]
	}
	if len(row) > known+2 {
		d.Busy = percent(row[known+2])
	}
	return d, nil
}

// unknown recognises what nvidia-smi prints for what it cannot tell: "[N/A]",
// "[Not Supported]", "[Insufficient Permissions]" and their kin.
func unknown(field string) bool {
	return field == "" || field == "N/A" || strings.HasPrefix(field, "[")
}

// percent reads "87" and "87 %"; anything else is not known.
func percent(field string) *int {
	n, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(field, "%")))
	if err != nil || n < 0 || n > 100 {
		return nil
	}
	return &n
}

// mebibytes reads "15360", and "15360 MiB" from where the unit is not left out.
// What the driver does not tell is 0.
func mebibytes(field string) (int64, error) {
	if unknown(field) {
		return 0, nil
	}
	n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(field, "MiB")), 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("memory %q", field)
	}
	return n, nil
}
