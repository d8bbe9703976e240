package jupyter_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/kernel/jupyter"
)

func signer(t testing.TB, scheme, key string) jupyter.Signer {
	t.Helper()
	s, err := jupyter.NewSigner(scheme, key)
	require.NoError(t, err)
	return s
}

// frames are those of the example in the specification, as jupyter_client signs
// them with the key "secret".
func frames(signature string) [][]byte {
	return [][]byte{
		[]byte("identity"), []byte("<IDS|MSG>"), []byte(signature),
		[]byte(`{"msg_id":"1","msg_type":"execute_request"}`), []byte(`{}`), []byte(`{}`), []byte(`{"code":"1"}`), []byte("\x00buffer"),
	}
}

// Made with Python: hmac.new(b"secret", b"".join(parts), hash).hexdigest().
func signatures() map[string]string {
	return map[string]string{
		"hmac-sha256": "3bfb160a7f335c03afa77ca73b6a9c00fb17e3a1323824cbb82f3c77f9a3f160",
		"hmac-sha384": "b7d18c34a3d008099e9a750e9b27982b8cd338aa21820cefeec4e1ce4d004f70fbefbc8bbeb3926246105ef664f96756",
		"hmac-sha512": "66b2976a8e11fe507ec087ac279d2cde2d47b7313459334a8af89a8d0dd2f0307f0223b508c4e37099a5279e7576a07539b299e930f7631afea725b0679be547",
	}
}

func TestSignaturesAreThoseOfJupyter(t *testing.T) {
	for scheme, signature := range signatures() {
		t.Run(scheme, func(t *testing.T) {
			s := signer(t, scheme, "secret")
			in := frames(signature)
			m, err := s.Decode(in)
			require.NoError(t, err)
			assert.Equal(t, jupyter.ExecuteRequest, m.Header.Type)
			assert.Equal(t, in, s.Encode(m), "every frame comes out as it came in")
			assert.Equal(t, in, jupyter.Signed(m))
		})
	}
}

func TestWithoutAKeyNothingIsSignedOrChecked(t *testing.T) {
	s := signer(t, "", "")
	m, err := s.Decode(frames("anything"))
	require.NoError(t, err)
	assert.Empty(t, s.Encode(m)[2])
	_, err = jupyter.NewSigner("nonsense", "")
	assert.NoError(t, err, "what does not matter is not refused")
	_, err = jupyter.NewSigner("hmac-md5", "secret")
	assert.ErrorContains(t, err, "hmac-sha256 is the usual one")
}

func TestWhatIsNoMessageIsRefused(t *testing.T) {
	s := signer(t, "hmac-sha256", "secret")
	signed := func(header string) [][]byte {
		return s.Encode(&jupyter.Message{RawHeader: []byte(header), Parent: []byte("{}"), Metadata: []byte("{}"), Content: []byte("{}")})
	}
	good := frames(signatures()["hmac-sha256"])
	for name, c := range map[string]struct {
		frames [][]byte
		want   error
	}{
		"nothing":               {nil, jupyter.ErrMalformed},
		"no delimiter":          {good[2:], jupyter.ErrMalformed},
		"only a delimiter":      {good[1:2], jupyter.ErrMalformed},
		"a part is missing":     {good[:6], jupyter.ErrMalformed},
		"wrong signature":       {frames("00"), jupyter.ErrSignature},
		"no signature":          {frames(""), jupyter.ErrSignature},
		"header is no JSON":     {signed("{"), jupyter.ErrMalformed},
		"header is a list":      {signed("[]"), jupyter.ErrMalformed},
		"header without a type": {signed("{}"), jupyter.ErrMalformed},
		"type is a number":      {signed(`{"msg_type":1}`), jupyter.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Decode(c.frames)
			assert.ErrorIs(t, err, c.want)
		})
	}
}

func TestEveryChangedByteBreaksTheSignature(t *testing.T) {
	s := signer(t, "hmac-sha256", "secret")
	good := frames(signatures()["hmac-sha256"])
	for part := 2; part < 7; part++ {
		for i := range good[part] {
			bad := slices.Clone(good)
			bad[part] = bytes.Clone(bad[part])
			bad[part][i] ^= 1
			_, err := s.Decode(bad)
			require.ErrorIs(t, err, jupyter.ErrSignature, "part %d, byte %d", part, i)
		}
	}
	good[7] = []byte("another buffer")
	_, err := s.Decode(good)
	assert.NoError(t, err, "buffers are not signed")
}

func TestADelimiterInABufferIsABuffer(t *testing.T) {
	s := signer(t, "hmac-sha256", "secret")
	in := append(frames(signatures()["hmac-sha256"]), []byte("<IDS|MSG>"))
	m, err := s.Decode(in)
	require.NoError(t, err)
	assert.Len(t, m.Identities, 1)
	assert.Len(t, m.Buffers, 2)
}

func TestNewMessagesAreOnesThatJupyterTakes(t *testing.T) {
	m, err := jupyter.New(jupyter.TypeStream, "session", nil, jupyter.StreamContent{Name: jupyter.Stdout, Text: "x"})
	require.NoError(t, err)
	var header map[string]string
	require.NoError(t, json.Unmarshal(m.RawHeader, &header))
	for _, field := range []string{"msg_id", "session", "username", "date", "msg_type", "version"} {
		assert.NotEmpty(t, header[field], field)
	}
	assert.JSONEq(t, "{}", string(m.Parent))
	assert.Empty(t, m.ParentID())
	child, err := jupyter.New(jupyter.TypeStatus, "session", m.RawHeader, nil)
	require.NoError(t, err)
	assert.Equal(t, m.Header.ID, child.ParentID())
	_, err = jupyter.New(jupyter.TypeStream, "s", nil, func() {})
	assert.Error(t, err)
}

func TestAParentMayBeAnything(t *testing.T) {
	for _, parent := range []string{"", "{}", "[]", "null", `{"msg_id":7}`, "{", `"x"`} {
		assert.Empty(t, (&jupyter.Message{Parent: []byte(parent)}).ParentID(), parent)
	}
}

func TestTypesAskAndAnswer(t *testing.T) {
	assert.Equal(t, jupyter.ExecuteReply, jupyter.ExecuteRequest.Reply())
	assert.True(t, jupyter.ExecuteRequest.IsRequest())
	for _, typ := range []jupyter.Type{"comm_msg", jupyter.ExecuteReply, ""} {
		assert.False(t, typ.IsRequest(), typ)
	}
}

// FuzzDecode feeds the wire decoder frames that are cut out of one text. It must
// not panic, and what it takes must come out as it went in.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("id|<IDS|MSG>|sig|{\"msg_type\":\"x\"}|{}|{}|{}|buffer"), byte('|'), "")
	f.Add([]byte("<IDS|MSG>\n\n{\"msg_type\":1}\n{}\n{}\n{}"), byte('\n'), "key")
	f.Add([]byte("<IDS|MSG>"), byte(0), "")
	f.Fuzz(func(t *testing.T, text []byte, separator byte, key string) {
		s := signer(t, "", key)
		in := bytes.Split(text, []byte{separator})
		for i, frame := range in { // a delimiter that the separator would cut
			if string(frame) == "<IDS" && i+1 < len(in) && string(in[i+1]) == "MSG>" {
				in = slices.Replace(slices.Clone(in), i, i+2, []byte("<IDS|MSG>"))
				break
			}
		}
		m, err := s.Decode(in)
		if err != nil {
			return
		}
		m.ParentID()
		out := s.Encode(m)
		again, err := s.Decode(out)
		if err != nil {
			t.Fatalf("what was encoded does not decode: %v", err)
		}
		if !bytes.Equal(bytes.Join(jupyter.Signed(again), []byte{0}), bytes.Join(out, []byte{0})) {
			t.Fatal("the frames have changed")
		}
		if key != "" && !bytes.Equal(bytes.Join(out, []byte{0}), bytes.Join(in, []byte{0})) {
			t.Fatal("a signed message has changed")
		}
	})
}
