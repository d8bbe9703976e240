package drive

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// newClient returns the client for all calls. It follows no redirect: 308 is
// part of the upload protocol.
func newClient(s *Store) *http.Client {
	dialer := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &transport{store: s, base: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			TLSHandshakeTimeout: 30 * time.Second,
			MaxIdleConnsPerHost: 2 * s.cfg.Parallel,
			IdleConnTimeout:     s.cfg.Stall,
			WriteBufferSize:     256 << 10,
			ReadBufferSize:      64 << 10,
			// With a DialContext there is no HTTP/2. Uploads would share one connection
			// and its window; with a connection each, one that stalls holds up no other.
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := dialer.DialContext(ctx, network, address)
				if err != nil {
					return nil, err
				}
				return watch(conn, s.cfg.Stall), nil
			},
		}},
	}
}

// transport adds the token, for Google's hosts only.
type transport struct {
	store *Store
	base  *http.Transport
}

// CloseIdleConnections is what http.Client looks for.
func (t *transport) CloseIdleConnections() { t.base.CloseIdleConnections() }

// RoundTrip implements http.RoundTripper. A token that is refused is forgotten,
// so that the next try has a new one.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	tokens := t.store.tokens
	if tokens == nil || !t.store.trusted(req.URL) {
		return t.base.RoundTrip(req)
	}
	token, err := tokens.get()
	if err != nil {
		if req.Body != nil {
			req.Body.Close() //nolint:errcheck // nothing was sent
		}
		return nil, err
	}
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := t.base.RoundTrip(req)
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		tokens.renew(token)
	}
	return resp, err
}

// trusted reports whether u may be sent our data and token: the root that we
// were given, or another host of Google's.
func (s *Store) trusted(u *url.URL) bool {
	if u.Scheme == s.base.Scheme && u.Host == s.base.Host {
		return true
	}
	return s.base.Scheme == "https" && u.Scheme == "https" && strings.HasSuffix(u.Hostname(), ".googleapis.com")
}

// A watched connection fails when no byte has moved, either way, for as long as
// stall: Drive is known to accept a connection and then do nothing for an hour.
type watched struct {
	net.Conn
	stall time.Duration
	moved atomic.Int64 // when the deadline was set last, as Unix nanoseconds
}

func watch(conn net.Conn, stall time.Duration) net.Conn {
	w := &watched{Conn: conn, stall: stall}
	w.touch()
	return w
}

// touch puts off the end. Both directions share it: while an answer is waited
// for, the bytes sent show that the other side is alive.
func (w *watched) touch() {
	now := time.Now()
	last := w.moved.Load()
	if now.UnixNano()-last < int64(w.stall)/16 || !w.moved.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	w.SetDeadline(now.Add(w.stall)) //nolint:errcheck // it fails on a closed connection only, and so does what follows
}

// Read implements net.Conn.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n > 0 {
		w.touch()
	}
	return n, err
}

// Write implements net.Conn. It hands over a little at a time: a slow line is
// no stalled one.
func (w *watched) Write(p []byte) (n int, err error) {
	const piece = 64 << 10
	for len(p) > 0 && err == nil {
		var m int
		m, err = w.Conn.Write(p[:min(piece, len(p))])
		n += m
		p = p[m:]
		if m > 0 {
			w.touch()
		}
	}
	return n, err
}

// ReadFrom implements io.ReaderFrom, which is how a request's body gets to the
// connection. Pieces larger than io.Copy's make a fast line faster.
func (w *watched) ReadFrom(r io.Reader) (sent int64, err error) {
	buffer := make([]byte, 256<<10)
	for {
		n, readErr := r.Read(buffer)
		if n > 0 {
			m, err := w.Write(buffer[:n])
			sent += int64(m)
			if err != nil {
				return sent, err
			}
		}
		if errors.Is(readErr, io.EOF) {
			return sent, nil
		}
		if readErr != nil {
			return sent, readErr
		}
	}
}
