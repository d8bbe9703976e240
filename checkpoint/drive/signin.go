package drive

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
)

// signInTime is how long a person may take to say yes. Google's page does not
// wait longer either.
const signInTime = 10 * time.Minute

// A SignIn is one try to get a person's permission with a browser, as RFC 8252
// has it for programs on a desktop: Google's page leads the browser back to an
// address of this machine. Where the browser is on another machine it finds
// nothing there; then the address that it shows is handed to Paste. Methods may
// be called concurrently.
type SignIn struct {
	cfg      Config
	client   desktopClient
	oauth    *oauth2.Config
	state    string // told apart from the answers to others
	verifier string // proves that who exchanges is who asked
	ticket   string // of Start
	started  atomic.Bool
	server   *http.Server
	answers  chan answer
	cancel   context.CancelFunc

	done    chan struct{} // closed when account and err are known
	account string
	err     error
}

// An answer is what Google's page has led the browser back with.
type answer struct {
	code string
	err  error
}

// Begin begins a sign-in with the OAuth client in the file named, or with that
// of the sign-in before, and keeps what comes of it in cfg.SignIn. It ends by
// itself after ten minutes, when ctx ends, or with Close.
func Begin(ctx context.Context, cfg Config, clientFile string) (*SignIn, error) {
	cfg = cfg.withDefaults()
	if _, err := cfg.root(); err != nil {
		return nil, err
	}
	if cfg.Endpoint != "" && cfg.TokenURL == "" {
		return nil, &AccessError{"sign in to Google Drive", errors.New("OUTLAST_DRIVE_ENDPOINT is set, and takes no sign-in"), "unset it"}
	}
	if cfg.SignIn == "" {
		return nil, &AccessError{"sign in to Google Drive", errors.New("there is no folder to keep it in"), "set HOME, or XDG_CONFIG_HOME"}
	}
	client, err := findClient(clientFile, cfg.SignIn)
	if err != nil {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the browser: %w", err)
	}
	conf, err := client.config(cfg.TokenURL, "http://"+listener.Addr().String()+"/")
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	s := &SignIn{
		cfg: cfg, client: client, oauth: conf, state: rand.Text(), verifier: oauth2.GenerateVerifier(), ticket: rand.Text(),
		answers: make(chan answer, 1), done: make(chan struct{}),
	}
	s.server = &http.Server{Handler: s.handler(), ReadHeaderTimeout: tokenTimeout, MaxHeaderBytes: 64 << 10}
	ctx, s.cancel = context.WithTimeout(ctx, signInTime)
	go s.run(ctx, listener)
	return s, nil
}

// run serves the browser until there is an answer, and makes a sign-in of it.
func (s *SignIn) run(ctx context.Context, listener net.Listener) {
	defer s.cancel()
	var serving sync.WaitGroup
	serving.Go(func() {
		s.server.Serve(listener) //nolint:errcheck // it ends with Shutdown
	})
	select {
	case <-ctx.Done():
		s.err = &AccessError{"sign in to Google Drive", errors.New("nobody has answered in the browser"), "try again: %drive auth"}
		if errors.Is(ctx.Err(), context.Canceled) {
			s.err = ctx.Err()
		}
	case a := <-s.answers:
		if s.err = a.err; s.err == nil {
			s.account, s.err = s.exchange(ctx, a.code)
		}
	}
	close(s.done)
	// The browser is told how it went, and then finds nobody any more.
	last, stop := context.WithTimeout(context.WithoutCancel(ctx), metadataTimeout)
	defer stop()
	if s.server.Shutdown(last) != nil {
		s.server.Close() //nolint:errcheck // it was only listening
	}
	serving.Wait()
}

// Link is the address of Google's page. It is no secret, and good for this
// sign-in only.
func (s *SignIn) Link() string {
	return s.oauth.AuthCodeURL(s.state, oauth2.AccessTypeOffline, oauth2.S256ChallengeOption(s.verifier),
		oauth2.SetAuthURLParam("prompt", "consent")) // or Google gives no refresh token the second time
}

// Address is where the browser is led back to.
func (s *SignIn) Address() string { return s.oauth.RedirectURL }

// Start is the address of a page here that leads to Link, once: other users of
// this machine see what a browser is started with, and must not answer for it.
func (s *SignIn) Start() string { return s.Address() + "start/" + s.ticket }

// Wait waits for the end, and returns the e-mail address of who has signed in.
// When ctx ends, the sign-in does too.
func (s *SignIn) Wait(ctx context.Context) (account string, err error) {
	select {
	case <-s.done:
	case <-ctx.Done():
		s.Close()
	}
	<-s.done
	return s.account, s.err
}

// Close ends the sign-in if it still waits. It may be called at any time.
func (s *SignIn) Close() { s.cancel() }

// Paste takes the address that a browser was led back to on another machine.
// What it is not right about may be tried again.
func (s *SignIn) Paste(address string) error {
	address = strings.Trim(strings.TrimSpace(address), `"'<>`)
	fail := func(why string) error {
		return &AccessError{
			"read the pasted address", errors.New(why),
			"copy the whole address of the page that the browser could not open; it begins with " + s.Address(),
		}
	}
	u, err := url.Parse(address)
	if err != nil { // its text has the address
		return fail("it is no address")
	}
	q := u.Query()
	switch {
	case !q.Has("code") && !q.Has("error"):
		return fail("it has no answer of Google's")
	case !s.ours(q):
		return fail("it is of another sign-in, or not whole")
	}
	s.answer(q)
	return nil
}

// ours reports whether an answer is to what this sign-in has asked.
func (s *SignIn) ours(q url.Values) bool {
	return subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(s.state)) == 1
}

// answer takes Google's answer; the first one counts.
func (s *SignIn) answer(q url.Values) {
	a := answer{code: q.Get("code")}
	if kind := q.Get("error"); kind != "" || a.code == "" {
		why, hint := errors.New("Google has refused it: "+kind), newClientHint
		if kind == "access_denied" {
			why, hint = errors.New("it was declined in the browser"), "sign in again with %drive auth, and allow it; while the "+
				"Google Cloud project is in testing, only its test users can"
		}
		a.err = &AccessError{"sign in to Google Drive", why, hint}
	}
	select {
	case s.answers <- a:
	default:
	}
}

// exchange makes tokens of a person's yes, keeps them, and asks Drive whose they
// are.
func (s *SignIn) exchange(ctx context.Context, code string) (account string, err error) {
	const what = "sign in to Google Drive"
	client := tokenClient().Value(oauth2.HTTPClient)
	token, err := s.oauth.Exchange(context.WithValue(ctx, oauth2.HTTPClient, client), code, oauth2.VerifierOption(s.verifier))
	if err != nil {
		return "", exchangeProblem(what, err)
	}
	granted, told := token.Extra("scope").(string)
	switch {
	case told && !slices.ContainsFunc(strings.Fields(granted), coversDrive):
		return "", &AccessError{what, errors.New("the permission does not cover Drive"), "sign in again, and leave the box for Google Drive ticked"}
	case token.RefreshToken == "":
		return "", &AccessError{what, errors.New("the permission is for an hour only"), "take Outlast off the list at " +
			"https://myaccount.google.com/connections, and sign in again"}
	}
	about, aboutErr := s.whose(ctx, token)
	in := storedSignIn{
		desktopClient: s.client, RefreshToken: token.RefreshToken, Account: about.Account,
		Created: time.Now().UTC().Truncate(time.Second),
	}
	if err := in.save(s.cfg.SignIn); err != nil {
		return "", err
	}
	return about.Account, aboutErr // such as that the project has not enabled the API
}

// whose asks Drive whose token it is.
func (s *SignIn) whose(ctx context.Context, token *oauth2.Token) (About, error) {
	cfg := s.cfg
	cfg.Journal = ""
	base, err := cfg.root()
	if err != nil {
		return About{}, err
	}
	source := oauth2.StaticTokenSource(token)
	store, err := open(ctx, cfg, base, &tokens{open: func() (oauth2.TokenSource, error) { return source, nil }})
	if err != nil {
		return About{}, err
	}
	defer store.Close() //nolint:errcheck // it has no journal
	return store.About(ctx)
}

// exchangeProblem explains why there are no tokens.
func exchangeProblem(what string, err error) error {
	refusal, ok := errors.AsType[*oauth2.RetrieveError](err)
	if !ok {
		return &AccessError{what, clean(err), "check the network, and sign in again"}
	}
	why := errors.New("Google has refused it: " + refusal.ErrorCode)
	if refusal.ErrorCode == "invalid_client" || refusal.ErrorCode == "unauthorized_client" {
		return &AccessError{what, why, "the OAuth client is gone or another one now: " + newClientHint}
	}
	return &AccessError{what, why, "the answer was too late or is used up: sign in again"}
}
