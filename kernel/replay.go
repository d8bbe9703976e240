package kernel

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"

	"outlast/kernel/jupyter"
)

// Replay shows again, as the output of c, what the cell with an execution count
// has shown so far; 0 means the latest before c. lost reports that a part is no
// longer kept. The messages are new ones: nobody takes them for a repetition.
// The error is ErrNotKept for a cell that the journal does not have.
func (c *Cell) Replay(count int) (lost bool, err error) {
	lines, lost, err := c.sink.kept(count)
	if err != nil {
		return lost, err
	}
	for _, line := range settle(lines) {
		c.sink.again(line)
	}
	return lost, nil
}

func (s laneCell) kept(count int) ([]journalLine, bool, error) {
	return s.p.journal.read(count, s.x.route.request.Header.ID)
}

func (s laneCell) again(line journalLine) { s.p.republish(s.x.route.request, line) }

func (c *rpcCell) kept(count int) ([]journalLine, bool, error) {
	var header jupyter.Header
	if err := json.Unmarshal(c.request.RawHeader, &header); err != nil {
		return nil, false, err
	}
	return c.server.proxy.journal.read(count, header.ID)
}

// again shows one output inside a cell of the child. An error is shown as its
// text: it must not look like that cell's own.
func (c *rpcCell) again(line journalLine) {
	if line.Type != jupyter.TypeError {
		c.emit(line.Type, line.Content)
		return
	}
	var e jupyter.ExecutionError
	if json.Unmarshal(line.Content, &e) == nil {
		c.emit(jupyter.TypeStream, jupyter.StreamContent{Name: jupyter.Stderr, Text: strings.Join(e.Traceback, "\n") + "\n"})
	}
}

// republish sends one line of the journal as a new message.
func (p *Proxy) republish(request *jupyter.Message, line journalLine) {
	m, err := jupyter.New(line.Type, p.session, request.RawHeader, line.Content)
	if err != nil {
		p.config.Log.Warn("output not shown again", "error", err)
		return
	}
	m.Metadata = orEmpty(line.Metadata)
	for _, text := range line.Buffers {
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			p.config.Log.Warn("output not shown again", "error", err)
			return
		}
		m.Buffers = append(m.Buffers, b)
	}
	m.Identities = [][]byte{append(slices.Clip(p.topic), line.Type...)}
	p.broadcast(broadcast{msg: m, frames: p.signer.Encode(m)})
}

// settle returns what a front end would show after all of lines: texts of one
// stream joined, displays in their latest form, cleared output gone. Results
// become displays: they belong to another cell's number.
func settle(lines []journalLine) []journalLine {
	var shown []journalLine
	displays := map[string]int{}
	clearing := false
	for _, line := range lines {
		if line.Type == jupyter.TypeClearOutput {
			var content struct {
				Wait bool `json:"wait"`
			}
			if clearing = json.Unmarshal(line.Content, &content) == nil && content.Wait; !clearing {
				shown, displays = nil, map[string]int{}
			}
			continue
		}
		if clearing && line.Type != jupyter.TypeUpdateDisplay {
			shown, displays, clearing = nil, map[string]int{}, false
		}
		shown = add(shown, line, displays)
	}
	return shown
}

func add(shown []journalLine, line journalLine, displays map[string]int) []journalLine {
	switch line.Type {
	case jupyter.TypeStream:
		if n := len(shown); n > 0 && joined(&shown[n-1], line) {
			return shown
		}
	case jupyter.TypeUpdateDisplay:
		at, ok := displays[displayID(line.Content)]
		if !ok {
			return shown // of a display of another cell
		}
		shown[at].Content, shown[at].Metadata, shown[at].Buffers = line.Content, line.Metadata, line.Buffers
		return shown
	case jupyter.TypeExecuteResult:
		line.Type = jupyter.TypeDisplayData
	}
	if id := displayID(line.Content); id != "" && line.Type == jupyter.TypeDisplayData {
		displays[id] = len(shown)
	}
	return append(slices.Clip(shown), line)
}

// joined appends the text of next to last if both are of one stream.
func joined(last *journalLine, next journalLine) bool {
	var a, b jupyter.StreamContent
	if last.Type != jupyter.TypeStream || json.Unmarshal(last.Content, &a) != nil || json.Unmarshal(next.Content, &b) != nil || a.Name != b.Name {
		return false
	}
	a.Text += b.Text
	content, err := json.Marshal(a)
	if err != nil {
		return false
	}
	last.Content = content
	return true
}
