//go:build unix

package magics_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/magics"
)

// signIn is a sign-in whose person and browser are the test's.
type signIn struct {
	browser bool
	account string
	err     error
	address string
}

func (s *signIn) Link() string                { return "https://accounts.example.com/auth?state=1" }
func (s *signIn) Address() string             { return s.address }
func (s *signIn) Browse(context.Context) bool { return s.browser }
func (s *signIn) Wait(ctx context.Context) (string, error) {
	return s.account, errors.Join(s.err, ctx.Err())
}

func (n *notebook) Hand(_ context.Context, code string) error {
	n.handed = append(n.handed, code)
	return nil
}

// signingIn returns magics with a sign-in, and what they name as its client.
func signingIn(t *testing.T, s *signIn) (d *magics.Deps, client *string) {
	t.Helper()
	d, client = deps(t), new(string)
	d.SignIn = func(_ context.Context, file string) (magics.SignIn, error) {
		*client = file
		return s, nil
	}
	return d, client
}

func TestDriveAuthOpensTheBrowser(t *testing.T) {
	d, client := signingIn(t, &signIn{browser: true, account: "ann@example.com"})
	c := typed{notebook: &notebook{}}
	require.NoError(t, c.run(t.Context(), d, "drive auth --client my/client.json"))
	assert.Equal(t, "/notebook/folder/my/client.json", *client, "paths are those of the notebook")
	assert.Contains(t, c.out.String(), "https://accounts.example.com/auth?state=1\n", "the link is there all the same")
	assert.Contains(t, c.out.String(), "Signed in to Google Drive as ann@example.com.")
	assert.Empty(t, c.notebook.handed)
}

func TestDriveAuthWithoutABrowserAsksForTheAddress(t *testing.T) {
	s := &signIn{address: "http://127.0.0.1:9/"}
	d, _ := signingIn(t, s)
	for _, line := range []string{"drive auth", "drive auth --paste"} {
		c := typed{notebook: &notebook{}}
		require.NoError(t, c.run(t.Context(), d, line))
		require.Len(t, c.notebook.handed, 1)
		assert.NotContains(t, c.notebook.handed[0], "\n", "it is one line")
		assert.Contains(t, c.out.String(), "paste it below")
		assert.NotContains(t, c.out.String(), "Signed in")
		s.browser = true // which is the server's, where nobody sits
	}
}

// The line that a notebook's Python gets is one that it understands: what is
// typed goes to the sign-in, and to no proxy, and its word is shown.
func TestPastedAddressGoesFromPythonToTheSignIn(t *testing.T) {
	var pasted []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		text := string(body)
		pasted = append(pasted, r.URL.Path+" "+text)
		said := map[string]string{"account": "ann@example.com", "error": ""}
		if text == "wrong" {
			said = map[string]string{"account": "", "error": "it is no address"}
		}
		json.NewEncoder(w).Encode(said) //nolint:errcheck // the test sees it
	}))
	defer server.Close()
	d, _ := signingIn(t, &signIn{address: server.URL + "/"})
	c := typed{notebook: &notebook{}}
	require.NoError(t, c.run(t.Context(), d, "drive auth"))
	python := func(typed string) (string, error) {
		code := "import getpass; getpass.getpass = lambda prompt: " + typed + "\n" + c.notebook.handed[0] + "\n" +
			"left = [n for n in dir() if n not in ('getpass',) and not n.startswith('__')]\nassert not left, left"
		cmd := exec.CommandContext(t.Context(), "python3", "-c", code)
		cmd.Env = append(cmd.Environ(), "http_proxy=http://127.0.0.1:1", "HTTP_PROXY=http://127.0.0.1:1")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := python("'http://127.0.0.1/?code=1&state=\"2\"'")
	require.NoError(t, err, out)
	require.Equal(t, "Signed in to Google Drive as ann@example.com. Runs that name no store use drive:Outlast, unless %drive use names another.\n", out)
	out, err = python("'wrong'")
	require.Error(t, err)
	require.Contains(t, out, "RuntimeError: it is no address")
	require.Equal(t, []string{`/paste http://127.0.0.1/?code=1&state="2"`, "/paste wrong"}, pasted)
}

func TestDriveAuthOnColabIsColabsUnlessAClientIsNamed(t *testing.T) {
	d, client := signingIn(t, &signIn{address: "http://127.0.0.1:9/"})
	d.Host = magics.HostColab
	c := typed{notebook: &notebook{}}
	require.NoError(t, c.run(t.Context(), d, "drive auth"))
	assert.Contains(t, c.notebook.handed[0], "google.colab")
	require.NoError(t, c.run(t.Context(), d, "drive auth --client /content/client.json"))
	assert.Equal(t, "/content/client.json", *client)
	assert.Contains(t, c.notebook.handed[1], "getpass")
	m := magics.All(d).Lookup("drive")
	for args, hands := range map[string]bool{"auth": true, " auth --client x": true, "--client x auth": true, "mount": true, "": false, "use drive:x": false} {
		assert.Equal(t, hands, m.Hands(args), args)
	}
}

func TestDriveAuthThatIsInterruptedSaysSo(t *testing.T) {
	d, _ := signingIn(t, &signIn{browser: true})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var c typed
	err := c.run(ctx, d, "drive auth")
	require.ErrorContains(t, err, "interrupted")
	require.Equal(t, "run it again", magics.CureOf(err))
}

func TestDriveOnTheCommandLine(t *testing.T) {
	d, _ := signingIn(t, &signIn{browser: true, account: "ann@example.com"})
	d.Host = magics.HostColab
	assert.Contains(t, must(t, d, "drive auth"), "Signed in to Google Drive as ann@example.com.", "there is no page to ask")
	_, err := try(t, d, "drive use /somewhere")
	assert.Equal(t, "name it at each call: --store /somewhere", magics.CureOf(err))
	_, err = try(t, d, "drive mount")
	require.Error(t, err)
	var usage *magics.UsageError
	_, err = try(t, d, "drive status --client x")
	require.ErrorAs(t, err, &usage)
}

func TestDriveSaysWhoIsSignedInByWhat(t *testing.T) {
	d := deps(t)
	d.DefaultStore = func(context.Context) string { return t.TempDir() }
	d.Space = func(context.Context, checkpoint.Store) (magics.Space, error) {
		return magics.Space{Account: "ann@example.com", By: "the sign-in of %drive auth", Limit: 2 << 30, Usage: 1 << 30}, nil
	}
	assert.Contains(t, must(t, d, "drive"), "ann@example.com, by the sign-in of %drive auth")
}
