//go:build unix

package kerneltest

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"outlast/kernel/jupyter"
)

// evaluation is what the fake child answers for one user expression.
type evaluation struct {
	Status jupyter.Outcome `json:"status"`
	Data   map[string]any  `json:"data,omitempty"`
	*jupyter.ExecutionError
}

// bridgeCalls finds the calls of the bridge: function and arguments.
var bridgeCalls = regexp.MustCompile(`_outlast_bridge'\]\.(\w+)(?:\((.*)\)$)?`)

// expressions answers the user expressions of a request.
func (f *fake) expressions(raw json.RawMessage) map[string]evaluation {
	answers := map[string]evaluation{}
	var asked map[string]string
	if json.Unmarshal(raw, &asked) != nil {
		return answers
	}
	for name, expr := range asked {
		answers[name] = f.expression(expr)
	}
	return answers
}

func (f *fake) expression(expr string) evaluation {
	ok := func(value any) evaluation {
		return evaluation{Status: jupyter.OK, Data: map[string]any{
			"text/plain": fmt.Sprint(value), "application/vnd.outlast+json": value,
		}}
	}
	call := bridgeCalls.FindStringSubmatch(expr)
	if call == nil {
		return evaluation{Status: jupyter.OK, Data: map[string]any{"text/plain": expr}}
	}
	if !f.IPython {
		return evaluation{Status: jupyter.Failed, ExecutionError: &jupyter.ExecutionError{Name: "KeyError", Value: "_outlast_bridge", Traceback: []string{}}}
	}
	var arguments []any
	if err := json.Unmarshal([]byte("["+call[2]+"]"), &arguments); err != nil {
		die(err)
	}
	argument := ""
	if len(arguments) > 0 {
		argument = fmt.Sprint(arguments[0])
	}
	switch call[1] {
	case "book":
		f.count++
		return ok(f.count)
	case "announce":
		f.lines[argument] = number(fmt.Sprint(arguments[1]))
		return ok(true)
	case "evaluate":
		if d, found := strings.CutPrefix(argument, "sleep "); found {
			if err := f.sleep(d); err != nil {
				return evaluation{Status: jupyter.Failed, ExecutionError: errInterrupted}
			}
		}
		return ok(argument)
	}
	return ok(true)
}

// blank hides the lines that were announced not to be the child's.
func (f *fake) blank(code string) string {
	count := f.lines[code]
	delete(f.lines, code)
	lines := strings.SplitAfter(code, "\n")
	return strings.Join(lines[min(count, len(lines)):], "")
}
