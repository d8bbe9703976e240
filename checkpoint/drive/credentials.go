package drive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
)

const signInHint = "sign in with %drive auth, in a terminal with outlast drive auth"

// withoutDrive is how to do without.
const withoutDrive = "--store none trains without copies"

// withdrawnHint is what to do when a permission is not valid any more.
const withdrawnHint = signInHint + "; where that is needed every week, the Google Cloud project is still in testing: publish it"

// tokenTimeout ends a request for a token; a metadata server answers at once or
// is not there.
const (
	tokenTimeout    = 30 * time.Second
	metadataTimeout = 2 * time.Second
)

// ErrNoCredentials says that this machine has no sign-in to Google.
var ErrNoCredentials = errors.New("nobody is signed in to Google here")

// tokens hands out access tokens. It is safe for concurrent use.
type tokens struct {
	open func() (oauth2.TokenSource, error) // anew, so that a new sign-in is seen
	// serviceAccount says that the credentials are no person's.
	serviceAccount bool
	means          string // what they are, for people

	mu     sync.Mutex
	source oauth2.TokenSource // nil: to be opened
	last   string             // token handed out last
}

// get returns a token that has not expired.
func (t *tokens) get() (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.source == nil {
		source, err := t.open()
		if err != nil {
			return "", err
		}
		t.source = oauth2.ReuseTokenSource(nil, source)
	}
	token, err := t.source.Token()
	if err != nil {
		return "", fmt.Errorf("get an access token: %w", clean(err))
	}
	t.last = token.AccessToken
	return token.AccessToken, nil
}

// renew forgets the token that was refused, unless another goroutine has done
// so already.
func (t *tokens) renew(refused string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if refused == t.last {
		t.source = nil
	}
}

// findTokens returns where tokens come from; nil if an endpoint for tests wants
// none.
func findTokens(ctx context.Context, cfg Config) (*tokens, error) {
	if cfg.Endpoint != "" && cfg.TokenURL == "" {
		return nil, nil
	}
	if cfg.Credentials != "" {
		return namedTokens(cfg.Credentials, "GOOGLE_APPLICATION_CREDENTIALS", cfg.TokenURL) //nolint:contextcheck // tokens are fetched long after this call
	}
	if cfg.SignIn != "" {
		if _, err := readSignIn(cfg.SignIn); !errors.Is(err, fs.ErrNotExist) {
			return signedInTokens(cfg), err
		}
	}
	for _, file := range cfg.CredentialFiles {
		t, err := namedTokens(file, file, cfg.TokenURL) //nolint:contextcheck // tokens are fetched long after this call
		if !errors.Is(err, fs.ErrNotExist) {
			return t, err
		}
	}
	if cfg.TokenURL != "" {
		return testTokens(cfg.TokenURL), nil //nolint:contextcheck // tokens are fetched long after this call
	}
	for _, host := range cfg.MetadataHosts {
		m := metadata{host: host}
		if m.usable(ctx) {
			return &tokens{means: "this machine's own sign-in, of " + host, open: func() (oauth2.TokenSource, error) { return m, nil }}, nil
		}
	}
	return nil, &AccessError{"open Google Drive", ErrNoCredentials, signInHint}
}

// signedInTokens are those of a sign-in with a browser.
func signedInTokens(cfg Config) *tokens {
	return &tokens{means: "the sign-in of %drive auth", open: func() (oauth2.TokenSource, error) {
		return storedTokens{file: cfg.SignIn, tokenURL: cfg.TokenURL}, nil
	}}
}

// namedTokens are those of a credentials file. name is the variable that names it,
// or the file itself.
func namedTokens(file, name, tokenURL string) (*tokens, error) {
	t, err := fileTokens(file, tokenURL)
	if err != nil && name != file { // a variable goes before any other sign-in
		return nil, &AccessError{
			"sign in to Google Drive with " + name + "=" + file, err,
			"name a file of credentials that is there, or unset the variable and " + signInHint + "; " + withoutDrive,
		}
	}
	if err != nil {
		return nil, &AccessError{"sign in to Google Drive with " + file, err, signInHint}
	}
	t.means = name
	if t.serviceAccount {
		t.means += ", the key of a service account"
	}
	return t, nil
}

// tokenClient fetches tokens, with a limit on how long it takes.
func tokenClient() context.Context {
	return context.WithValue(context.Background(), oauth2.HTTPClient, &http.Client{Timeout: tokenTimeout})
}

// fileTokens reads a credentials file of any kind that Google's tools write.
// tokenURL, if given, replaces where it says that tokens come from.
func fileTokens(file, tokenURL string) (*tokens, error) {
	open := func() (oauth2.TokenSource, string, error) {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, "", err
		}
		var kind struct {
			Type google.CredentialsType `json:"type"`
		}
		if err := json.Unmarshal(data, &kind); err != nil {
			return nil, "", errors.New("it is no credentials file")
		}
		if kind.Type == google.ServiceAccount && tokenURL != "" {
			conf, err := google.JWTConfigFromJSON(data, scope)
			if err != nil {
				return nil, "", errors.New("it is no key of a service account")
			}
			conf.TokenURL = tokenURL
			return conf.TokenSource(tokenClient()), string(kind.Type), nil
		}
		params := google.CredentialsParams{Scopes: []string{scope}, TokenURL: tokenURL}
		c, err := google.CredentialsFromJSONWithTypeAndParams(tokenClient(), data, kind.Type, params)
		if err != nil {
			return nil, "", fmt.Errorf("read credentials: %w", err)
		}
		return c.TokenSource, string(kind.Type), nil
	}
	_, kind, err := open()
	if err != nil {
		return nil, err
	}
	return &tokens{
		serviceAccount: kind == string(google.ServiceAccount),
		open: func() (oauth2.TokenSource, error) {
			source, _, err := open()
			return source, err
		},
	}, nil
}

// testTokens asks a token server on this machine, as a made-up user would.
func testTokens(tokenURL string) *tokens {
	return &tokens{means: "the token server of OUTLAST_DRIVE_TOKEN_URL", open: func() (oauth2.TokenSource, error) {
		conf := oauth2.Config{ClientID: "outlast", ClientSecret: "test", Endpoint: oauth2.Endpoint{TokenURL: tokenURL}}
		return conf.TokenSource(tokenClient(), &oauth2.Token{RefreshToken: "test"}), nil
	}}
}

// metadata is a metadata server: Google's for its machines, or the one that
// Colab's sign-in fills.
type metadata struct{ host string }

var _ oauth2.TokenSource = metadata{}

// usable reports whether somebody is signed in there, for Drive.
func (m metadata) usable(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, metadataTimeout)
	defer cancel()
	scopes, err := m.ask(ctx, "scopes")
	if err == nil && !slices.ContainsFunc(strings.Fields(string(scopes)), coversDrive) {
		return false // a machine's own account, most likely
	}
	_, err = m.token(ctx)
	return err == nil
}

func coversDrive(s string) bool {
	return s == scope || s == "https://www.googleapis.com/auth/drive"
}

// Token implements oauth2.TokenSource.
func (m metadata) Token() (*oauth2.Token, error) {
	ctx, cancel := context.WithTimeout(context.Background(), tokenTimeout)
	defer cancel()
	return m.token(ctx)
}

func (m metadata) token(ctx context.Context) (*oauth2.Token, error) {
	data, err := m.ask(ctx, "token?scopes="+url.QueryEscape(scope))
	if err != nil {
		return nil, err
	}
	var answer struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
		ExpiresIn   int64  `json:"expires_in"` // seconds
	}
	if json.Unmarshal(data, &answer) != nil || answer.AccessToken == "" {
		return nil, errors.New("the metadata server gave no token")
	}
	return &oauth2.Token{
		AccessToken: answer.AccessToken,
		TokenType:   answer.TokenType,
		Expiry:      time.Now().Add(time.Duration(answer.ExpiresIn) * time.Second),
	}, nil
}

func (m metadata) ask(ctx context.Context, what string) ([]byte, error) {
	address := "http://" + m.host + "/computeMetadata/v1/instance/service-accounts/default/" + what
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Metadata-Flavor", "Google")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, clean(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	data, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = &oauth2.RetrieveError{Response: resp}
	}
	return data, err
}
