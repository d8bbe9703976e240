//go:build !linux

package kernel

import (
	"io"
	"net"
)

// hush returns raw: only on Linux it is known to be worth more.
func hush(raw net.Conn) io.ReadWriteCloser { return raw }
