package drive_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
	"outlast/checkpoint/drive"
	"outlast/checkpoint/drivetest"
)

// desktop is the user's own client, as its owner made it in Google's console.
func desktop() drivetest.Client {
	return drivetest.Client{ID: "123-abc.apps.googleusercontent.com", Secret: "GOCSPX-the-client-secret"}
}

// clientFile writes c as Google's console gives it. What it says of Google's
// addresses is wrong: it is not to be believed.
func clientFile(t *testing.T, kind string, c drivetest.Client) string {
	t.Helper()
	data, err := json.Marshal(map[string]any{kind: map[string]any{
		"client_id": c.ID, "client_secret": c.Secret, "project_id": "p", "redirect_uris": []string{"http://localhost"},
		"auth_uri": "https://evil.example.com/auth", "token_uri": "https://evil.example.com/token",
	}})
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "client_secret.json")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

// desk returns the settings of a machine where nobody is signed in yet, and a
// Drive that knows the user's client.
func desk(t *testing.T) (*drivetest.Server, drive.Config) {
	t.Helper()
	server := drivetest.Start(t, drivetest.Options{Auth: true})
	server.Register(desktop())
	cfg := signedIn(server)
	cfg.SignIn = filepath.Join(t.TempDir(), "config", "outlast", "drive.json")
	return server, cfg
}

// begin begins a sign-in that ends with the test.
func begin(t *testing.T, cfg drive.Config, client string) *drive.SignIn {
	t.Helper()
	s, err := drive.Begin(t.Context(), cfg, client)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

// browse does what a browser does whose person says yes, and returns the page
// that it ends at.
func browse(t *testing.T, address string) (code int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close() //nolint:errcheck // it was only read
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(body)
}

// elsewhere is a browser on another machine: it does not get back to this one,
// and shows the address it was to go to.
func elsewhere(t *testing.T, link string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, link, nil)
	require.NoError(t, err)
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusFound, resp.StatusCode)
	return resp.Header.Get("Location")
}

// wait waits for the end of a sign-in, though not for ever.
func wait(t *testing.T, s *drive.SignIn) (account string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	return s.Wait(ctx)
}

// signInAs signs in with a browser on this machine.
func signInAs(t *testing.T, cfg drive.Config, client string) {
	t.Helper()
	s := begin(t, cfg, client)
	code, _ := browse(t, s.Start())
	require.Equal(t, http.StatusOK, code)
	account, err := wait(t, s)
	require.NoError(t, err)
	require.Equal(t, "ann@example.com", account)
}

func TestSignInWithABrowserOpensTheStore(t *testing.T) {
	server, cfg := desk(t)
	s := begin(t, cfg, clientFile(t, "installed", desktop()))
	require.True(t, strings.HasPrefix(s.Link(), server.URL+"/auth?"), "the file's own address is not believed")
	code, text := browse(t, s.Start())
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, text, "Outlast is signed in")
	account, err := wait(t, s)
	require.NoError(t, err)
	require.Equal(t, "ann@example.com", account)

	store := open(t, cfg)
	put(t, store, "run/run.json", []byte("{}"))
	requireHas(t, store, "run/run.json", []byte("{}"))
	require.Contains(t, store.SignedInBy(), "%drive auth")
	requirePrivate(t, cfg.SignIn)

	signInAs(t, cfg, "") // the client is remembered
	put(t, open(t, cfg), "run/run.json", []byte("{}"))
}

// requirePrivate requires that only the owner can read a file, and that nothing
// half written lies beside it.
func requirePrivate(t *testing.T, path string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	require.NoError(t, err)
	for _, name := range names {
		require.Contains(t, []string{path, path + ".lock"}, name)
	}
	if runtime.GOOS == "windows" { // a user's folders are closed as a whole there
		return
	}
	for file, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		info, err := os.Stat(file)
		require.NoError(t, err)
		require.Equal(t, want, info.Mode().Perm(), file)
	}
}

// On JupyterHub, or over ssh, the browser is on another machine.
func TestAddressFromABrowserElsewhereIsPasted(t *testing.T) {
	server, cfg := desk(t)
	client := clientFile(t, "installed", desktop())
	other := begin(t, cfg, client)
	s := begin(t, cfg, client)
	address := elsewhere(t, s.Link())
	require.True(t, strings.HasPrefix(address, s.Address()))
	for name, wrong := range map[string]string{
		"nothing":            "",
		"the link":           s.Link(),
		"the code alone":     strings.Split(strings.Split(address, "code=")[1], "&")[0],
		"of another sign-in": elsewhere(t, other.Link()),
		"cut off":            strings.Replace(address, "state=", "stat=", 1),
		"no address":         "http://%zz",
	} {
		var problem *drive.AccessError
		err := s.Paste(wrong)
		require.ErrorAs(t, err, &problem, name)
		require.Contains(t, problem.Cure(), s.Address(), name)
		require.NotContains(t, err.Error(), "4/0", "a code is not told")
	}
	require.Zero(t, server.Count(drivetest.OpToken), "nothing was exchanged")
	require.NoError(t, s.Paste("  "+address+"\n"))
	account, err := wait(t, s)
	require.NoError(t, err)
	require.Equal(t, "ann@example.com", account)
}

// A notebook's Python hands over what was pasted, and is told how it went.
func TestPastedAddressMayComeFromPython(t *testing.T) {
	_, cfg := desk(t)
	s := begin(t, cfg, clientFile(t, "installed", desktop()))
	post := func(text string) (said map[string]string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.Address()+"paste", strings.NewReader(text))
		require.NoError(t, err)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close() //nolint:errcheck // it was only read
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&said))
		return said
	}
	said := post("")
	require.Contains(t, said["error"], "To do: copy the whole address")
	require.Equal(t, map[string]string{"account": "ann@example.com", "error": ""}, post(elsewhere(t, s.Link())))
}

// Who knows where the sign-in listens, and not what it has asked, gets nowhere.
func TestAnswersToOthersAreRefused(t *testing.T) {
	server, cfg := desk(t)
	s := begin(t, cfg, clientFile(t, "installed", desktop()))
	for path, want := range map[string]int{
		"?code=4/0stolen&state=guessed": http.StatusBadRequest, "?code=4/0stolen": http.StatusBadRequest, "": http.StatusBadRequest,
		"favicon.ico": http.StatusNotFound, "start/guessed": http.StatusNotFound,
	} {
		code, _ := browse(t, s.Address()+path)
		require.Equal(t, want, code, path)
	}
	require.Zero(t, server.Count(drivetest.OpToken))
	code, _ := browse(t, s.Start())
	require.Equal(t, http.StatusOK, code, "it waits on")
	_, err := wait(t, s)
	require.NoError(t, err)
}

// What a browser is started with can be seen by other users of the machine.
func TestAddressThatABrowserIsStartedWithIsGoodOnce(t *testing.T) {
	_, cfg := desk(t)
	s := begin(t, cfg, clientFile(t, "installed", desktop()))
	u, err := url.Parse(s.Link())
	require.NoError(t, err)
	for name, values := range u.Query() {
		if name == "state" || name == "code_challenge" {
			require.NotContains(t, s.Start(), values[0])
		}
	}
	require.NotContains(t, s.Link(), desktop().Secret)
	elsewhere(t, s.Start()) // leads on
	code, text := browse(t, s.Start())
	require.Equal(t, http.StatusGone, code)
	require.Contains(t, text, "the link that the notebook shows")
}

func TestSignInThatFailsSaysWhatToDo(t *testing.T) {
	for name, test := range map[string]struct {
		consent drivetest.Consent
		client  drivetest.Client
		why     string
		cure    string
	}{
		"declined":           {drivetest.Consent{Denied: true}, desktop(), "declined", "test users"},
		"box not ticked":     {drivetest.Consent{Scopes: []string{"openid"}}, desktop(), "does not cover Drive", "leave the box"},
		"secret was changed": {drivetest.Consent{}, drivetest.Client{ID: desktop().ID, Secret: "old"}, "invalid_client", "--client FILE"},
	} {
		t.Run(name, func(t *testing.T) {
			server, cfg := desk(t)
			server.Answer(test.consent)
			s := begin(t, cfg, clientFile(t, "installed", test.client))
			_, text := browse(t, s.Start())
			require.Contains(t, text, "not signed in")
			_, err := wait(t, s)
			var problem *drive.AccessError
			require.ErrorAs(t, err, &problem)
			assert.Contains(t, err.Error(), test.why)
			assert.Contains(t, problem.Cure(), test.cure)
			assert.NoFileExists(t, cfg.SignIn)
		})
	}
}

// The project has not enabled the API: the person has signed in all the same.
func TestSignInBeforeTheAPIIsEnabledIsKept(t *testing.T) {
	server, cfg := desk(t)
	server.Inject(drivetest.Fault{Op: drivetest.OpAbout, Kind: drivetest.NotEnabled})
	s := begin(t, cfg, clientFile(t, "installed", desktop()))
	browse(t, s.Start())
	_, err := wait(t, s)
	var problem *drive.AccessError
	require.ErrorAs(t, err, &problem)
	require.Contains(t, problem.Cure(), "enable the Google Drive API")
	put(t, open(t, cfg), "a", []byte("a"))
}

func TestFilesThatAreNoDesktopClientAreExplained(t *testing.T) {
	_, cfg := desk(t)
	for name, test := range map[string]struct{ file, why string }{
		"of a web server":    {clientFile(t, "web", desktop()), "Web application"},
		"of no kind":         {clientFile(t, "other", desktop()), "no OAuth client"},
		"of a robot":         {serviceFile(t), "GOOGLE_APPLICATION_CREDENTIALS"},
		"not there":          {"/no/such/file.json", "no such file"},
		"none was ever made": {"", "no OAuth client is known"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := drive.Begin(t.Context(), cfg, test.file)
			var problem *drive.AccessError
			require.ErrorAs(t, err, &problem)
			require.Contains(t, err.Error(), test.why)
			require.Contains(t, problem.Cure(), "Desktop app")
		})
	}
}

func TestSignInThatIsInterruptedListensNoMore(t *testing.T) {
	_, cfg := desk(t)
	s := begin(t, cfg, clientFile(t, "installed", desktop()))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Wait(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.Eventually(t, func() bool {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.Address(), nil)
		require.NoError(t, err)
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			err = resp.Body.Close()
			return err != nil
		}
		return true
	}, 10*time.Second, time.Millisecond)
}

// Two processes share a sign-in whose refresh token is replaced at each use.
func TestRenewedSignInIsKeptForEverybody(t *testing.T) {
	server, cfg := desk(t)
	server.Rotate()
	signInAs(t, cfg, clientFile(t, "installed", desktop()))
	stores := []*drive.Store{open(t, cfg), open(t, cfg)}
	for round := range 5 {
		server.Withdraw() // access tokens alone
		var both sync.WaitGroup
		errs := make([]error, len(stores))
		for i, s := range stores {
			both.Go(func() {
				content := []byte{byte(round), byte(i)}
				_, errs[i] = s.Put(t.Context(), "file"+string(rune('a'+i)), bytes.NewReader(content), digestOf(content))
			})
		}
		both.Wait()
		require.NoError(t, errs[0])
		require.NoError(t, errs[1])
	}
	require.GreaterOrEqual(t, len(server.RefreshTokens()), 10)
	requirePrivate(t, cfg.SignIn)
	text, err := os.ReadFile(cfg.SignIn)
	require.NoError(t, err)
	all := server.RefreshTokens()
	require.Contains(t, string(text), all[len(all)-1])
	require.Contains(t, string(text), "ann@example.com")
}

// A code that was exchanged is worth nothing to who finds it in a history.
func TestCodeIsGoodOnce(t *testing.T) {
	server, cfg := desk(t)
	s := begin(t, cfg, clientFile(t, "installed", desktop()))
	address := elsewhere(t, s.Link())
	require.NoError(t, s.Paste(address))
	_, err := wait(t, s)
	require.NoError(t, err)
	tokens := server.Count(drivetest.OpToken)
	require.NoError(t, s.Paste(address), "it is over")
	_, err = wait(t, s)
	require.NoError(t, err)
	require.Equal(t, tokens, server.Count(drivetest.OpToken))
	put(t, open(t, cfg), "a", []byte("a"))
}

func TestSignInThatWasWithdrawnIsExplained(t *testing.T) {
	server, cfg := desk(t)
	signInAs(t, cfg, clientFile(t, "installed", desktop()))
	s := open(t, cfg)
	put(t, s, "a", []byte("a"))
	server.Withdraw()
	server.WithdrawPermission()
	server.ResetCounts()
	_, err := s.Put(t.Context(), "b", strings.NewReader("b"), digestOf([]byte("b")))
	var problem *drive.AccessError
	require.ErrorAs(t, err, &problem)
	require.Contains(t, err.Error(), "invalid_grant")
	require.Contains(t, problem.Cure(), "%drive auth")
	require.LessOrEqual(t, server.Count(drivetest.OpToken), 2, "no hammering")
	require.FileExists(t, cfg.SignIn, "its client is needed to sign in again")
}

// Who is asked first: a file that was named, a sign-in, what other tools left.
func TestOrderOfSignIns(t *testing.T) {
	_, cfg := desk(t)
	signInAs(t, cfg, clientFile(t, "installed", desktop()))
	by := func(cfg drive.Config) string { return open(t, cfg).SignedInBy() }
	cfg.CredentialFiles = []string{userFile(t)}
	require.Contains(t, by(cfg), "%drive auth")
	named := cfg
	named.Credentials = serviceFile(t)
	require.Equal(t, "GOOGLE_APPLICATION_CREDENTIALS, the key of a service account", by(named))
	other := cfg
	other.SignIn = "/no/such/file"
	require.Equal(t, cfg.CredentialFiles[0], by(other))
	endpoint := cfg
	endpoint.TokenURL = ""
	require.Contains(t, by(endpoint), "OUTLAST_DRIVE_ENDPOINT")

	require.NoError(t, os.WriteFile(cfg.SignIn, []byte("{torn"), 0o600))
	_, err := drive.New(t.Context(), cfg)
	require.ErrorContains(t, err, "damaged", "somebody else's is not taken in its place")
}

// From the first word to a withdrawn permission, nothing that opens a door is
// told.
func TestSignInTellsNoSecret(t *testing.T) {
	server, cfg := desk(t)
	var told bytes.Buffer
	cfg.Log = slog.New(slog.NewTextHandler(&told, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s := begin(t, cfg, clientFile(t, "installed", desktop()))
	told.WriteString(s.Link() + s.Start() + s.Address())
	_, text := browse(t, s.Start())
	account, err := wait(t, s)
	require.NoError(t, err)
	told.WriteString(text + account)
	store := open(t, cfg)
	server.Inject(drivetest.Fault{Kind: drivetest.Unavailable, Times: 2}, drivetest.Fault{Op: drivetest.OpToken, Kind: drivetest.Unavailable, Skip: 1})
	put(t, store, "a", []byte("a"))
	server.Withdraw()
	server.WithdrawPermission()
	_, err = store.Put(t.Context(), "b", strings.NewReader("b"), digestOf([]byte("b")))
	require.Error(t, err)
	told.WriteString(err.Error())
	require.NotErrorIs(t, err, checkpoint.ErrNotFound)
	secrets := append(server.Tokens(), server.RefreshTokens()...)
	require.Greater(t, len(secrets), 2)
	for _, secret := range append(secrets, desktop().Secret, "4/0") {
		require.NotContains(t, told.String(), secret)
	}
}
