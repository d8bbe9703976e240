//go:build unix

package kerneltest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"outlast/kernel/jupyter"
)

// KernelInfo is what the fake child says of itself, byte for byte.
const KernelInfo = `{"status": "ok",  "protocol_version": "5.3", "implementation": "fake", "implementation_version": "1.0",` +
	` "language_info": {"name": %q, "version": "3.99", "mimetype": "text/x-fake", "file_extension": ".fake"},` +
	` "banner": "Fake \u00e9", "help_links": [], "debugger": true, "supported_features": ["kernel subshells", "of tomorrow"]}`

// answer answers one request.
func (f *fake) answer(r request) {
	f.status(jupyter.Busy, r)
	defer f.status(jupyter.Idle, r)
	switch r.Header.Type {
	case jupyter.KernelInfoRequest:
		language := f.Language
		if language == "" {
			language = "python"
		}
		f.reply(r, json.RawMessage(fmt.Sprintf(KernelInfo, language)))
	case jupyter.ExecuteRequest:
		f.execute(r)
	case jupyter.ShutdownRequest:
		if f.IgnoreSignals {
			return
		}
		f.reply(r, jupyter.ShutdownReplyContent{Status: jupyter.OK})
		go os.Exit(0)
	case jupyter.InterruptRequest:
		f.interrupt <- struct{}{}
		f.reply(r, jupyter.StatusContent{Status: jupyter.OK})
	default:
		if r.Header.Type.IsRequest() {
			f.reply(r, map[string]any{"status": jupyter.OK, "you_asked": r.Content})
		}
	}
}

// errInterrupted is what an interrupt raises.
var errInterrupted = &jupyter.ExecutionError{Name: "KeyboardInterrupt", Value: "", Traceback: []string{"KeyboardInterrupt"}}

func (f *fake) execute(r request) {
	content, err := jupyter.Decode[jupyter.ExecuteRequestContent](r.Message)
	if err != nil {
		die(err)
	}
	if r.came.Before(f.abort) {
		f.reply(r, jupyter.StatusContent{Status: jupyter.Aborted})
		return
	}
	if len(f.interrupt) > 0 && r.Header.SubshellID == "" {
		<-f.interrupt // it came when nothing ran
	}
	if content.Stores() {
		f.count++
	}
	if !content.Silent {
		f.send(IOPub, jupyter.TypeExecuteInput, r, jupyter.ExecuteInputContent{Code: content.Code, ExecutionCount: f.count})
	}
	code := content.Code
	if f.IPython {
		code = f.blank(code)
	}
	err = f.runLines(r, code)
	if e, ok := errors.AsType[*jupyter.ExecutionError](err); ok {
		if !content.Silent {
			f.send(IOPub, jupyter.TypeError, r, e)
		}
		if content.Stops() && !content.Silent {
			f.abort = time.Now()
		}
		f.reply(r, jupyter.ExecuteReplyContent{Status: jupyter.Failed, ExecutionCount: f.count, ExecutionError: e})
		return
	}
	f.reply(r, map[string]any{
		"status": jupyter.OK, "execution_count": f.count, "payload": []any{}, "user_expressions": f.expressions(content.UserExpressions),
	})
}

func (f *fake) runLines(r request, code string) error {
	if strings.HasPrefix(code, "exec(") { // the bridge
		if !f.IPython {
			return &jupyter.ExecutionError{Name: "SyntaxError", Value: "what is exec?", Traceback: []string{}}
		}
		return nil
	}
	for line := range strings.Lines(code) {
		verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if err := f.command(r, verb, rest); err != nil {
			return err
		}
	}
	return nil
}

// command runs one line of a cell: see the cases.
func (f *fake) command(r request, verb, rest string) error {
	switch verb {
	case "", "#":
	case "print":
		f.stream(r, rest+"\n")
	case "result":
		f.send(IOPub, "execute_result", r, map[string]any{"data": map[string]string{"text/plain": rest}, "execution_count": f.count, "metadata": struct{}{}})
	case "fail":
		return &jupyter.ExecutionError{Name: "ValueError", Value: rest, Traceback: []string{"ValueError: " + rest}}
	case "sleep":
		return f.sleep(rest)
	case "hang": // nothing but SIGKILL ends it
		select {}
	case "flood":
		f.flood(r, rest)
	case "updates":
		for i := range number(rest) {
			f.update(r, "it", i)
		}
	case "input":
		return f.ask(r, rest)
	case "exit":
		os.Exit(number(rest))
	case "signal": // to itself
		syscall.Kill(os.Getpid(), syscall.Signal(number(rest))) //nolint:errcheck // the test waits for it
		select {}
	case "grandchild":
		cmd := exec.Command("sleep", "600") // the kernel is to end it
		if err := cmd.Start(); err != nil {
			die(err)
		}
		f.stream(r, fmt.Sprint(cmd.Process.Pid))
	case "pid":
		f.stream(r, fmt.Sprint(os.Getpid()))
	case "orphan": // starts somebody who holds our terminal, outside our group
		cmd := exec.Command("sleep", "2") // it ends by itself
		cmd.Stderr, cmd.SysProcAttr = os.Stderr, &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			die(err)
		}
	case "send": // channel and frames, as JSON
		var raw Record
		if err := json.Unmarshal([]byte(rest), &raw); err != nil {
			die(err)
		}
		f.toPeers(raw.Channel, raw.Frames)
	case "garble": // channel: no frame is as long as this one says
		f.eachPeer(Channel(rest), func(c *Conn) { c.Raw.Write([]byte("\x02\xff\xff\xff\xff\xff\xff\xff\xff")) }) //nolint:errcheck // the peer has gone
	case "hangup": // channel
		f.eachPeer(Channel(rest), (*Conn).Close)
	default:
		return &jupyter.ExecutionError{Name: "NameError", Value: verb, Traceback: []string{"NameError: " + verb}}
	}
	return nil
}

func (f *fake) stream(r request, text string) {
	f.send(IOPub, jupyter.TypeStream, r, jupyter.StreamContent{Name: jupyter.Stdout, Text: text})
}

// flood prints N lines of SIZE bytes, that begin with their number.
func (f *fake) flood(r request, rest string) {
	count, size, _ := strings.Cut(rest, " ")
	text := strings.Repeat("x", number(size)) + "\n"
	for i := range number(count) {
		head := strconv.Itoa(i) + " "
		f.stream(r, head+text[len(head)+1:])
	}
}

func (f *fake) update(r request, display string, i int) {
	f.send(IOPub, jupyter.TypeUpdateDisplay, r, jupyter.DisplayContent{
		Data: jupyter.Bundle{"text/plain": fmt.Sprint(i)}, Metadata: map[string]any{}, Transient: map[string]any{"display_id": display},
	})
}

func (f *fake) sleep(rest string) error {
	d, err := time.ParseDuration(rest)
	if err != nil {
		die(err)
	}
	select {
	case <-time.After(d):
		return nil
	case <-f.interrupt:
		return errInterrupted
	}
}

func (f *fake) ask(r request, prompt string) error {
	f.send(Stdin, jupyter.InputRequest, r, map[string]any{"prompt": prompt, "password": prompt == "password"})
	select {
	case m := <-f.input:
		var content struct {
			Value json.RawMessage `json:"value"`
		}
		if err := json.Unmarshal(m.Content, &content); err != nil {
			die(err)
		}
		f.stream(r, "got "+string(content.Value))
		return nil
	case <-f.interrupt:
		return errInterrupted
	}
}

func number(s string) int {
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil {
		die(err)
	}
	return n
}
