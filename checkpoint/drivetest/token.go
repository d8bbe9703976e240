package drivetest

import (
	"net/http"
	"strings"
	"time"
)

// scope is the one that clients ask for.
const scope = "https://www.googleapis.com/auth/drive.file"

// authorize checks the token. The caller holds the lock.
func (c *call) authorize() *apiError {
	s := c.server
	header := c.r.Header.Get("Authorization")
	if !s.opts.Auth {
		if header != "" {
			return s.violate(c.r, errBad("a token is sent to a server that wants none"))
		}
		return nil
	}
	token, ok := strings.CutPrefix(header, "Bearer ")
	until, issued := s.tokens[token]
	switch {
	case c.op == OpSend || c.op == OpAsk: // whether the address alone is enough is unverified
		if header == "" {
			return nil
		}
	case !ok:
		return errAuth()
	}
	if s.refused[token] || !issued || s.now().After(until) {
		return errAuth()
	}
	return nil
}

// Withdraw makes all tokens given out so far invalid.
func (s *Server) Withdraw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for token := range s.tokens {
		s.refused[token] = true
	}
}

// WithdrawPermission makes the token server refuse to give out any.
func (s *Server) WithdrawPermission() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused["*"] = true
}

// TokenURL is where tokens are to be had, also as a metadata server does it:
// the host alone.
func (s *Server) TokenURL() string { return s.URL + "/token" }

// Tokens returns every token that was given out.
func (s *Server) Tokens() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for token := range s.tokens {
		all = append(all, token)
	}
	return all
}

// token answers as Google's token server, or as a metadata server.
func (c *call) token() (*answer, *apiError) {
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	isMetadata := strings.HasPrefix(c.r.URL.Path, "/computeMetadata/")
	if isMetadata && c.r.Header.Get("Metadata-Flavor") != "Google" {
		return nil, s.violate(c.r, &apiError{code: http.StatusForbidden, raw: "Missing Metadata-Flavor:Google header.", rawType: "text/html"})
	}
	if s.refused["*"] {
		if isMetadata {
			return nil, &apiError{code: http.StatusNotFound, raw: "Not Found", rawType: "text/html"}
		}
		return &answer{code: http.StatusBadRequest, body: map[string]any{
			"error": "invalid_grant", "error_description": "Token has been expired or revoked.",
		}}, nil
	}
	if strings.HasSuffix(c.r.URL.Path, "/scopes") {
		return &answer{code: http.StatusOK, send: func() {
			c.w.Write([]byte("https://www.googleapis.com/auth/cloud-platform\nhttps://www.googleapis.com/auth/drive\n")) //nolint:errcheck // the client has gone, then
		}}, nil
	}
	if !isMetadata {
		if err := c.r.ParseForm(); err != nil || c.r.Method != http.MethodPost || c.r.Form.Get("grant_type") == "" {
			return nil, s.violate(c.r, errBad("no grant_type"))
		}
		if len(s.clients) > 0 && c.r.Form.Get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
			return c.clientToken()
		}
	}
	token := "ya29.fake-" + s.newID()
	s.tokens[token] = s.now().Add(s.opts.TokenLife)
	return &answer{code: http.StatusOK, body: map[string]any{
		"access_token": token, "token_type": "Bearer", "scope": scope, "expires_in": int(s.opts.TokenLife / time.Second),
	}}, nil
}
