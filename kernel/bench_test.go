//go:build unix

package kernel_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"outlast/kernel/jupyter"
	"outlast/kernel/kerneltest"
)

// BenchmarkPublished measures what one message of the child costs on its way to
// one subscriber, with everything at both ends.
func BenchmarkPublished(b *testing.B) {
	p := beginBench(b)
	request := p.NewMessage(jupyter.ExecuteRequest, jupyter.ExecuteRequestContent{Code: fmt.Sprintf("flood %d 40", b.N)})
	p.Mute(request)
	b.ResetTimer()
	p.SendMessage(kerneltest.Shell, request)
	p.Finish(request)
}

// BenchmarkExecute measures the round trip of an empty cell.
func BenchmarkExecute(b *testing.B) {
	p := beginBench(b)
	for b.Loop() {
		request := p.NewMessage(jupyter.ExecuteRequest, jupyter.ExecuteRequestContent{Code: ""})
		p.Forget()
		p.SendMessage(kerneltest.Shell, request)
		p.Finish(request)
	}
}

func beginBench(b *testing.B) *rig {
	b.Helper()
	r := start(b, kerneltest.Child{})
	require.Equal(b, "up\n", r.Run("print up").Text())
	return r
}
