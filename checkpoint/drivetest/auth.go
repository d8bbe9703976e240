package drivetest

import (
	"crypto/sha256"
	"encoding/base64"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// codeLife is how long a person's yes can be exchanged for tokens.
const codeLife = 10 * time.Minute

// A Client is an OAuth client for desktop programs, as Google's console makes
// them.
type Client struct{ ID, Secret string }

// A Consent is what the person at the browser answers.
type Consent struct {
	Denied bool     // they say no
	Scopes []string // what they allow; nil: all that is asked for
}

// A grant is what one person has allowed one client.
type grant struct {
	client    Client
	scopes    string
	redirect  string
	challenge string
	until     time.Time
	used      bool
	refresh   string // the valid one; empty: none
	offline   bool
	tokens    []string // access tokens from it
}

// Register makes the server know a client. From then on it takes no others, and
// no refresh token that it has not given out.
func (s *Server) Register(c Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients[c.ID] = c
}

// Answer sets what the person at the browser says; at first it is yes.
func (s *Server) Answer(c Consent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.consent = c
}

// Rotate makes each refresh token valid once: its use gives the next one.
func (s *Server) Rotate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rotate = true
}

// RefreshTokens returns every refresh token that was given out.
func (s *Server) RefreshTokens() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.refreshes...)
}

// authorizePage is the page where a browser asks the person: it leads back to the
// program at once, with their answer. What Google's page would refuse, it shows
// to the person, and leads nowhere.
func (c *call) authorizePage() (*answer, *apiError) {
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	q := c.r.URL.Query()
	known := set("client_id redirect_uri response_type scope state code_challenge code_challenge_method access_type prompt include_granted_scopes login_hint")
	for name, values := range q {
		if !known[name] || len(values) != 1 {
			return nil, s.violate(c.r, errBad("Error 400: invalid_request: "+name))
		}
	}
	client, ok := s.clients[q.Get("client_id")]
	switch {
	case c.r.Method != http.MethodGet || q.Get("response_type") != "code" || q.Get("scope") == "":
		return nil, s.violate(c.r, errBad("Error 400: invalid_request"))
	case !ok:
		return nil, s.violate(c.r, &apiError{code: http.StatusUnauthorized, raw: "Error 401: invalid_client", rawType: "text/html"})
	case !loopbackRedirect(q.Get("redirect_uri")):
		return nil, s.violate(c.r, errBad("Error 400: redirect_uri_mismatch"))
	case len(q.Get("state")) < 16:
		return nil, s.violate(c.r, errBad("a state that can be guessed"))
	case q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != base64.RawURLEncoding.EncodedLen(sha256.Size):
		return nil, s.violate(c.r, errBad("no S256 challenge"))
	}
	back := url.Values{"state": {q.Get("state")}}
	if s.consent.Denied {
		back.Set("error", "access_denied")
	} else {
		g := &grant{
			client: client, scopes: q.Get("scope"), redirect: q.Get("redirect_uri"), challenge: q.Get("code_challenge"),
			until: s.now().Add(codeLife), offline: q.Get("access_type") == "offline",
		}
		if s.consent.Scopes != nil {
			g.scopes = strings.Join(s.consent.Scopes, " ")
		}
		code := "4/0fake-" + s.newID()
		s.codes[code] = g
		back.Set("code", code)
		back.Set("scope", g.scopes)
	}
	header := http.Header{"Location": {q.Get("redirect_uri") + "?" + back.Encode()}}
	return &answer{code: http.StatusFound, header: header}, nil
}

// loopbackRedirect reports whether an address is one that programs on a desktop
// may be led back to: any port of this machine by number.
func loopbackRedirect(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" || u.Port() == "" || u.RawQuery != "" || u.Fragment != "" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return ip != nil && ip.IsLoopback()
}

// clientToken answers a registered client as Google's token server does. The
// caller holds the lock.
func (c *call) clientToken() (*answer, *apiError) {
	s := c.server
	form := c.r.PostForm
	known := set("grant_type code redirect_uri client_id client_secret code_verifier refresh_token scope")
	for name, values := range form {
		if !known[name] || len(values) != 1 {
			return nil, s.violate(c.r, errBad("token: "+name))
		}
	}
	id, secret, ok := c.r.BasicAuth()
	if !ok {
		id, secret = form.Get("client_id"), form.Get("client_secret")
	}
	client, registered := s.clients[id]
	if !registered || client.Secret != secret {
		return oauthError(http.StatusUnauthorized, "invalid_client", "The OAuth client was not found."), nil
	}
	switch form.Get("grant_type") {
	case "authorization_code":
		return c.exchange(client), nil
	case "refresh_token":
		return c.refresh(client), nil
	}
	return oauthError(http.StatusBadRequest, "unsupported_grant_type", "Invalid grant_type: "+form.Get("grant_type")), nil
}

// exchange gives tokens for a person's yes: once, to whoever asked for it.
func (c *call) exchange(client Client) *answer {
	s := c.server
	form := c.r.PostForm
	g := s.codes[form.Get("code")]
	sum := sha256.Sum256([]byte(form.Get("code_verifier")))
	switch {
	case g == nil || s.now().After(g.until):
		return oauthError(http.StatusBadRequest, "invalid_grant", "Malformed auth code.")
	case g.used: // somebody has stolen it, or it: neither is believed any more
		g.refresh = ""
		for _, token := range g.tokens {
			s.refused[token] = true
		}
		return oauthError(http.StatusBadRequest, "invalid_grant", "Bad Request")
	case g.client != client || form.Get("redirect_uri") != g.redirect:
		return oauthError(http.StatusBadRequest, "redirect_uri_mismatch", "Bad Request")
	case base64.RawURLEncoding.EncodeToString(sum[:]) != g.challenge:
		return oauthError(http.StatusBadRequest, "invalid_grant", "Missing code verifier.")
	}
	g.used = true
	if g.offline {
		s.newRefresh(g)
	}
	return c.grantToken(g, g.offline)
}

// newRefresh gives a grant a refresh token in the place of the one it has. The
// caller holds the lock.
func (s *Server) newRefresh(g *grant) {
	g.refresh = "1//fake-" + s.newID()
	s.grants[g.refresh] = g
	s.refreshes = append(s.refreshes, g.refresh)
}

// refresh gives an access token for a refresh token.
func (c *call) refresh(client Client) *answer {
	s := c.server
	old := c.r.PostForm.Get("refresh_token")
	g := s.grants[old]
	if g == nil || g.client != client || g.refresh != old || s.refused["*"] {
		return oauthError(http.StatusBadRequest, "invalid_grant", "Token has been expired or revoked.")
	}
	if s.rotate {
		s.newRefresh(g)
	}
	return c.grantToken(g, s.rotate)
}

func (c *call) grantToken(g *grant, withRefresh bool) *answer {
	s := c.server
	token := "ya29.fake-" + s.newID()
	s.tokens[token] = s.now().Add(s.opts.TokenLife)
	g.tokens = append(g.tokens, token)
	body := map[string]any{
		"access_token": token, "token_type": "Bearer", "scope": g.scopes, "expires_in": int(s.opts.TokenLife / time.Second),
	}
	if withRefresh {
		body["refresh_token"] = g.refresh
	}
	return &answer{code: http.StatusOK, body: body}
}

func oauthError(code int, kind, text string) *answer {
	return &answer{code: code, body: map[string]any{"error": kind, "error_description": text}}
}
