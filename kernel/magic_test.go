//go:build unix

package kernel_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"outlast/kernel"
	"outlast/kernel/jupyter"
	"outlast/kernel/kerneltest"
)

func TestOursAndTheChildsCellsShareOneSequence(t *testing.T) {
	r := start(t, kerneltest.Child{IPython: true})
	for i, code := range []string{"print a", "%print b", "%print c", "print d", "%print e\nprint f", "%fail", "print g"} {
		assert.Equal(t, i+1, r.Run(code).Count(), code)
	}
}

func TestWithoutIPythonWeCountOurselves(t *testing.T) {
	r := start(t, kerneltest.Child{Language: "scheme"})
	assert.Equal(t, 1, r.Run("print a").Count())
	assert.Equal(t, 2, r.Run("%print b").Count())
	assert.Equal(t, "b", r.Run("%print b").Text())
}

func TestACellOfOursLooksLikeAnyOther(t *testing.T) {
	r := start(t, kerneltest.Child{IPython: true})
	r.Run("print up")
	result := r.Run("%print hello")
	assert.Equal(t, []jupyter.Type{jupyter.TypeStatus, jupyter.TypeExecuteInput, jupyter.TypeStream, jupyter.TypeStatus}, result.Types())
	assert.Equal(t, jupyter.OK, result.Status())
	failed := r.Run("%fail")
	assert.Equal(t, []jupyter.Type{jupyter.TypeStatus, jupyter.TypeExecuteInput, jupyter.TypeError, jupyter.TypeStatus}, failed.Types())
	assert.Equal(t, "the magic failed", failed.Failure().Value)
}

func TestAMagicThatPanicsEndsItsCellAndNotTheKernel(t *testing.T) {
	r := start(t, kerneltest.Child{IPython: true})
	r.Run("print up")
	for _, code := range []string{"%panic", "%print before\n%panic\nprint never"} {
		e := r.Run(code).Failure()
		assert.Equal(t, "OutlastError", e.Name)
		assert.Contains(t, e.Value, "index out of range [0]")
		assert.Contains(t, strings.Join(e.Traceback, "\n"), "To do: ")
	}
	assert.Contains(t, r.log.String(), "a magic panicked")
	assert.Contains(t, r.log.String(), "main_test.go", "where it was")
	assert.Equal(t, "x", r.Run("%print x").Text())
	assert.Equal(t, 5, r.Run("print y").Count(), "the child is the same")
}

func TestACellThatFailsAboveItsPythonIsNumberedLikeAnyOther(t *testing.T) {
	r := start(t, kerneltest.Child{IPython: true})
	number := r.Run("print up").Count()
	for _, one := range []struct{ name, code, until string }{
		{"an error", "%fail\nprint never", ""},
		{"an error of the second magic", "%print before\n%fail\nprint never", ""},
		{"a panic", "%panic\nprint never", ""},
		{"an interrupt", "%wait\nprint never", "waiting"},
		{"an interrupt of what Python evaluates for it", "%print asks\n%eval sleep 60s\nprint never", "asks"},
	} {
		number++
		request := r.Execute(one.code)
		if one.until != "" {
			r.Await("the magic runs", printed(one.until, request))
			r.proxy.Interrupt()
		}
		failed := r.Finish(request)
		assert.Equal(t, jupyter.Failed, failed.Status(), one.name)
		assert.Equal(t, number, failed.Count(), one.name)
		types := failed.Types()
		assert.Equal(t, []jupyter.Type{jupyter.TypeExecuteInput, jupyter.TypeError, jupyter.TypeStatus}, types[len(types)-3:], one.name)
		for _, m := range failed.Output {
			if m.Header.Type == jupyter.TypeExecuteInput {
				assert.Equal(t, jupyter.ExecuteInputContent{Code: one.code, ExecutionCount: number}, kerneltest.ContentOf[jupyter.ExecuteInputContent](m), one.name)
			}
		}
	}
	assert.Equal(t, number+1, r.Run("print next").Count(), "the child has counted them too")
}

func TestAnInterruptAboveThePythonOfACellDoesNotWaitForAChildThatBoots(t *testing.T) {
	r := start(t, kerneltest.Child{IPython: true, Boot: time.Hour})
	running := r.Execute("%wait\nprint never")
	r.Await("the magic runs", printed("waiting", running))
	began := time.Now()
	r.proxy.Interrupt()
	failed := r.Finish(running)
	assertWithin(t, 6*time.Second, began)
	assert.Equal(t, 1, failed.Count())
	assert.Contains(t, failed.Types(), jupyter.TypeExecuteInput)
}

func TestPythonBelowAMagicRunsInTheChildWithoutTheMagic(t *testing.T) {
	r := start(t, kerneltest.Child{IPython: true})
	r.Run("print up")
	result := r.Run("%print first\nprint second")
	assert.Equal(t, "firstsecond\n", result.Text())
	assert.Equal(t, []jupyter.Type{jupyter.TypeStatus, jupyter.TypeStream, jupyter.TypeExecuteInput, jupyter.TypeStream, jupyter.TypeStatus}, result.Types())
	assert.Equal(t, jupyter.Failed, r.Run("%fail\nprint never").Status())

	plain := start(t, kerneltest.Child{})
	refused := plain.Run("%print first\nprint second")
	assert.Contains(t, refused.Failure().Value, "no IPython")
}

func TestSilentCellsAreTheChilds(t *testing.T) {
	r := start(t, kerneltest.Child{IPython: true})
	no := false
	for _, content := range []jupyter.ExecuteRequestContent{{Code: "%print x", Silent: true}, {Code: "%print x", StoreHistory: &no}} {
		request := r.Send(kerneltest.Shell, jupyter.ExecuteRequest, content)
		assert.Equal(t, "NameError", r.Finish(request).Failure().Name)
	}
}

func TestTheQueueAbortsAcrossOursAndTheChilds(t *testing.T) {
	r := start(t, kerneltest.Child{IPython: true})
	for first, typ := range map[string]jupyter.Type{"sleep 60s": jupyter.TypeExecuteInput, "%wait": jupyter.TypeStream} {
		requests := []*jupyter.Message{r.Execute(first)}
		r.Await("it runs", published(typ, requests[0]))
		for _, code := range []string{"print a", "%print b", "print c"} {
			requests = append(requests, r.Execute(code))
		}
		behind := r.Send(kerneltest.Shell, jupyter.KernelInfoRequest, struct{}{})
		r.Finish(behind)
		if first == "sleep 60s" {
			eventually(t, "the child has it in its queue", func() bool {
				return strings.Contains(fmt.Sprintf("%s", r.records(t, kerneltest.Shell, jupyter.ExecuteRequest)), "print a")
			})
		}
		r.proxy.Interrupt()
		for i, want := range []jupyter.Outcome{jupyter.Failed, jupyter.Aborted, jupyter.Aborted, jupyter.Aborted} {
			got := r.Finish(requests[i])
			assert.Equal(t, want, got.Status(), i)
			if want == jupyter.Aborted {
				assert.Equal(t, []jupyter.Type{jupyter.TypeStatus, jupyter.TypeStatus}, got.Types())
			}
		}
	}
	assert.Equal(t, jupyter.OK, r.Run("%print again").Status())
}

func TestCellsOfOursDoNotNeedAChildThatListens(t *testing.T) {
	t.Run("while it works", func(t *testing.T) {
		r := start(t, kerneltest.Child{IPython: true})
		r.Run("print up")
		running := r.Execute("input when")
		r.Await("the cell runs", published(jupyter.TypeExecuteInput, running))
		r.Await("the question", asked)
		first := r.Run("%now")
		assert.Equal(t, jupyter.OK, first.Status())
		second := r.Run("%now")
		assert.Equal(t, first.Count()+1, second.Count())
		r.Send(kerneltest.Stdin, "input_reply", map[string]any{"value": "now"})
		r.Finish(running)
		assert.Equal(t, second.Count()+1, r.Run("print next").Count(), "the child has counted them too")
	})
	t.Run("that only look, while it works", func(t *testing.T) {
		r := start(t, kerneltest.Child{IPython: true})
		running := r.Execute("sleep 1500ms")
		r.Await("the cell runs", published(jupyter.TypeExecuteInput, running))
		time.Sleep(1100 * time.Millisecond) // the rule is about a second of real time
		looked := r.Run("%look here")
		assert.Equal(t, "here", looked.Text())
		assert.Equal(t, jupyter.OK, r.Finish(running).Status())
	})
	t.Run("while it boots", func(t *testing.T) {
		r := start(t, kerneltest.Child{IPython: true, Boot: 500 * time.Millisecond})
		assert.Equal(t, 1, r.Run("%print soon").Count(), "it waits for its number")
	})
	t.Run("when it takes no bridge", func(t *testing.T) {
		r := start(t, kerneltest.Child{})
		assert.Equal(t, "x", r.Run("%print x").Text())
		assert.Contains(t, r.Run("%eval 1").Failure().Value, "no IPython")
	})
}

func TestACellThatLooksLeavesTheOneThatWorksItsNumberAndItsBusy(t *testing.T) {
	r := start(t, kerneltest.Child{IPython: true})
	running := r.Execute("%wait")
	r.Await("the magic runs", printed("waiting", running))
	time.Sleep(1100 * time.Millisecond) // the rule is about a second of real time
	looked := r.Run("%look here")
	assert.Equal(t, 2, looked.Count())
	r.Await("busy is the last word", busyAgain(running, looked.Reply.ParentID()))
	r.proxy.Interrupt()
	assert.Equal(t, 1, r.Finish(running).Count())
}

func TestACellThatLooksLeavesTheChildItsBusy(t *testing.T) {
	r := start(t, kerneltest.Child{IPython: true})
	running := r.Execute("sleep 1500ms")
	r.Await("the cell runs", published(jupyter.TypeExecuteInput, running))
	time.Sleep(1100 * time.Millisecond) // the rule is about a second of real time
	looked := r.Run("%look here")
	r.Await("busy is the last word", busyAgain(running, looked.Reply.ParentID()))
	r.Finish(running)
	last := r.Run("%look there")
	assert.Equal(t, jupyter.Idle, lastState(r.Log()), "nothing works any more")
	assert.Equal(t, jupyter.OK, last.Status())
}

func TestWorkThatGoesOnBehindItsCellKeepsTheKernelBusy(t *testing.T) {
	r := start(t, kerneltest.Child{IPython: true})
	held := r.Execute("%hold")
	r.Await("busy is the last word", busyAgain(held, held.Header.ID))
	cell := r.Run("print x")
	r.Await("busy is the last word, for what is held", busyAgain(held, cell.Reply.ParentID()))
	r.Run("%release")
	r.Await("idle is the last word, for what was held", func(log []kerneltest.Received) kerneltest.Verdict {
		if lastState(log) == jupyter.Idle {
			return kerneltest.Met
		}
		return kerneltest.Unmet
	})
	r.Run("print y")
	assert.Equal(t, jupyter.Idle, lastState(r.Log()))
}

// busyAgain is met when the last status says busy, for the request that works,
// after an idle of another one.
func busyAgain(working *jupyter.Message, other string) kerneltest.Expectation {
	return func(log []kerneltest.Received) kerneltest.Verdict {
		last, about, done := jupyter.State(""), "", false
		for _, m := range log {
			if s := kerneltest.StateOf(m); s != "" {
				last, about = s, m.ParentID()
				done = done || about == other && s == jupyter.Idle
			}
		}
		if done && last == jupyter.Busy && about == working.Header.ID {
			return kerneltest.Met
		}
		return kerneltest.Unmet
	}
}

func lastState(log []kerneltest.Received) jupyter.State {
	last := jupyter.State("")
	for _, m := range log {
		if s := kerneltest.StateOf(m); s != "" {
			last = s
		}
	}
	return last
}

func TestTheStatusTellsThatACellOfOursWorks(t *testing.T) {
	r := start(t, kerneltest.Child{IPython: true})
	running := r.Execute("%wait")
	r.Await("the magic runs", printed("waiting", running))
	asked := r.Send(kerneltest.Shell, "complete_request", nil)
	r.Finish(asked)
	r.Await("busy is the last word", busyAgain(running, asked.Header.ID))
	r.proxy.Interrupt()
	r.Finish(running)
}

func TestValuesComeFromTheNotebook(t *testing.T) {
	r := start(t, kerneltest.Child{IPython: true})
	assert.Equal(t, `"1 + 1"`, r.Run("%eval 1 + 1").Text())
	assert.Equal(t, jupyter.OK, r.Run("%exec print quiet").Status())
	assert.Equal(t, "ValueError", r.Run("%exec fail so").Failure().Name)
}

func TestUserExpressionsAreAnsweredAfterACellOfOurs(t *testing.T) {
	r := start(t, kerneltest.Child{IPython: true})
	for code, want := range map[string]string{"%print x": `{"a":{"status":"ok","data":{"text/plain":"40+2"}}}`, "%fail": ""} {
		request := r.Send(kerneltest.Shell, jupyter.ExecuteRequest, map[string]any{"code": code, "user_expressions": map[string]string{"a": "40+2"}})
		raw := kerneltest.ContentOf[jupyter.ExecuteReplyContent](r.Finish(request).Reply).UserExpressions
		if want == "" {
			assert.Empty(t, raw)
		} else {
			assert.JSONEq(t, want, string(raw))
		}
	}
}

func TestManyCellsOfManyFrontEndsKeepTheirOrder(t *testing.T) {
	r := start(t, kerneltest.Child{IPython: true})
	r.Run("print up")
	var requests []*jupyter.Message
	for i := range 60 {
		code := fmt.Sprintf("print %d", i)
		if i%3 == 1 {
			code = "%" + code
		}
		if i%7 == 2 {
			code = "%print x\n" + code
		}
		requests = append(requests, r.Execute(code))
	}
	for i, request := range requests {
		assert.Equal(t, i+2, r.Finish(request).Count())
	}
}

func TestTheDeathOfTheChildUnderAMixedCell(t *testing.T) {
	r := start(t, kerneltest.Child{IPython: true}, func(*kernel.Config) {})
	assert.Equal(t, "KernelDied", r.Run("%print first\nexit 3").Failure().Name)
	assert.Equal(t, "free", r.Run("%print free").Text())
}
