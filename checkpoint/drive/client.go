package drive

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
)

// newClientHint says how to come by a client. We bring none along: a client that
// many share has one quota for all, and its owner answers for all.
const newClientHint = "make an OAuth client of the type 'Desktop app' at https://console.cloud.google.com/auth/clients, " +
	"download its JSON, and name that file once: %drive auth --client FILE (notebooks/README.md has it step by step)"

// A desktopClient is an OAuth client for programs on a desktop.
type desktopClient struct {
	ID     string `json:"client_id"`
	Secret string `json:"client_secret"`
}

// maxClientFile bounds what is read of a file that somebody has named.
const maxClientFile = 1 << 20

// readClient reads the file that Google's console gives for a desktop client.
// Where it says that Google is, is not believed: a file from somebody else must
// not lead a person's permission elsewhere.
func readClient(file string) (desktopClient, error) {
	f, err := os.Open(file)
	if err != nil {
		return desktopClient{}, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	data, err := io.ReadAll(io.LimitReader(f, maxClientFile))
	if err != nil {
		return desktopClient{}, err
	}
	var in struct {
		Installed *desktopClient         `json:"installed"`
		Web       *desktopClient         `json:"web"`
		Type      google.CredentialsType `json:"type"`
	}
	err = json.Unmarshal(data, &in)
	switch {
	case err != nil:
		return desktopClient{}, errors.New("it is no JSON")
	case in.Web != nil:
		return desktopClient{}, errors.New("it is a client of the type 'Web application', which cannot sign in here")
	case in.Type == google.ServiceAccount:
		return desktopClient{}, errors.New("it is the key of a service account: set GOOGLE_APPLICATION_CREDENTIALS to it instead")
	case in.Installed == nil || in.Installed.ID == "":
		return desktopClient{}, errors.New("it is no OAuth client")
	}
	return *in.Installed, nil
}

// findClient returns the client that a sign-in is made with: that of the file
// named, else the one of the sign-in before.
func findClient(named, signIn string) (desktopClient, error) {
	if named != "" {
		c, err := readClient(named)
		if err != nil {
			return c, &AccessError{"use the OAuth client in " + named, plain(err), newClientHint}
		}
		return c, nil
	}
	before, err := readSignIn(signIn)
	if errors.Is(err, fs.ErrNotExist) || err == nil && before.ID == "" {
		return desktopClient{}, &AccessError{"sign in to Google Drive", errors.New("no OAuth client is known here"), newClientHint}
	}
	return before.desktopClient, err
}

// plain takes the path out of an error that is told with it.
func plain(err error) error {
	if where, ok := errors.AsType[*fs.PathError](err); ok {
		return where.Err
	}
	return err
}

// config returns what the OAuth library needs. tokenURL, if given, is a server
// for tests, which also asks the person: at auth, beside the tokens.
func (c desktopClient) config(tokenURL, redirect string) (*oauth2.Config, error) {
	endpoint := google.Endpoint
	if tokenURL != "" {
		u, err := url.Parse(tokenURL)
		if err != nil {
			return nil, fmt.Errorf("parse the address of tokens: %w", err)
		}
		endpoint.TokenURL, endpoint.AuthURL = tokenURL, u.ResolveReference(&url.URL{Path: "auth"}).String()
	}
	endpoint.AuthStyle = oauth2.AuthStyleInParams
	return &oauth2.Config{ClientID: c.ID, ClientSecret: c.Secret, Endpoint: endpoint, RedirectURL: redirect, Scopes: []string{scope}}, nil
}
