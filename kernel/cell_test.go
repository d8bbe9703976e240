package kernel

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A clumsy interceptor panics.
type clumsy struct{ Interceptor }

func (clumsy) Run(context.Context, *Cell) error { panic("it stumbled") }

func TestAMagicInPythonThatPanicsIsAnErrorThere(t *testing.T) {
	p := New(Config{Interceptor: clumsy{}, Log: slog.New(slog.DiscardHandler)})
	s := &rpcServer{proxy: p, token: "secret"}
	python, ours := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- s.call(t.Context(), ours) }()
	_, err := fmt.Fprintln(python, `{"token":"secret","name":"status"}`)
	require.NoError(t, err)
	var end rpcOrder
	require.NoError(t, readLine(bufio.NewReader(python), &end))
	require.NoError(t, <-ended)
	assert.Equal(t, "end", end.Op)
	require.NotNil(t, end.Error)
	assert.Contains(t, end.Error.Value, "it stumbled")
}
