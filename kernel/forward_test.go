//go:build unix

package kernel_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/kernel"
	"outlast/kernel/jupyter"
	"outlast/kernel/kerneltest"
)

// withKey sets the key of the connection.
func withKey(scheme, key string) func(*kernel.Config) {
	return func(c *kernel.Config) { c.Connection.Scheme, c.Connection.Key = scheme, key }
}

// overTCP makes the front end's side TCP.
func overTCP(t *testing.T) func(*kernel.Config) {
	t.Helper()
	connection := kerneltest.NewConnection(t, jupyter.TCP)
	return func(c *kernel.Config) { c.Connection = connection }
}

// odd is a message as no library of ours would write it: unknown header
// fields, numbers that JSON libraries round, odd spaces, escapes.
func odd(typ jupyter.Type, content string) *jupyter.Message {
	id := uuid.NewString()
	header := fmt.Sprintf(`{ "msg_type":%q,"of_tomorrow" : {"z":1,"a":1.00000000000000000001}, "msg_id": %q, "session":"\u00e9","date":"2026-11-25T00:00:00Z"}`, typ, id)
	return &jupyter.Message{
		Header:    jupyter.Header{ID: id, Type: typ},
		RawHeader: []byte(header), Parent: []byte(`{"no_id": true }`), Metadata: []byte(`{"cellId":"\/x", "n": 12345678901234567890}`),
		Content: []byte(content),
		Buffers: [][]byte{{}, {0, 255, 1}, []byte("<IDS|MSG>"), make([]byte, 7000)},
	}
}

// proper returns the frames behind the delimiter, without the signature.
func proper(t *testing.T, frames [][]byte) []string {
	t.Helper()
	all := readable(frames)
	at := slices.Index(all, "<IDS|MSG>")
	require.GreaterOrEqual(t, at, 0, "no delimiter")
	return all[at+2:]
}

// readable returns frames as texts, long ones as their digest.
func readable(frames [][]byte) []string {
	texts := make([]string, len(frames))
	for i, f := range frames {
		texts[i] = string(f)
		if len(f) > 1000 {
			texts[i] = fmt.Sprintf("%d bytes, %x", len(f), sha256.Sum256(f))
		}
	}
	return texts
}

func TestEveryMessageReachesTheChildByteForByte(t *testing.T) {
	setups := map[string]func(*testing.T) func(*kernel.Config){
		"ipc, key":       func(*testing.T) func(*kernel.Config) { return func(*kernel.Config) {} },
		"ipc, empty key": func(*testing.T) func(*kernel.Config) { return withKey("hmac-sha256", "") },
		"ipc, sha512":    func(*testing.T) func(*kernel.Config) { return withKey("hmac-sha512", "secret") },
		"tcp, key":       overTCP,
		"tcp, without key": func(t *testing.T) func(*kernel.Config) {
			t.Helper()
			tcp := overTCP(t)
			return func(c *kernel.Config) { tcp(c); c.Connection.Key, c.Connection.Scheme = "", "" }
		},
	}
	for name, setup := range setups {
		t.Run(name, func(t *testing.T) {
			r := start(t, kerneltest.Child{}, setup(t))
			for _, c := range []struct {
				channel kerneltest.Channel
				typ     jupyter.Type
				content string
			}{
				{kerneltest.Shell, "execute_request", `{"code":"print hé", "silent":false,"of_tomorrow":[1.50]}`},
				{kerneltest.Shell, "complete_request", `{"code":"p" , "cursor_pos":1}`},
				{kerneltest.Shell, "inspect_request", `{}`},
				{kerneltest.Shell, "comm_info_request", `{"target_name":null}`},
				{kerneltest.Shell, "request_of_tomorrow_request", `[1, 2]`},
				{kerneltest.Control, "debug_request", `{"type":"request","seq":1}`},
				{kerneltest.Control, "create_subshell_request", `{}`},
				{kerneltest.Control, "wish_request", `"a text"`},
			} {
				m := odd(c.typ, c.content)
				sent := r.Sign(m)
				r.SendMessage(c.channel, m)
				reply := r.Finish(m).Reply
				assert.Equal(t, c.channel, reply.Channel, "answered where it was asked")
				got := r.records(t, c.channel, c.typ)
				require.Len(t, got, 1, c.typ)
				assert.Equal(t, proper(t, sent), proper(t, got[0]), c.typ)
			}
		})
	}
}

func TestWhatOwesNoReplyReachesTheChildToo(t *testing.T) {
	r := start(t, kerneltest.Child{})
	r.Run("print up")
	for _, typ := range []jupyter.Type{"comm_open", "comm_msg", "comm_close", "whatever"} {
		m := odd(typ, `{"comm_id":"1","data":{}}`)
		r.SendMessage(kerneltest.Shell, m)
		r.Await("the idle of "+string(typ), func(log []kerneltest.Received) kerneltest.Verdict {
			for _, got := range log {
				if got.ParentID() == m.Header.ID && kerneltest.StateOf(got) == jupyter.Idle {
					return kerneltest.Met
				}
			}
			return kerneltest.Unmet
		})
		assert.Equal(t, proper(t, r.Sign(m)), proper(t, r.records(t, kerneltest.Shell, typ)[0]))
	}
	unasked := odd("input_reply", `{"value": {"an": "object"}}`)
	r.SendMessage(kerneltest.Stdin, unasked)
	eventually(t, "the child gets an input_reply that it has not asked for", func() bool {
		return len(r.records(t, kerneltest.Stdin, "input_reply")) == 1
	})
	assert.Equal(t, proper(t, r.Sign(unasked)), proper(t, r.records(t, kerneltest.Stdin, "input_reply")[0]))
}

func TestEveryMessageOfTheChildReachesTheFrontEndByteForByte(t *testing.T) {
	for _, key := range []string{"", "secret"} {
		t.Run("key "+key, func(t *testing.T) {
			r := start(t, kerneltest.Child{}, withKey("hmac-sha256", key))
			r.Run("print up")
			request := r.NewMessage(jupyter.ExecuteRequest, nil)
			var code string
			var sent [][][]byte
			for i, topic := range [][][]byte{{[]byte("kernel.x.display_data")}, {}, {[]byte("one"), []byte("two")}, {[]byte("")}} {
				m := odd(jupyter.Type(fmt.Sprint("type_", i)), `{"é": 1.0}`)
				m.Identities = topic
				if i == 0 {
					m.Parent = request.RawHeader
				}
				frames := r.Sign(m)
				sent = append(sent, frames)
				raw, err := json.Marshal(kerneltest.Record{Channel: kerneltest.IOPub, Frames: frames})
				require.NoError(t, err)
				code += "send " + string(raw) + "\n"
			}
			content, err := json.Marshal(jupyter.ExecuteRequestContent{Code: code})
			require.NoError(t, err)
			request.Content = content
			r.SendMessage(kerneltest.Shell, request)
			r.Finish(request)
			var got [][][]byte
			for _, m := range r.Log() {
				if m.Channel == kerneltest.IOPub && len(m.Header.Type) > 5 && m.Header.Type[:5] == "type_" {
					got = append(got, m.Frames)
				}
			}
			require.Len(t, got, len(sent), "%s", r)
			for i := range sent {
				assert.Equal(t, readable(sent[i]), readable(got[i]), "topic included")
			}
		})
	}
}

func TestRepliesComeBackToSeveralIdentities(t *testing.T) {
	for name, child := range map[string]kerneltest.Child{
		"child that gives identities back": {},
		"child that drops identities":      {DropIdentities: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, child)
			m := r.NewMessage("complete_request", map[string]any{})
			m.Identities = [][]byte{[]byte("deep"), {0, 1}}
			r.SendMessage(kerneltest.Shell, m)
			reply := r.Finish(m).Reply
			assert.Equal(t, m.Identities, reply.Identities)
		})
	}
}

func TestFrontEndsGetTheirOwnAnswers(t *testing.T) {
	r := start(t, kerneltest.Child{DropIdentities: true})
	other := r.join(t)
	mine, theirs := r.Send(kerneltest.Shell, "complete_request", "a"), other.Send(kerneltest.Shell, "complete_request", "b")
	r.Finish(mine)
	other.Finish(theirs)
	for front, foreign := range map[*kerneltest.Frontend]*jupyter.Message{r.Frontend: theirs, other: mine} {
		for _, got := range front.Log() {
			if got.Channel == kerneltest.Shell {
				assert.NotEqual(t, foreign.Header.ID, got.ParentID(), "an answer went to somebody else")
			}
		}
	}
}

func TestAFrontEndThatReconnectsTakesItsAnswersAlong(t *testing.T) {
	r := begin(t, kerneltest.Child{})
	old := kerneltest.NewFrontendAs(t, r.config.Connection, "me")
	old.Nudge()
	old.Run("print up")
	request := old.Execute("sleep 300ms\ninput name")
	again := kerneltest.NewFrontendAs(t, r.config.Connection, "me")
	again.Await("the question comes to the new connection", asked)
	again.Send(kerneltest.Stdin, "input_reply", map[string]any{"value": "x"})
	result := again.Finish(request)
	assert.Equal(t, `got "x"`, result.Text())
	for _, got := range old.Log() {
		assert.False(t, got.Channel == kerneltest.Shell && got.ParentID() == request.Header.ID, "the old connection was answered too")
	}
}

// asked is met when a question has come.
func asked(log []kerneltest.Received) kerneltest.Verdict {
	if slices.ContainsFunc(log, func(m kerneltest.Received) bool { return m.Channel == kerneltest.Stdin }) {
		return kerneltest.Met
	}
	return kerneltest.Unmet
}

func TestQuestionsGoToTheFrontEndWhoseCellAsks(t *testing.T) {
	for _, drop := range []bool{false, true} {
		t.Run(fmt.Sprintf("identities dropped: %t", drop), func(t *testing.T) {
			r := start(t, kerneltest.Child{DropIdentities: drop})
			other := r.join(t)
			request := r.Execute("input password")
			r.Await("the question", asked)
			r.Send(kerneltest.Stdin, "input_reply", map[string]any{"value": map[string]any{"type": "colab_reply"}})
			assert.Equal(t, `got {"type":"colab_reply"}`, r.Finish(request).Text())
			for _, got := range other.Log() {
				assert.NotEqual(t, kerneltest.Stdin, got.Channel, "somebody else was asked")
			}
		})
	}
}

func TestCellsForASubshellRunBesideTheMainOne(t *testing.T) {
	r := start(t, kerneltest.Child{})
	r.Run("print up")
	long := r.Execute("sleep 30s")
	r.Await("the main cell runs", published(jupyter.TypeExecuteInput, long))
	beside := r.NewMessage(jupyter.ExecuteRequest, jupyter.ExecuteRequestContent{Code: "print beside"})
	beside.Header.SubshellID = "sub"
	raw, err := json.Marshal(beside.Header)
	require.NoError(t, err)
	beside.RawHeader = raw
	r.SendMessage(kerneltest.Shell, beside)
	assert.Equal(t, "beside\n", r.Finish(beside).Text())
	r.Send(kerneltest.Control, jupyter.InterruptRequest, struct{}{})
	assert.Equal(t, "KeyboardInterrupt", r.Finish(long).Failure().Name)
}

func TestAChildThatKnowsOnlyTCPIsReachedThereWithAKeyOfItsOwn(t *testing.T) {
	for _, key := range []string{"", "secret"} {
		t.Run("key "+key, func(t *testing.T) {
			cache := t.TempDir()
			only := func(c *kernel.Config) {
				withKey("hmac-sha256", key)(c)
				c.CacheDir = cache
				c.Spec.Argv = withoutRecord(t, kerneltest.Child{OnlyTCP: true, IPython: true})
			}
			r := start(t, kerneltest.Child{}, only)
			m := odd("complete_request", `{"é": 1.0}`)
			r.SendMessage(kerneltest.Shell, m)
			assert.JSONEq(t, `{"status":"ok","you_asked":{"é":1.0}}`, string(r.Finish(m).Reply.Content))
			asking := r.Execute("print a\ninput name\nexit 1")
			r.Await("the question", asked)
			r.Send(kerneltest.Stdin, "input_reply", map[string]any{"value": "b"})
			assert.Equal(t, "a\ngot \"b\"", r.Finish(asking).Text())
			assert.Equal(t, 1, r.Run("%print back").Count())
			assert.NotContains(t, r.log.String(), "dropped")

			again := start(t, kerneltest.Child{}, only)
			again.Run("print up")
			assert.NotContains(t, again.log.String(), "child ended", "it is remembered")
		})
	}
}
