package kernel

import (
	"encoding/json"
	"strings"

	"outlast/kernel/jupyter"
)

// A broadcast is one iopub message on its way to every subscriber, encoded once.
type broadcast struct {
	msg    *jupyter.Message
	frames [][]byte // topic, delimiter, signature, ...
	more   bool     // others follow at once, or a release
}

// topic returns what subscriptions are compared with.
func (b broadcast) topic() []byte {
	if len(b.msg.Identities) == 0 {
		return nil
	}
	return b.msg.Identities[0]
}

// A merge makes several stream messages of one cell into one. The first one's
// header stays; its text grows.
type merge struct {
	signer jupyter.Signer
	msg    *jupyter.Message
	name   jupyter.StreamName
	parent string
	texts  []string
}

// streamMerge begins a merge with m, which is a stream message; nil if it cannot
// be merged with anything.
func streamMerge(signer jupyter.Signer, m *jupyter.Message) *merge {
	content, err := jupyter.Decode[jupyter.StreamContent](m)
	parent := m.ParentID()
	if err != nil || parent == "" || len(m.Buffers) > 0 {
		return nil
	}
	return &merge{signer: signer, msg: m, name: content.Name, parent: parent, texts: []string{content.Text}}
}

// add appends next to g if the two belong together.
func (g *merge) add(next *merge) bool {
	if next.parent != g.parent || next.name != g.name {
		return false
	}
	g.texts = append(g.texts, next.texts...)
	return true
}

// encode returns the frames of the merged message. A message that nothing was
// added to keeps its own.
func (g *merge) encode(frames [][]byte) [][]byte {
	if len(g.texts) == 1 {
		return frames
	}
	content, err := json.Marshal(jupyter.StreamContent{Name: g.name, Text: strings.Join(g.texts, "")})
	if err != nil {
		return frames // two strings always have a JSON form
	}
	merged := *g.msg
	merged.Content = content
	return g.signer.Encode(&merged)
}

// displayKey names the display that an update replaces; "" if it is none.
func displayKey(m *jupyter.Message) string {
	if m.Header.Type != jupyter.TypeUpdateDisplay {
		return ""
	}
	return displayID(m.Content)
}

// displayID returns the id in the content of a display; "" if it has none.
func displayID(content json.RawMessage) string {
	var c struct {
		Transient struct {
			ID string `json:"display_id"`
		} `json:"transient"`
	}
	if json.Unmarshal(content, &c) != nil {
		return ""
	}
	return c.Transient.ID
}
