//go:build unix

package trainingtest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// exitPaused is the status of a worker that was asked to pause and has.
const exitPaused = 75

// patience bounds what a worker waits for: a test that hangs says less.
const patience = 60 * time.Second

// stateFile is what a fake checkpoint consists of: a number that depends on
// every step before it, so that a step left out or done twice shows.
const stateFile = "state.txt"

// A worker plays a worker.
type worker struct {
	job     map[string]any
	events  *os.File
	staging string
	root    string // the run's folder

	step   int64
	state  string
	metric float64
	pace   time.Duration
	only   *os.File // locked during each step
	staged int
	asked  atomic.Bool // to pause
	deaf   bool
}

// work plays a worker and returns its exit status.
func work() int {
	data, err := os.ReadFile(os.Getenv("OUTLAST_JOB"))
	if err != nil {
		return complain(err)
	}
	w := &worker{staging: os.Getenv("OUTLAST_STAGING"), root: filepath.Dir(filepath.Dir(filepath.Dir(os.Getenv("OUTLAST_JOB"))))}
	fd, err := strconv.Atoi(os.Getenv("OUTLAST_EVENTS_FD"))
	if err != nil {
		return complain(err)
	}
	w.events = os.NewFile(uintptr(fd), "events")
	if err := json.Unmarshal(data, &w.job); err != nil {
		return complain(err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	go func() { // ends with the process
		for range signals {
			w.asked.Store(true)
		}
	}()
	params, _ := w.job["params"].(map[string]any)
	script, _ := params["script"].([]any)
	for _, line := range script {
		text, mine := forAttempt(fmt.Sprint(line), int(w.number("attempt")))
		if !mine {
			continue
		}
		if exit, over := w.do(text); over {
			return exit
		}
	}
	return 0
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "worker:", err)
	return 1
}

// forAttempt strips @N and @N+ and reports whether the line is for attempt n.
func forAttempt(line string, n int) (string, bool) {
	if !strings.HasPrefix(line, "@") {
		return line, true
	}
	mark, text, _ := strings.Cut(line[1:], " ")
	from, later := strings.CutSuffix(mark, "+")
	want, err := strconv.Atoi(from)
	if err != nil {
		panic("a line for which attempt? " + line)
	}
	return text, n == want || later && n > want
}

func (w *worker) number(field string) float64 {
	n, _ := w.job[field].(float64)
	return n
}

// do does one line. It reports whether that ends the worker, and how.
func (w *worker) do(line string) (exit int, over bool) {
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "hello":
		n := 1
		if rest != "" {
			n = whole(rest)
		}
		w.send(map[string]any{"event": "hello", "protocol": n, "pid": os.Getpid(), "python": "none"})
	case "restore":
		w.restore()
	case "train":
		words := strings.Fields(rest)
		return w.train(int64(whole(words[0])), int64(whole(words[2])))
	case "slow":
		w.pace = duration(rest)
	case "exclusive":
		f, err := os.OpenFile(filepath.Join(w.root, rest), os.O_CREATE|os.O_RDWR, 0o644)
		must(err)
		w.only = f // until the process ends
	case "checkpoint":
		w.stage(rest)
	case "final":
		w.stage("final")
	case "finish":
		w.stage("final")
		metrics := map[string]any{"steps": w.step}
		if rest != "" {
			metrics[rest] = w.metric
		}
		w.send(map[string]any{"event": "finish", "step": w.step, "metrics": metrics})
	case "fail":
		words := strings.SplitN(rest, " ", 3)
		w.send(map[string]any{
			"event": "failed", "kind": words[0], "type": words[1], "message": words[2],
			"traceback": "Traceback (most recent call last):\n  File \"cell.py\", line 3, in <module>\n" + words[1] + ": " + words[2] + "\n",
		})
		return 1, true
	case "exit":
		return whole(rest), true
	case "when":
		condition, then, _ := strings.Cut(rest, ": ")
		words := strings.Fields(condition)
		if w.number(words[0]) > float64(whole(words[2])) {
			return w.do(then)
		}
	default:
		w.misbehave(verb, rest)
	}
	return 0, false
}

func (w *worker) restore() {
	if c, ok := w.job["checkpoint"].(map[string]any); ok {
		data, err := os.ReadFile(filepath.Join(fmt.Sprint(c["path"]), stateFile))
		must(err)
		w.state, w.step = string(data), int64(c["step"].(float64))
	}
	w.send(map[string]any{"event": "restored", "step": w.step})
}

// train does the steps up to total.
func (w *worker) train(total, every int64) (exit int, over bool) {
	for w.step < total {
		w.spend()
		w.state = Next(w.state, w.step)
		w.metric = 1 / float64(w.step+1)
		w.send(map[string]any{"event": "metrics", "step": w.step, "time": float64(time.Now().UnixMilli()) / 1000, "values": map[string]any{"loss": w.metric}})
		w.step++
		w.send(map[string]any{"event": "progress", "step": w.step, "total": total})
		if w.asked.Load() && !w.deaf {
			w.stage("pause")
			w.send(map[string]any{"event": "paused", "step": w.step})
			return exitPaused, true
		}
		if w.step%every == 0 {
			w.stage("due")
		}
	}
	return 0, false
}

// spend is what takes the time of a step.
func (w *worker) spend() {
	if w.only != nil {
		if syscall.Flock(int(w.only.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
			must(syscall.Flock(int(w.only.Fd()), syscall.LOCK_EX))
			time.Sleep(w.pace) // to make way costs time
		}
		defer func() { must(syscall.Flock(int(w.only.Fd()), syscall.LOCK_UN)) }()
	}
	time.Sleep(w.pace)
}

// Next returns the state after step, given the one before it.
func Next(state string, step int64) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", state, step))
	return hex.EncodeToString(sum[:])
}

// StateAfter returns the state after so many steps that nothing disturbed.
func StateAfter(steps int64) string {
	state := ""
	for step := range steps {
		state = Next(state, step)
	}
	return state
}

func (w *worker) stage(reason string) {
	w.staged++
	dir := filepath.Join(w.staging, fmt.Sprintf("%d-%d", w.step, w.staged))
	must(os.MkdirAll(dir, 0o755))
	must(os.WriteFile(filepath.Join(dir, stateFile), []byte(w.state), 0o644))
	w.send(map[string]any{"event": "checkpoint", "step": w.step, "path": dir, "reason": reason})
}

func (w *worker) send(event map[string]any) {
	data, err := json.Marshal(event)
	must(err)
	w.write(string(data) + "\n")
}

func (w *worker) write(text string) {
	if _, err := w.events.WriteString(text); err != nil {
		os.Exit(74) //revive:disable-line:deep-exit // nobody reads any more, as the Python module does
	}
}

func whole(text string) int {
	n, err := strconv.Atoi(text)
	must(err)
	return n
}

func duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	must(err)
	return d
}

func await(path string) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
	}
	panic(path + " did not come")
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
