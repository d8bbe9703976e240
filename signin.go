package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/term"

	"outlast/checkpoint/drive"
	"outlast/magics"
)

// signInFile is where a sign-in with a browser is kept: with the user's other
// settings, as it is good for all their runs; "" for a user without a home.
func (e environment) signInFile() string {
	dir, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "outlast", "drive.json")
}

// signIns begins sign-ins, one at a time.
type signIns struct {
	program *program

	mu   sync.Mutex
	last *drive.SignIn // may have ended
}

// begin begins a sign-in, which outlives ctx: in a notebook a question that the
// cell asks later ends it.
func (s *signIns) begin(ctx context.Context, clientFile string) (magics.SignIn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil {
		s.last.Close()
	}
	name, _ := drive.Parse(defaultDrive)
	in, err := drive.Begin(context.WithoutCancel(ctx), s.program.driveConfig(name), clientFile)
	if err != nil {
		return nil, err
	}
	s.last = in
	return &browserSignIn{SignIn: in, program: s.program}, nil
}

// browserSignIn knows this machine's browser and terminal.
type browserSignIn struct {
	*drive.SignIn
	program *program
}

var _ magics.SignIn = (*browserSignIn)(nil)

// Browse implements magics.SignIn. What a browser is started with can be seen by
// other users of this machine: it is an address that is good once.
func (b *browserSignIn) Browse(ctx context.Context) bool {
	argv := b.program.env.browser(runtime.GOOS, b.Start())
	if argv == nil {
		return false
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), argv[0], argv[1:]...) // it is the user's, and stays
	if cmd.Start() != nil {
		return false
	}
	go cmd.Wait() //nolint:errcheck // nothing depends on how it ends
	return true
}

// Wait implements magics.SignIn. In a terminal an address may be pasted
// meanwhile, for a browser that is elsewhere.
func (b *browserSignIn) Wait(ctx context.Context) (string, error) {
	if term.IsTerminal(int(os.Stdin.Fd())) {
		go func() { // it ends with the process: nothing interrupts a terminal
			for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
				if err := b.Paste(lines.Text()); err != nil {
					fmt.Fprintf(b.program.stderr, "%v\nTo do: %s\n", err, magics.CureOf(err))
				}
			}
		}()
	}
	return b.SignIn.Wait(ctx)
}

// browser returns the command that opens an address, nil if there is none: the
// user's own, or the system's where it has a screen.
func (e environment) browser(system, address string) []string {
	for name := range strings.SplitSeq(e.get("BROWSER"), string(os.PathListSeparator)) {
		if path, err := exec.LookPath(name); err == nil {
			return []string{path, address}
		}
	}
	argv := []string{"xdg-open", address}
	switch system {
	case "darwin":
		argv[0] = "open"
	case "windows":
		argv = []string{"rundll32", "url.dll,FileProtocolHandler", address}
	default:
		if e.get("DISPLAY") == "" && e.get("WAYLAND_DISPLAY") == "" {
			return nil
		}
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return nil
	}
	argv[0] = path
	return argv
}
