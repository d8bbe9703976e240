package jupyter

import "encoding/json"

// ExecuteRequestContent is what a cell asks for.
type ExecuteRequestContent struct {
	Code            string          `json:"code"`
	Silent          bool            `json:"silent"`
	StoreHistory    *bool           `json:"store_history,omitempty"` // default: not silent
	UserExpressions json.RawMessage `json:"user_expressions,omitempty"`
	AllowStdin      bool            `json:"allow_stdin"`
	StopOnError     *bool           `json:"stop_on_error,omitempty"` // default: true
}

// Stores reports whether the cell counts and goes into the history.
func (c ExecuteRequestContent) Stores() bool {
	return !c.Silent && (c.StoreHistory == nil || *c.StoreHistory)
}

// Stops reports whether an error in the cell aborts those behind it.
func (c ExecuteRequestContent) Stops() bool { return c.StopOnError == nil || *c.StopOnError }

// Outcome is the status of a reply.
type Outcome string

// The statuses of replies.
const (
	OK      Outcome = "ok"
	Failed  Outcome = "error"
	Aborted Outcome = "aborted"
)

// ExecuteReplyContent answers an execute request.
type ExecuteReplyContent struct { //nolint:errname // it holds an error and is none
	Status          Outcome         `json:"status"`
	ExecutionCount  int             `json:"execution_count,omitempty"`
	UserExpressions json.RawMessage `json:"user_expressions,omitempty"` // if ok
	Payload         json.RawMessage `json:"payload,omitempty"`          // if ok
	*ExecutionError                 // if failed
}

// StatusContent is the content of every reply, as far as all have it.
type StatusContent struct {
	Status Outcome `json:"status"`
}

// An ExecutionError is an error as front ends show it.
type ExecutionError struct {
	Name      string   `json:"ename"`
	Value     string   `json:"evalue"`
	Traceback []string `json:"traceback"`
}

func (e *ExecutionError) Error() string { return e.Name + ": " + e.Value }

// ShutdownReplyContent answers a shutdown request.
type ShutdownReplyContent struct {
	Status  Outcome `json:"status"`
	Restart bool    `json:"restart"`
}

// ShutdownContent is the content of a shutdown request.
type ShutdownContent struct {
	Restart bool `json:"restart"`
}

// StreamName is the name of an output stream.
type StreamName string

// The output streams.
const (
	Stdout StreamName = "stdout"
	Stderr StreamName = "stderr"
)

// StreamContent is text on a stream.
type StreamContent struct {
	Name StreamName `json:"name"`
	Text string     `json:"text"`
}

// A Bundle is one thing in several media types.
type Bundle map[string]any

// DisplayContent is what display_data and update_display_data carry.
type DisplayContent struct {
	Data      Bundle         `json:"data"`
	Metadata  map[string]any `json:"metadata"`
	Transient map[string]any `json:"transient"`
}

// ExecuteInputContent announces a cell to every front end.
type ExecuteInputContent struct {
	Code           string `json:"code"`
	ExecutionCount int    `json:"execution_count"`
}

// State is whether a kernel works.
type State string

// The states of a kernel.
const (
	Busy State = "busy"
	Idle State = "idle"
	// Restarting is said of a kernel whose process has ended and is replaced.
	Restarting State = "restarting"
)

// KernelStatusContent is what the status message carries.
type KernelStatusContent struct {
	State State `json:"execution_state"`
}

// WelcomeContent greets a new subscriber of iopub.
type WelcomeContent struct {
	Subscription string `json:"subscription"`
}
