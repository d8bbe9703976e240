package gpu

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// playSMI makes the test binary play nvidia-smi: its value says which.
const playSMI = "OUTLAST_TEST_PLAY_SMI"

// childPID names the file in which the fake writes down its child, for the test
// to end it.
const childPID = "OUTLAST_TEST_CHILD_PID"

// hang is how long a fake hangs that nobody kills.
const hang = time.Minute

func TestMain(m *testing.M) {
	if play := os.Getenv(playSMI); play != "" {
		os.Exit(smi(play, os.Args[1:]))
	}
	os.Exit(m.Run())
}

// smi is a fake nvidia-smi, and returns its exit status. The real one cannot be
// made to hang, fail or be old on demand.
func smi(play string, args []string) int {
	switch play {
	case "no driver":
		fmt.Println("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. " +
			"Make sure that the latest NVIDIA driver is installed and running.")
		return smiNoDriver
	case "no library":
		fmt.Println("NVIDIA-SMI couldn't find libnvidia-ml.so library in your system.")
		return smiNoLibrary
	case "no devices":
		fmt.Println(noDevices)
		return smiNotFound
	case "no devices, status 0":
		fmt.Println(noDevices)
		return 0
	case "mismatch":
		fmt.Println("Failed to initialize NVML: Driver/library version mismatch")
		return 18
	case "garbage":
		fmt.Println("<html>502 Bad Gateway</html>")
		return 0
	case "silent":
		return 0
	case "hang":
		time.Sleep(hang)
	case "hang with a child that keeps the pipe":
		child := exec.Command(os.Args[0]) //nolint:noctx // it outlives its parent on purpose
		child.Env = append(os.Environ(), playSMI+"=hang")
		child.Stdout = os.Stdout
		if err := child.Start(); err != nil {
			return 1
		}
		pid := strconv.Itoa(child.Process.Pid)
		if err := os.WriteFile(os.Getenv(childPID), []byte(pid), 0o600); err != nil {
			return 1
		}
		time.Sleep(hang)
	}
	return recorded(play, args)
}

// recorded answers as the machine did whose answers are in testdata/smi. It
// refuses columns that its driver does not know.
func recorded(name string, args []string) int {
	file := name + map[bool]string{true: ".list", false: ".xml"}[args[0] == "-L"]
	if columns, ok := strings.CutPrefix(args[0], "--query-gpu="); ok {
		file = name + ".csv"
		asked := strings.Split(columns, ",")
		if known := len(strings.Split(strings.SplitN(answer(file), "\n", 2)[0], ",")); len(asked) > known {
			fmt.Printf("Field \"%s\" is not a valid field to query.\n\n", asked[known])
			return smiInvalidArgument
		}
	}
	fmt.Print(answer(file))
	return 0
}

func answer(file string) string {
	text, err := os.ReadFile(filepath.Join("testdata", "smi", file))
	if err != nil {
		panic(err)
	}
	return string(text)
}

// fakeSMI returns a lister whose nvidia-smi plays what it is told.
func fakeSMI(t *testing.T, play string) smiLister {
	t.Helper()
	t.Setenv(playSMI, play)
	t.Setenv("GORACE", "atexit_sleep_ms=0") // a second for each program that ends
	self, err := os.Executable()
	require.NoError(t, err)
	return smiLister{path: self}
}
