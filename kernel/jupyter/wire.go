package jupyter

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
)

var (
	// ErrMalformed is a message that does not have the shape of one.
	ErrMalformed = errors.New("malformed message")
	// ErrSignature is a message that was not signed with our key.
	ErrSignature = errors.New("wrong signature")
)

// delimiter separates the return path from the message proper.
var delimiter = []byte("<IDS|MSG>") //nolint:gochecknoglobals // a constant in all but type

// parts of a message proper: signature, header, parent header, metadata, content.
const parts = 5

// A Signer encodes and decodes messages under one key. It is safe for concurrent
// use. The zero value neither signs nor checks, as an empty key demands.
type Signer struct {
	key  []byte
	hash func() hash.Hash
}

// NewSigner returns a signer for a connection file's scheme and key.
func NewSigner(scheme, key string) (Signer, error) {
	if key == "" {
		return Signer{}, nil
	}
	switch scheme {
	case "", "hmac-sha256":
		return Signer{[]byte(key), sha256.New}, nil
	case "hmac-sha384":
		return Signer{[]byte(key), sha512.New384}, nil
	case "hmac-sha512":
		return Signer{[]byte(key), sha512.New}, nil
	}
	return Signer{}, fmt.Errorf("signature scheme %q is not supported; hmac-sha256 is the usual one", scheme)
}

func (s Signer) sign(signed [][]byte) []byte {
	if len(s.key) == 0 {
		return []byte{}
	}
	mac := hmac.New(s.hash, s.key)
	for _, part := range signed {
		mac.Write(part)
	}
	return hex.AppendEncode(nil, mac.Sum(nil))
}

// Decode reads the frames of one message. It checks shape, then signature, then
// header; its errors wrap ErrMalformed or ErrSignature. The message refers to
// the frames, which must not change afterwards.
func (s Signer) Decode(frames [][]byte) (*Message, error) {
	at := -1
	for i, f := range frames {
		if bytes.Equal(f, delimiter) {
			at = i
			break
		}
	}
	if at < 0 {
		return nil, fmt.Errorf("%w: no delimiter in %d frames", ErrMalformed, len(frames))
	}
	rest := frames[at+1:]
	if len(rest) < parts {
		return nil, fmt.Errorf("%w: %d parts of %d", ErrMalformed, len(rest), parts)
	}
	if !hmac.Equal(rest[0], s.sign(rest[1:parts])) && len(s.key) > 0 {
		return nil, ErrSignature
	}
	m := &Message{
		Identities: frames[:at:at],
		Signature:  rest[0],
		RawHeader:  rest[1],
		Parent:     rest[2],
		Metadata:   rest[3],
		Content:    rest[4],
		Buffers:    rest[parts:],
	}
	if err := json.Unmarshal(m.RawHeader, &m.Header); err != nil {
		return nil, fmt.Errorf("%w: header: %w", ErrMalformed, err)
	}
	if m.Header.Type == "" {
		return nil, fmt.Errorf("%w: header without msg_type", ErrMalformed)
	}
	m.parentID = idOf(m.Parent)
	return m, nil
}

// Signed returns the frames of m with the signature that it came with.
func Signed(m *Message) [][]byte {
	frames := make([][]byte, 0, len(m.Identities)+1+parts+len(m.Buffers))
	frames = append(frames, m.Identities...)
	frames = append(frames, delimiter, m.Signature, m.RawHeader, m.Parent, m.Metadata, m.Content)
	return append(frames, m.Buffers...)
}

// Encode returns the frames of m, signed. All but the signature are the bytes
// that m holds.
func (s Signer) Encode(m *Message) [][]byte {
	frames := make([][]byte, 0, len(m.Identities)+1+parts+len(m.Buffers))
	frames = append(frames, m.Identities...)
	signed := [][]byte{m.RawHeader, m.Parent, m.Metadata, m.Content}
	frames = append(frames, delimiter, s.sign(signed))
	frames = append(frames, signed...)
	return append(frames, m.Buffers...)
}
