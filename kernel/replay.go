package kernel

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"

	"outlast/kernel/jupyter"
)

// Replay shows again, as the output of c, what the cell with an execution count
// has shown so far; 0 means the latest before c. lost reports that a part is no
// longer kept. The messages are new ones: nobody takes them for a repetition.
// The error is ErrNotKept for a cell that the journal does not have, or ctx's.
func (c *Cell) Replay(ctx context.Context, count int) (lost bool, err error) {
	now := newScene()
	if lost, err = c.sink.kept(count, now.see); err != nil {
		return lost, err
	}
	for _, o := range now.shown {
		for line := range o.lines() {
			if ctx.Err() != nil { // a browser takes its time for much
				return lost, context.Cause(ctx)
			}
			c.sink.again(line)
		}
	}
	return lost, nil
}

func (s laneCell) kept(count int, see func(journalLine)) (bool, error) {
	return s.p.journal.read(count, s.x.route.request.Header.ID, see)
}

func (s laneCell) again(line journalLine) { s.p.republish(s.x.route.request, line) }

func (c *rpcCell) kept(count int, see func(journalLine)) (bool, error) {
	var header jupyter.Header
	if err := json.Unmarshal(c.request.RawHeader, &header); err != nil {
		return false, err
	}
	return c.server.proxy.journal.read(count, header.ID, see)
}

// again shows one output inside a cell of the child. An error is shown as its
// text: it must not look like that cell's own.
func (c *rpcCell) again(line journalLine) {
	c.server.proxy.iopub.await(replayBehind)
	if line.Type != jupyter.TypeError {
		c.emit(line.Type, line.Content)
		return
	}
	var e jupyter.ExecutionError
	if json.Unmarshal(line.Content, &e) == nil {
		c.emit(jupyter.TypeStream, jupyter.StreamContent{Name: jupyter.Stderr, Text: strings.Join(e.Traceback, "\n") + "\n"})
	}
}

// replayBehind is how much of a replay may wait for a subscriber, in bytes. Who
// falls too far behind what runs is cut off, and for what is over nobody should
// be.
const replayBehind = 1 << 20

// republish sends one line of the journal as a new message.
func (p *Proxy) republish(request *jupyter.Message, line journalLine) {
	p.iopub.await(replayBehind)
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

// A scene is what a front end would show after some outputs: texts of one stream
// joined, displays in their latest form, cleared output gone. Results become
// displays: they belong to another cell's number.
type scene struct {
	shown    []*replayed
	displays map[string]*replayed
	clearing bool // when the next output comes
}

// A replayed is one output, or a text that was printed in several.
type replayed struct {
	journalLine

	stream jupyter.StreamName // of text
	text   strings.Builder
}

func newScene() *scene { return &scene{displays: map[string]*replayed{}} }

func (s *scene) clear() { *s = *newScene() }

// see takes the next output.
func (s *scene) see(line journalLine) {
	if line.Type == jupyter.TypeClearOutput {
		var content struct {
			Wait bool `json:"wait"`
		}
		if s.clearing = json.Unmarshal(line.Content, &content) == nil && content.Wait; !s.clearing {
			s.clear()
		}
		return
	}
	if line.Type == jupyter.TypeUpdateDisplay {
		if d := s.displays[displayID(line.Content)]; d != nil { // else it is of another cell
			d.Content, d.Metadata, d.Buffers = line.Content, line.Metadata, line.Buffers
		}
		return
	}
	if s.clearing {
		s.clear()
	}
	switch line.Type {
	case jupyter.TypeStream:
		s.print(line)
		return
	case jupyter.TypeExecuteResult:
		line.Type = jupyter.TypeDisplayData
	}
	o := &replayed{journalLine: line}
	if id := displayID(line.Content); id != "" && line.Type == jupyter.TypeDisplayData {
		s.displays[id] = o
	}
	s.shown = append(s.shown, o)
}

// print takes text, which goes on where the last one of its stream ended.
func (s *scene) print(line journalLine) {
	var content jupyter.StreamContent
	if json.Unmarshal(line.Content, &content) != nil {
		return
	}
	if n := len(s.shown); n == 0 || s.shown[n-1].stream != content.Name {
		s.shown = append(s.shown, &replayed{journalLine: line, stream: content.Name})
	}
	s.shown[len(s.shown)-1].text.WriteString(content.Text)
}

// replayText is how much text goes into one message, in bytes.
const replayText = 1 << 20

// lines returns what to send.
func (r *replayed) lines() iter.Seq[journalLine] {
	return func(yield func(journalLine) bool) {
		if r.stream == "" {
			yield(r.journalLine)
			return
		}
		for rest := r.text.String(); rest != ""; {
			n := min(len(rest), replayText)
			for n < len(rest) && !utf8.RuneStart(rest[n]) {
				n--
			}
			line := r.journalLine
			var err error
			if line.Content, err = json.Marshal(jupyter.StreamContent{Name: r.stream, Text: rest[:n]}); err != nil {
				return // two strings always have a JSON form
			}
			if rest = rest[n:]; !yield(line) {
				return
			}
		}
	}
}
