//go:build unix

package kernel_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/kernel"
	"outlast/kernel/jupyter"
	"outlast/kernel/kerneltest"
)

// beat sends one heartbeat and demands it back.
func beat(t *testing.T, r *rig) {
	t.Helper()
	network, address := r.config.Connection.Address(r.config.Connection.Heartbeat)
	c, err := kerneltest.Dial(network, address, kerneltest.Req, "")
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.Raw.SetDeadline(time.Now().Add(kerneltest.Patience)))
	for _, ping := range [][][]byte{{{}, []byte("ping")}, {{}, {}}, {{}, []byte("a"), []byte("b")}} {
		require.NoError(t, c.Send(ping...))
		got, err := c.Receive()
		require.NoError(t, err)
		assert.Equal(t, ping, got)
	}
}

// askedInfo demands that kernel_info is answered on both channels.
func askedInfo(t *testing.T, r *rig) {
	t.Helper()
	for _, ch := range []kerneltest.Channel{kerneltest.Shell, kerneltest.Control} {
		began := time.Now()
		result := r.Finish(r.Send(ch, jupyter.KernelInfoRequest, struct{}{}))
		assertWithin(t, time.Second, began)
		assert.Equal(t, ch, result.Reply.Channel)
		assert.Equal(t, jupyter.OK, result.Status())
		assert.Equal(t, []jupyter.Type{jupyter.TypeStatus, jupyter.TypeStatus}, result.Types())
	}
}

func TestHeartbeatAndKernelInfoAreAnsweredWhateverTheChildDoes(t *testing.T) {
	t.Run("it works", func(t *testing.T) {
		r := start(t, kerneltest.Child{})
		askedInfo(t, r)
		running := r.Execute("sleep 60s")
		r.Await("the cell runs", published(jupyter.TypeExecuteInput, running))
		beat(t, r)
		askedInfo(t, r)
	})
	t.Run("it hangs", func(t *testing.T) {
		r := start(t, kerneltest.Child{IgnoreSignals: true})
		running := r.Execute("hang")
		r.Await("the cell runs", published(jupyter.TypeExecuteInput, running))
		beat(t, r)
		askedInfo(t, r)
	})
	t.Run("it waits for input", func(t *testing.T) {
		r := start(t, kerneltest.Child{})
		r.Execute("input name")
		r.Await("the question", asked)
		beat(t, r)
		askedInfo(t, r)
	})
	t.Run("it has died and boots", func(t *testing.T) {
		marker := filepath.Join(t.TempDir(), "second")
		r := start(t, kerneltest.Child{}, func(c *kernel.Config) {
			c.Spec.Argv = append([]string{"/bin/sh", "-c", `test -e ` + marker + ` && sleep 60; : > ` + marker + `; exec "$@"`, "sh"}, c.Spec.Argv...)
		})
		r.Run("exit 1")
		beat(t, r)
		askedInfo(t, r)
	})
	t.Run("none starts any more", func(t *testing.T) {
		r := start(t, kerneltest.Child{BootExit: 1})
		r.Run("print x")
		beat(t, r)
		askedInfo(t, r)
	})
	t.Run("it boots for the first time, but its kind is known", func(t *testing.T) {
		cache := t.TempDir()
		remember := func(c *kernel.Config) { c.CacheDir = cache }
		first := start(t, kerneltest.Child{}, remember)
		first.Run("print up")
		known, err := filepath.Glob(filepath.Join(cache, "*"))
		require.NoError(t, err)
		require.Len(t, known, 1)
		second := start(t, kerneltest.Child{}, remember, func(c *kernel.Config) {
			slow := filepath.Join(cache, "slow") // another kind, by its name, that never boots
			require.NoError(t, os.WriteFile(slow, []byte("#!/bin/sh\nsleep 60\n"), 0o700))
			c.Spec.Argv = []string{slow}
		})
		began := time.Now()
		second.Send(kerneltest.Shell, jupyter.KernelInfoRequest, struct{}{})
		beat(t, second)
		assertWithin(t, time.Second, began) // the heart beats while nothing is known
	})
}

func TestWhatTheChildSaysOfItselfIsToldInFull(t *testing.T) {
	r := start(t, kerneltest.Child{Language: "fake"})
	for range 2 { // from the child, then from memory
		reply := r.Finish(r.Send(kerneltest.Control, jupyter.KernelInfoRequest, struct{}{})).Reply
		assert.JSONEq(t, strings.ReplaceAll(kerneltest.KernelInfo, "%q", `"fake"`), string(reply.Content))
	}
}

func TestARememberedKindIsKnownBeforeItHasBooted(t *testing.T) {
	cache := t.TempDir()
	slow := kerneltest.Child{Boot: 700 * time.Millisecond}
	remember := func(c *kernel.Config) { c.CacheDir = cache; c.Spec.Argv = withoutRecord(t, slow) }
	start(t, slow, remember).Run("print up")
	r := start(t, slow, remember)
	began := time.Now()
	reply := r.Finish(r.Send(kerneltest.Shell, jupyter.KernelInfoRequest, struct{}{})).Reply
	assertWithin(t, slow.Boot, began)
	assert.JSONEq(t, strings.ReplaceAll(kerneltest.KernelInfo, "%q", `"python"`), string(reply.Content))
}

// withoutRecord returns the command line of child, which is the same each time.
func withoutRecord(t *testing.T, child kerneltest.Child) []string {
	t.Helper()
	child.Record = ""
	return child.Argv(t)
}

func TestADamagedMemoryOfKernelInfoIsNotBelieved(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "torn": `{"content":{"status":"ok","proto`, "no object": `[]`, "foreign": `{"content":{"hello":1}}`,
		"a number": `{"content":5}`, "null": `{"content":null,"greets":true}`, "an error": `{"content":{"status":"error"}}`,
		"binary": "\x00\xff\xfe",
	} {
		t.Run(name, func(t *testing.T) {
			cache := t.TempDir()
			remember := func(c *kernel.Config) { c.CacheDir = cache; c.Spec.Argv = withoutRecord(t, kerneltest.Child{}) }
			start(t, kerneltest.Child{}, remember).Run("print up")
			files, err := filepath.Glob(filepath.Join(cache, "kernel-info-*"))
			require.NoError(t, err)
			require.Len(t, files, 1)
			require.NoError(t, os.WriteFile(files[0], []byte(content), 0o600))
			r := start(t, kerneltest.Child{}, remember)
			reply := r.Finish(r.Send(kerneltest.Shell, jupyter.KernelInfoRequest, struct{}{})).Reply
			assert.JSONEq(t, strings.ReplaceAll(kerneltest.KernelInfo, "%q", `"python"`), string(reply.Content))
			healed, err := os.ReadFile(files[0])
			require.NoError(t, err)
			assert.True(t, json.Valid(healed))
		})
	}
}

func TestSubscribersAreGreetedIfTheChildGreets(t *testing.T) {
	greeted := func(log []kerneltest.Received) kerneltest.Verdict {
		for _, m := range log {
			if m.Header.Type == jupyter.TypeIOPubWelcome {
				return kerneltest.Met
			}
		}
		return kerneltest.Unmet
	}
	r := start(t, kerneltest.Child{})
	r.Await("a greeting for who was there before the child", greeted)
	kerneltest.NewFrontend(t, r.config.Connection).Await("a greeting for who comes later", greeted)

	silent := start(t, kerneltest.Child{NoWelcome: true})
	silent.Run("print up")
	assert.Equal(t, kerneltest.Unmet, greeted(silent.Log()))
}

func TestAnInterruptEndsWhatWaitsForAChildThatBoots(t *testing.T) {
	r := start(t, kerneltest.Child{Boot: 500 * time.Millisecond})
	first, second, ours := r.Execute("print never"), r.Execute("print never"), r.Execute("%print never")
	behind := r.Send(kerneltest.Shell, jupyter.KernelInfoRequest, struct{}{})
	r.Await("all have come", published(jupyter.TypeStatus, behind))
	r.proxy.Interrupt()
	assert.Equal(t, "KeyboardInterrupt", r.Finish(first).Failure().Name)
	assert.Equal(t, jupyter.Aborted, r.Finish(second).Status())
	assert.Equal(t, jupyter.Aborted, r.Finish(ours).Status())
	assert.Equal(t, "up\n", r.Run("print up").Text(), "the interrupt has not ended the child")
	assert.NotContains(t, r.log.String(), "child ended")
}

func TestInterruptsReachWhatRuns(t *testing.T) {
	for name, child := range map[string]kerneltest.Child{
		"by signal": {IPython: true}, "by message": {IPython: true, ByMessage: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, child)
			ask := func() {
				request := r.Send(kerneltest.Control, jupyter.InterruptRequest, struct{}{})
				assert.Equal(t, jupyter.OK, r.Finish(request).Status())
			}
			for _, interrupt := range []func(){ask, r.proxy.Interrupt} {
				running := r.Execute("sleep 60s")
				r.Await("the cell runs", published(jupyter.TypeExecuteInput, running))
				interrupt()
				assert.Equal(t, "KeyboardInterrupt", r.Finish(running).Failure().Name)

				magic := r.Execute("%wait")
				r.Await("the magic runs", printed("waiting", magic))
				interrupt()
				assert.Equal(t, "interrupted", r.Finish(magic).Failure().Value)

				twice := r.Execute("%waittwice")
				r.Await("the magic runs", printed("waiting", twice))
				interrupt()
				r.Await("the first is seen", printed("once", twice))
				interrupt()
				assert.Equal(t, "interrupted", r.Finish(twice).Failure().Value)

				mixed := r.Execute("%print first\nsleep 60s")
				r.Await("its Python runs", published(jupyter.TypeExecuteInput, mixed))
				interrupt()
				assert.Equal(t, "KeyboardInterrupt", r.Finish(mixed).Failure().Name)

				asking := r.Execute("%eval sleep 60s")
				r.Await("the magic runs", published(jupyter.TypeExecuteInput, asking))
				interrupt()
				assert.Equal(t, jupyter.Failed, r.Finish(asking).Status())
				assert.Equal(t, "free\n", r.Run("print free").Text(), "the child works for nobody")
			}
			ask() // of nothing
			assert.Equal(t, "alive\n", r.Run("print alive").Text())
		})
	}
}
