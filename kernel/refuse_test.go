//go:build unix

package kernel_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"outlast/kernel/jupyter"
	"outlast/kernel/kerneltest"
)

func TestBadMessagesAreNeitherExecutedNorFatal(t *testing.T) {
	r := start(t, kerneltest.Child{})
	r.Run("print up")
	stranger := jupyter.Connection{Scheme: "hmac-sha256", Key: "another key"}
	forger, err := jupyter.NewSigner(stranger.Scheme, stranger.Key)
	assert.NoError(t, err)
	evil := func() *jupyter.Message {
		return r.NewMessage(jupyter.ExecuteRequest, jupyter.ExecuteRequestContent{Code: "print evil"})
	}
	good := r.Sign(evil())
	with := func(at int, frame string) [][]byte {
		frames := slices.Clone(r.Sign(evil()))
		frames[at] = []byte(frame)
		return frames
	}
	signed := func(change func(*jupyter.Message)) [][]byte {
		m := evil()
		change(m)
		return r.Sign(m)
	}
	bad := map[string][][]byte{
		"foreign key":           forger.Encode(evil()),
		"no signature":          with(1, ""),
		"signature cut short":   with(1, string(good[1][:63])),
		"signature too long":    with(1, string(good[1])+"0"),
		"signature in capitals": with(1, strings.ToUpper(string(r.Sign(evil())[1]))),
		"changed content":       with(5, `{"code":"print evil", "silent":false}`),
		"changed header":        with(2, `{"msg_id":"x","msg_type":"execute_request"}`),
		"no delimiter":          good[1:],
		"only a delimiter":      good[:1],
		"too few parts":         good[:5],
		"one empty frame":       {{}},
		"binary":                {[]byte("\x00\xff"), []byte("<IDS|MSG>"), {0}, {1}, {2}, {3}, {4}},
		"header no object":      signed(func(m *jupyter.Message) { m.RawHeader = []byte(`"text"`) }),
		"header no JSON":        signed(func(m *jupyter.Message) { m.RawHeader = []byte(`{`) }),
		"header without type":   signed(func(m *jupyter.Message) { m.RawHeader = []byte(`{"msg_id":"1"}`) }),
		"type no text":          signed(func(m *jupyter.Message) { m.RawHeader = []byte(`{"msg_id":"1","msg_type":7}`) }),
	}
	for name, frames := range bad {
		for _, ch := range []kerneltest.Channel{kerneltest.Shell, kerneltest.Control, kerneltest.Stdin} {
			r.SendFrames(ch, frames)
		}
		assert.Equal(t, "after "+name+"\n", r.Run("print after "+name).Text())
	}
	r.SendMessage(kerneltest.Shell, evil())
	for _, frames := range r.records(t, kerneltest.Shell, jupyter.ExecuteRequest) {
		assert.NotContains(t, string(slices.Concat(frames...)), "print evil, ")
	}
	count := 0
	for _, rec := range kerneltest.ReadRecords(t, r.record) {
		if strings.Contains(string(slices.Concat(rec.Frames...)), "print evil") {
			count++
		}
	}
	assert.LessOrEqual(t, count, 1, "only the good one reaches the child")
	assert.Contains(t, r.log.String(), "message dropped")
	assert.NotContains(t, r.log.String(), "print", "no code in a log")
	assert.NotContains(t, r.log.String(), r.config.Connection.Key)
}

func TestAMessageIsTakenOnce(t *testing.T) {
	r := start(t, kerneltest.Child{})
	request := r.NewMessage(jupyter.ExecuteRequest, jupyter.ExecuteRequestContent{Code: "print once"})
	frames := r.Sign(request)
	r.SendFrames(kerneltest.Shell, frames)
	r.Finish(request)
	kerneltest.NewFrontend(t, r.config.Connection).SendFrames(kerneltest.Shell, frames)
	r.SendFrames(kerneltest.Control, frames)
	r.SendFrames(kerneltest.Shell, frames)
	eventually(t, "all three are refused", func() bool { return strings.Count(r.log.String(), "it was sent before") == 3 })
	r.Run("print last")
	assert.Len(t, r.records(t, kerneltest.Shell, jupyter.ExecuteRequest), 2)
	assert.Empty(t, r.records(t, kerneltest.Control, jupyter.ExecuteRequest))
}

func TestWithoutAKeyEverybodyIsHeard(t *testing.T) {
	r := start(t, kerneltest.Child{}, withKey("hmac-sha256", ""))
	request := r.NewMessage(jupyter.ExecuteRequest, jupyter.ExecuteRequestContent{Code: "print twice"})
	frames := r.Sign(request)
	frames[1] = []byte("whatever")
	r.SendFrames(kerneltest.Shell, frames)
	r.SendFrames(kerneltest.Shell, frames) // the same id: answered in turn
	r.Await("both are answered", func(log []kerneltest.Received) kerneltest.Verdict {
		n := 0
		for _, m := range log {
			if m.Channel == kerneltest.Shell && m.ParentID() == request.Header.ID {
				n++
			}
		}
		if n == 2 {
			return kerneltest.Met
		}
		return kerneltest.Unmet
	})
	assert.Equal(t, "ours", r.Run("%print ours").Text(), "the lane is free")
}

func TestIDsThatAreEmptyOrTheSameDoNotEndTheKernel(t *testing.T) {
	r := start(t, kerneltest.Child{})
	for range 3 {
		m := r.NewMessage("complete_request", map[string]any{})
		m.RawHeader = []byte(`{"msg_type":"complete_request","msg_id":"","x":"` + m.Header.ID + `"}`)
		r.SendMessage(kerneltest.Shell, m)
	}
	r.Run("exit 1")
	assert.Equal(t, "alive\n", r.Run("print alive").Text())
}
