package gpu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// listerFunc makes a function a Lister.
type listerFunc func(context.Context) ([]Device, error)

func (f listerFunc) List(ctx context.Context) ([]Device, error) { return f(ctx) }

func says(devices []Device, err error) Lister {
	return listerFunc(func(context.Context) ([]Device, error) { return devices, err })
}

func TestTheFirstWhoAnswersIsBelieved(t *testing.T) {
	t4 := []Device{{Name: "Tesla T4"}}
	broken := errors.New("version mismatch")
	for name, c := range map[string]struct {
		nvml, smi Lister
		want      Inventory
	}{
		"NVML":                             {says(t4, nil), says(nil, errNoDriver), Inventory{t4, SourceNVML}},
		"nvidia-smi without NVML":          {says(nil, errNoDriver), says(t4, nil), Inventory{t4, SourceSMI}},
		"nvidia-smi for a broken NVML":     {says(nil, broken), says(t4, nil), Inventory{t4, SourceSMI}},
		"nobody: the CPU":                  {says(nil, errNoDriver), says(nil, errNoDriver), Inventory{nil, SourceNone}},
		"a driver without GPUs has spoken": {says(nil, nil), says(t4, nil), Inventory{nil, SourceNVML}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := detect(t.Context(), time.Minute, asked{SourceNVML, c.nvml}, asked{SourceSMI, c.smi})
			require.NoError(t, err)
			assert.Equal(t, c.want, got)
		})
	}
}

func TestADriverThatIsBrokenIsNotNoDriver(t *testing.T) {
	broken, alsoBroken := errors.New("version mismatch"), errors.New("exit status 18")
	for name, second := range map[string]error{"alone": errNoDriver, "nvidia-smi too": alsoBroken} {
		t.Run(name, func(t *testing.T) {
			got, err := detect(t.Context(), time.Minute,
				asked{SourceNVML, says(nil, broken)}, asked{SourceSMI, says(nil, second)})
			var driver *DriverError
			require.ErrorAs(t, err, &driver)
			require.ErrorIs(t, err, broken, "the first reason is the one to tell")
			assert.Contains(t, driver.Cure(), "CUDA_VISIBLE_DEVICES")
			assert.Equal(t, SourceNone, got.Source)
		})
	}
}

func TestADriverThatHangsIsNotWaitedFor(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	never := listerFunc(func(context.Context) ([]Device, error) { // as a call into C
		<-release
		return nil, nil
	})
	unasked := listerFunc(func(context.Context) ([]Device, error) {
		t.Error("the second lister would hang in the same driver")
		return nil, nil
	})
	_, err := detect(t.Context(), time.Millisecond, asked{SourceNVML, never}, asked{SourceSMI, unasked})
	var driver *DriverError
	require.ErrorAs(t, err, &driver)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestAnAnswerThatNobodyExpectedIsAnError(t *testing.T) {
	var none []Device
	strange := listerFunc(func(context.Context) ([]Device, error) { return none[3:], nil })
	want := Inventory{Devices: []Device{{Name: "T4"}}, Source: SourceSMI}
	got, err := detect(t.Context(), time.Minute, asked{SourceNVML, strange}, asked{SourceSMI, says(want.Devices, nil)})
	require.NoError(t, err)
	assert.Equal(t, want, got)

	_, err = detect(t.Context(), time.Minute, asked{SourceNVML, strange})
	require.ErrorContains(t, err, "out of range")
}

func TestAnInterruptEndsTheQuestion(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	stuck := listerFunc(func(ctx context.Context) ([]Device, error) {
		cancel()
		<-ctx.Done()
		return nil, errors.New("signal: killed")
	})
	_, err := detect(ctx, time.Minute, asked{SourceSMI, stuck})
	require.ErrorIs(t, err, context.Canceled)
}

func TestNvidiaSMIThatHangsIsKilled(t *testing.T) {
	for _, play := range []string{"hang", "hang with a child that keeps the pipe"} {
		t.Run(play, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "pid")
			t.Setenv(childPID, file)
			t.Cleanup(func() { kill(t, file) })
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			start := time.Now()
			_, err := fakeSMI(t, play).List(ctx)
			require.Error(t, err)
			require.ErrorIs(t, ctx.Err(), context.DeadlineExceeded)
			assert.Less(t, time.Since(start), hang/2)
		})
	}
}

// kill ends the process whose number is in file, if there is one.
func kill(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	require.NoError(t, err)
	pid, err := strconv.Atoi(string(text))
	require.NoError(t, err)
	process, err := os.FindProcess(pid)
	require.NoError(t, err)
	require.NoError(t, process.Kill())
}

func TestDetectAsksTheNvidiaSMIThatIsNamed(t *testing.T) {
	if _, err := newNVML().List(t.Context()); !errors.Is(err, errNoDriver) {
		t.Skip("this machine has a driver, and NVML goes first")
	}
	found, err := Detect(t.Context(), fakeSMI(t, "t4").path)
	require.NoError(t, err)
	assert.Equal(t, SourceSMI, found.Source)
	assert.Len(t, found.Devices, 1)

	t.Setenv(playSMI, "no driver")
	found, err = Detect(t.Context(), fakeSMI(t, "no driver").path)
	require.NoError(t, err)
	assert.Equal(t, Inventory{Source: SourceNone}, found)
}

func TestAnNvidiaSMIThatIsNamedAndNotThereIsAMistakeInTheSettings(t *testing.T) {
	folder := t.TempDir()
	plain := filepath.Join(folder, "plain")
	require.NoError(t, os.WriteFile(plain, []byte("no program"), 0o644))
	for name, c := range map[string]struct{ path, why string }{
		"nothing there":    {filepath.Join(folder, "gone"), "no such file or directory"},
		"nothing in PATH":  {"no-nvidia-smi-here", "executable file not found in $PATH"},
		"not to be run":    {plain, "permission denied"},
		"a folder's place": {folder, "is a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := detect(t.Context(), time.Minute, asked{SourceNVML, says(nil, errNoDriver)}, asked{SourceSMI, smiLister{path: c.path}})
			var program *ProgramError
			require.ErrorAs(t, err, &program)
			require.ErrorContains(t, err, "OUTLAST_NVIDIA_SMI names "+c.path+", which cannot be run: "+c.why)
			var driver *DriverError
			require.ErrorAs(t, err, &driver)
			assert.Contains(t, driver.Cure(), "unset OUTLAST_NVIDIA_SMI")
			assert.NotContains(t, driver.Cure(), "restart the machine")
		})
	}
}
