// Package jupyter is the Jupyter messaging specification as Go types: messages,
// their wire format and signatures, the contents that Outlast itself reads or
// writes, and connection files.
//
// It knows neither sockets nor processes. The specification is
// https://jupyter-client.readthedocs.io/en/stable/messaging.html; the types are
// in its order.
package jupyter

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// TimeFormat is that of dates in headers and metadata: ISO 8601.
const TimeFormat = "2006-01-02T15:04:05.000000Z"

// ProtocolVersion is that of the messages that Outlast itself writes.
const ProtocolVersion = "5.3"

// A Message is one Jupyter message, on any channel.
//
// Only the header is decoded, because routing needs no more. The raw parts are
// the bytes that were received, and are sent on as they are: fields that we do
// not know survive.
type Message struct {
	Identities [][]byte // ZeroMQ return path, or the topic on iopub
	Header     Header   // decoded from RawHeader
	RawHeader  json.RawMessage
	Parent     json.RawMessage
	Metadata   json.RawMessage
	Content    json.RawMessage
	Buffers    [][]byte // not covered by the signature
	Signature  []byte   // as received; empty without a key

	parentID string // decoded from Parent by Decode; every message is asked for it several times
}

// Header is the part of a message's header that Outlast reads.
type Header struct {
	ID         string `json:"msg_id"`
	Session    string `json:"session"`
	Username   string `json:"username"`
	Date       string `json:"date"`
	Type       Type   `json:"msg_type"`
	Version    string `json:"version"`
	SubshellID string `json:"subshell_id,omitempty"` // JEP 91
}

// Type is the type of a message.
type Type string

// The message types that Outlast reads or writes.
const (
	ExecuteRequest    Type = "execute_request"
	ExecuteReply      Type = "execute_reply"
	KernelInfoRequest Type = "kernel_info_request"
	KernelInfoReply   Type = "kernel_info_reply"
	ShutdownRequest   Type = "shutdown_request"
	ShutdownReply     Type = "shutdown_reply"
	InterruptRequest  Type = "interrupt_request"
	InterruptReply    Type = "interrupt_reply"
	InputRequest      Type = "input_request"
	TypeStream        Type = "stream"
	TypeDisplayData   Type = "display_data"
	TypeUpdateDisplay Type = "update_display_data"
	TypeExecuteInput  Type = "execute_input"
	TypeExecuteResult Type = "execute_result"
	TypeClearOutput   Type = "clear_output"
	TypeError         Type = "error"
	TypeStatus        Type = "status"
	TypeIOPubWelcome  Type = "iopub_welcome" // JEP 65
)

// Suffixes of the types that ask and answer.
const (
	requestSuffix = "_request"
	replySuffix   = "_reply"
)

// IsRequest reports whether a message of type t is owed a reply.
func (t Type) IsRequest() bool { return strings.HasSuffix(string(t), requestSuffix) }

// Reply returns the type that answers t.
func (t Type) Reply() Type { return Type(strings.TrimSuffix(string(t), requestSuffix) + replySuffix) }

// New returns a message of our own. parent is the raw header of the message
// that caused it; nil if none did. The content must have a JSON form.
func New(t Type, session string, parent json.RawMessage, content any) (*Message, error) {
	m := &Message{
		Header: Header{
			ID:       uuid.NewString(),
			Session:  session,
			Username: "outlast",
			Date:     time.Now().UTC().Format(TimeFormat),
			Type:     t,
			Version:  ProtocolVersion,
		},
		Parent:   parent,
		Metadata: json.RawMessage("{}"),
	}
	if len(parent) == 0 {
		m.Parent = json.RawMessage("{}")
	}
	var err error
	if m.RawHeader, err = json.Marshal(m.Header); err != nil {
		return nil, fmt.Errorf("encode header: %w", err)
	}
	if m.Content, err = json.Marshal(content); err != nil {
		return nil, fmt.Errorf("encode content of %s: %w", t, err)
	}
	return m, nil
}

// SetMetadata sets the metadata of a message that was not sent yet.
func (m *Message) SetMetadata(metadata map[string]any) error {
	raw, err := json.Marshal(metadata)
	if err != nil {
		return fmt.Errorf("encode metadata: %w", err)
	}
	m.Metadata = raw
	return nil
}

// ParentID returns the id of the message that caused m; empty if it names none.
func (m *Message) ParentID() string {
	if m.parentID != "" {
		return m.parentID
	}
	return idOf(m.Parent)
}

// emptyParent is what ipykernel sends for none.
const emptyParent = "{}"

func idOf(header json.RawMessage) string {
	if string(header) == emptyParent {
		return ""
	}
	var parent struct {
		ID string `json:"msg_id"`
	}
	if err := json.Unmarshal(header, &parent); err != nil {
		return "" // a parent may be anything, or missing
	}
	return parent.ID
}

// Decode decodes the content of m.
func Decode[T any](m *Message) (T, error) {
	var content T
	if err := json.Unmarshal(m.Content, &content); err != nil {
		return content, fmt.Errorf("%w: content of %s: %w", ErrMalformed, m.Header.Type, err)
	}
	return content, nil
}
