package training

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// Both sides read testdata/protocol.jsonl: neither can change the protocol
// alone.
func TestTheGoldenEventsAreRead(t *testing.T) {
	data, err := os.ReadFile("testdata/protocol.jsonl")
	require.NoError(t, err)
	var kinds []EventKind
	for line := range bytes.SplitSeq(bytes.TrimSpace(data), []byte("\n")) {
		e, err := ParseEvent(line)
		require.NoError(t, err)
		kinds = append(kinds, e.Kind)
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		require.NoError(t, d.Decode(&Event{}), "every field is known")
		again, err := json.Marshal(e)
		require.NoError(t, err)
		require.JSONEq(t, string(line), string(again), "and kept")
	}
	require.Subset(t, kinds, []EventKind{EventHello, EventRestored, EventProgress, EventMetrics, EventCheckpoint, EventFinish, EventPaused, EventFailed})
	require.Subset(t, []EventKind{EventHello, EventRestored, EventProgress, EventMetrics, EventCheckpoint, EventFinish, EventPaused, EventFailed, EventNote}, kinds)
}

func TestLinesThatAreNoEvents(t *testing.T) {
	for _, line := range []string{"", "x", "[]", "{}", `{"event": 3}`, `{"step": 3}`, `{"event":"progress","step":"three"}`} {
		_, err := ParseEvent([]byte(line))
		require.Error(t, err, line)
	}
}

func FuzzParseEvent(f *testing.F) {
	data, err := os.ReadFile("testdata/protocol.jsonl")
	require.NoError(f, err)
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := ParseEvent(line)
		if err == nil && e.Kind == "" {
			t.Fatal("an event without a kind")
		}
		recognise(string(line))
		readMemory(string(line))
	})
}
