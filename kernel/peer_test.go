package kernel

import (
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/kernel/jupyter"
)

// heard is a peer whose outbox nobody writes out, and a signer.
type heard struct {
	*peer
	t      *testing.T
	signer jupyter.Signer
	filler []byte
}

func newHeard(t *testing.T) heard {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { theirs.Close() }) //nolint:errcheck // nobody is at the other end
	signer, err := jupyter.NewSigner("", "key")
	require.NoError(t, err)
	return heard{newPeer(&link{raw: ours}, "x"), t, signer, make([]byte, 4<<20)}
}

// say publishes one message.
func (h heard) say(typ jupyter.Type, parent string, content any) {
	h.t.Helper()
	m, err := jupyter.New(typ, "s", []byte(fmt.Sprintf(`{"msg_id":%q}`, parent)), content)
	require.NoError(h.t, err)
	m.Identities = [][]byte{[]byte(typ)}
	h.publish(broadcast{msg: m, frames: h.signer.Encode(m)}, h.signer)
}

func (h heard) print(parent, text string) {
	h.say(jupyter.TypeStream, parent, jupyter.StreamContent{Name: jupyter.Stdout, Text: text})
}

func (h heard) update(id string, value int) {
	h.say(jupyter.TypeUpdateDisplay, "p", jupyter.DisplayContent{
		Data: jupyter.Bundle{"n": value}, Transient: map[string]any{"display_id": id},
	})
}

// lag puts the peer behind, by a message that cannot be merged.
func (h heard) lag(bytes int) bool {
	m := &jupyter.Message{Header: jupyter.Header{Type: jupyter.TypeDisplayData}}
	return h.publish(broadcast{msg: m, frames: [][]byte{h.filler[:bytes]}}, h.signer)
}

// rest returns the type and content of what waits behind the first skip.
func (h heard) rest(skip int) []string {
	h.t.Helper()
	var all []string
	for _, p := range h.queue[skip:] {
		if p.frames == nil {
			continue
		}
		if p.merge != nil {
			p.frames = p.merge.encode(p.frames)
		}
		m, err := h.signer.Decode(p.frames)
		require.NoError(h.t, err, "what was merged is signed")
		all = append(all, string(m.Header.Type)+" "+string(m.Content))
	}
	return all
}

func TestWhoKeepsUpGetsEveryMessageAsItCame(t *testing.T) {
	h := newHeard(t)
	for range 100 {
		h.print("a", "x")
		h.update("d", 1)
	}
	assert.Len(t, h.rest(0), 200)
}

func TestForALaggardTheTextsOfACellAreMerged(t *testing.T) {
	h := newHeard(t)
	h.lag(mergeBehind)
	h.print("a", "1")
	h.print("a", "2é")
	h.print("b", "3")
	h.say(jupyter.TypeStream, "b", jupyter.StreamContent{Name: jupyter.Stderr, Text: "4"})
	h.say(jupyter.TypeStatus, "b", jupyter.KernelStatusContent{State: jupyter.Idle})
	h.print("b", "5")
	h.print("b", "6")
	assert.Equal(t, []string{
		`stream {"name":"stdout","text":"12é"}`, `stream {"name":"stdout","text":"3"}`, `stream {"name":"stderr","text":"4"}`,
		`status {"execution_state":"idle"}`, `stream {"name":"stdout","text":"56"}`,
	}, h.rest(1), "in their order, none across another message")
}

func TestForALaggardUpdatesReplaceEarlierOnes(t *testing.T) {
	h := newHeard(t)
	h.lag(mergeBehind)
	for i := range 5 {
		h.update("a", i)
		h.update("b", 10*i)
	}
	rest := h.rest(1)
	require.Len(t, rest, 2)
	assert.Contains(t, rest[0], `"n":4`)
	assert.Contains(t, rest[1], `"n":40`)
	h.update("", 7)
	h.update("", 8)
	assert.Len(t, h.rest(1), 4, "updates without an id are nobody's successors")
}

func TestUpdatesThatAreOnTheirWayAreNotTouched(t *testing.T) {
	h := newHeard(t)
	h.lag(mergeBehind)
	h.update("a", 1)
	h.take(nil) // the display_data alone fills the batch
	h.lag(mergeBehind)
	h.update("a", 2)
	h.take(nil)
	h.lag(mergeBehind)
	h.update("a", 3)
	for _, p := range h.queue {
		assert.NotEmpty(t, p.frames)
		assert.Positive(t, p.size)
	}
}

func TestALaggardLosesNothingThatCounts(t *testing.T) {
	h := newHeard(t)
	h.lag(mergeBehind)
	types := []jupyter.Type{
		jupyter.TypeStatus, jupyter.TypeExecuteInput, jupyter.TypeError, "execute_result", jupyter.TypeDisplayData,
		"comm_open", "comm_msg", "comm_close", "clear_output", "of_tomorrow",
	}
	for _, typ := range types {
		h.say(typ, "p", map[string]any{"transient": map[string]any{"display_id": "a"}})
		h.say(typ, "p", map[string]any{"transient": map[string]any{"display_id": "a"}})
	}
	assert.Len(t, h.rest(1), 2*len(types))
}

func TestWhoTakesNothingIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeard(t)
		for range maxBehind >> 20 {
			require.True(t, h.lag(1<<20-2000))
		}
		require.True(t, h.lag(1<<20), "over the limit, but it took something a moment ago")
		time.Sleep(stallTime)
		assert.False(t, h.lag(1))
		assert.Empty(t, h.queue, "its memory is free")
		assert.True(t, h.lag(1), "it is gone; nothing is queued for it")
		assert.Empty(t, h.queue)
	})
}

func TestWhoStillReadsIsGivenTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeard(t)
		for range 2 * maxBehind >> 20 {
			require.True(t, h.lag(1<<20))
			h.take(nil)
			h.lag(1 << 20)
			time.Sleep(stallTime / 2)
		}
		kept := true
		for i := 0; kept && i < 2*hardBehind>>20; i++ {
			h.take(nil)
			kept = h.lag(4 << 20)
		}
		assert.False(t, kept, "there is an end to it")
	})
}

func TestWhoReadsIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeard(t)
		began := time.Now()
		h.await(0)
		assert.Zero(t, time.Since(began), "nothing waits for it")
		for range 4 {
			h.lag(1 << 20)
		}
		go func() {
			for range 3 {
				time.Sleep(stallTime / 2)
				h.take(nil)
			}
		}()
		h.await(1 << 20)
		assert.Equal(t, 1<<20, h.queued)
		assert.InDelta(t, 1.5*stallTime.Seconds(), time.Since(began).Seconds(), 0.02)
	})
}

func TestWhoDoesNotReadIsWaitedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeard(t)
		h.lag(1 << 20)
		began := time.Now()
		h.await(0)
		assert.InDelta(t, stallTime.Seconds(), time.Since(began).Seconds(), 0.02)
		began = time.Now()
		h.await(0)
		assert.Zero(t, time.Since(began))
		h.lag(1 << 20)
		h.take(nil)
		h.lag(1 << 20)
		h.await(0)
		assert.NotZero(t, time.Since(began), "it reads again")
	})
}

func TestSubscriptionsArePrefixes(t *testing.T) {
	h := newHeard(t)
	assert.False(t, h.wants([]byte("a")), "nobody gets what he has not asked for")
	h.subscribe([]byte("\x01kernel."))
	h.subscribe([]byte("\x01kernel."))
	_, fresh := h.subscribe([]byte("\x01other"))
	assert.True(t, fresh)
	assert.True(t, h.wants([]byte("kernel.x")))
	assert.False(t, h.wants([]byte("kern")))
	h.subscribe([]byte("\x00kernel."))
	assert.True(t, h.wants([]byte("kernel.x")), "subscriptions are counted")
	h.subscribe([]byte("\x00kernel."))
	assert.False(t, h.wants([]byte("kernel.x")))
	for _, frame := range []string{"", "\x02x", "\x00never"} {
		h.subscribe([]byte(frame))
	}
	h.subscribe([]byte("\x01"))
	assert.True(t, h.wants(nil), "the empty topic has the empty prefix")
}

// Nobody is behind because of what was not there before, however large it is.
func TestALargeMessageCutsNobodyOff(t *testing.T) {
	for name, put := range map[string]func(h heard) bool{
		"reply":     func(h heard) bool { return h.send([][]byte{h.filler}) },
		"broadcast": func(h heard) bool { return h.lag(len(h.filler)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHeard(t)
				h.filler = make([]byte, hardBehind+1)
				time.Sleep(2 * stallTime) // it was quiet before
				assert.True(t, put(h))
				assert.Len(t, h.queue, 1)
				assert.False(t, h.lag(1), "it is far behind then")
			})
		})
	}
}
