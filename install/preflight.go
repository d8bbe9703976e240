package install

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

//go:embed preflight.py
var preflightScript string

// ErrNoClient says that Python has no jupyter_client to try a kernel with. All
// else was found in order.
var ErrNoClient = errors.New("there is no jupyter_client to try it with")

// noClient is the status with which the script says so.
const noClient = 3

// Times for a kernel to start and add, and for what comes before and after.
const (
	startLimit   = 60 * time.Second // an ipykernel on a busy machine takes several
	versionLimit = 10 * time.Second
	stopLimit    = 20 * time.Second
)

// A Preflight is the check that an installation would work, made before anything
// is changed: a machine whose only kernel does not start is lost to its user.
type Preflight struct {
	Exe     string   // our program
	Argv    []string // the command that would be installed
	Child   Spec     // what it wraps
	Python  string   // of the server, which has jupyter_client
	TempDir string
}

// Check tries everything, a start of the kernel last. Its error is ErrNoClient,
// or a *SpecError that says what would not have worked.
func (p Preflight) Check(ctx context.Context) error {
	for _, step := range []struct {
		what, hint string
		try        func(context.Context) error
	}{
		{"run our own program", "install it anew", p.runsVersion},
		{"find the kernel to wrap", "repair it: python -m pip install --force-reinstall ipykernel", p.findsChild},
		{"open local sockets", "allow sockets in " + p.TempDir + " and on 127.0.0.1, or set TMPDIR", p.opensSockets},
		{"start the kernel", "nothing was changed; the words above are the kernel's own", p.starts},
	} {
		err := step.try(ctx)
		if errors.Is(err, ErrNoClient) {
			return err
		}
		if err != nil {
			return &SpecError{p.Child.Name, fmt.Errorf("%s: %w", step.what, err), step.hint}
		}
	}
	return nil
}

func (p Preflight) runsVersion(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, versionLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, p.Exe, "version").Output()
	if err != nil {
		return fmt.Errorf("%s version: %w", p.Exe, err)
	}
	if !strings.HasPrefix(string(out), "outlast ") {
		return fmt.Errorf("%s is another program: it says %q", p.Exe, firstLine(string(out)))
	}
	return nil
}

func (p Preflight) findsChild(context.Context) error {
	_, err := exec.LookPath(p.Child.Argv[0])
	return err
}

func (p Preflight) opensSockets(ctx context.Context) error {
	tcp, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	tcp.Close() //nolint:errcheck // it has served
	if runtime.GOOS == "windows" {
		return nil // there the child is spoken to over TCP
	}
	dir, err := os.MkdirTemp(p.TempDir, "outlast-check-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is temporary
	unix, err := new(net.ListenConfig).Listen(ctx, "unix", filepath.Join(dir, "socket-1"))
	if err != nil {
		return err
	}
	return unix.Close()
}

// starts has Jupyter's own client start the kernel and ask it something.
func (p Preflight) starts(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit+stopLimit)
	defer cancel()
	command, err := json.Marshal(p.Argv)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, p.Python, "-c", preflightScript, string(command),
		strconv.FormatFloat(startLimit.Seconds(), 'f', 0, 64))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it ends the kernel, then itself
	cmd.WaitDelay = stopLimit
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == noClient {
		return fmt.Errorf("%w: %s", ErrNoClient, p.Python)
	}
	if err == nil {
		return nil
	}
	if why := strings.TrimSpace(string(out)); why != "" {
		return errors.New(why)
	}
	return fmt.Errorf("%w: %s", err, lastLine(stderr.String()))
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndex(text, "\n")+1:]
}
