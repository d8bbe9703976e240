//go:build unix

package trainingtest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// misbehave does what no good worker does.
func (w *worker) misbehave(verb, rest string) {
	switch verb {
	case "event":
		var event map[string]any
		must(json.Unmarshal([]byte(strings.ReplaceAll(rest, "$STAGING", w.staging)), &event))
		w.send(event)
	case "raw":
		w.write(rest + "\n")
	case "huge":
		w.write(`{"event":"metrics","values":{"x":"` + strings.Repeat("x", whole(rest)) + "\"}}\n")
	case "close":
		must(w.events.Close())
	case "print":
		fmt.Println(rest)
	case "warn":
		fmt.Fprintln(os.Stderr, rest)
	case "signal":
		w.die(rest)
	case "hang":
		select {}
	case "memory":
		w.staging, _ = w.job["memory_staging"].(string)
	case "deaf":
		w.deaf = true
	case "touch":
		must(os.WriteFile(filepath.Join(w.root, rest), nil, 0o644))
	case "await":
		await(filepath.Join(w.root, rest))
	case "note":
		w.note(rest)
	case "child":
		w.leaveChild()
	default:
		panic("no verb " + verb)
	}
}

func (w *worker) die(name string) {
	signals := map[string]syscall.Signal{"KILL": syscall.SIGKILL, "SEGV": syscall.SIGSEGV, "TERM": syscall.SIGTERM, "STOP": syscall.SIGSTOP}
	signal.Reset(signals[name])
	must(syscall.Kill(os.Getpid(), signals[name]))
	time.Sleep(patience) // until the signal is there
}

// note appends a field of the job to a file, one line an attempt.
func (w *worker) note(field string) {
	f, err := os.OpenFile(filepath.Join(w.root, fmt.Sprint(w.job["name"], ".", field)), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	must(err)
	data, err := json.Marshal(w.job[field])
	must(err)
	_, err = fmt.Fprintf(f, "%s\n", data)
	must(err)
	must(f.Close())
}

// leaveChild starts a process that holds the events and the lock, and outlives
// this one.
func (w *worker) leaveChild() {
	cmd := exec.Command("sleep", strconv.Itoa(int(patience.Seconds()))) // bound to nothing: it is to outlive us
	cmd.ExtraFiles = []*os.File{w.events, os.NewFile(4, "lock")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	must(cmd.Start())
	must(os.WriteFile(filepath.Join(w.root, "child"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644))
}
