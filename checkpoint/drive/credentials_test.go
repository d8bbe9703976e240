package drive_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint/drive"
	"outlast/checkpoint/drivetest"
)

// writeJSON writes a credentials file.
func writeJSON(t *testing.T, v map[string]string) string {
	t.Helper()
	data, err := json.Marshal(v)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "credentials.json")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

func userFile(t *testing.T) string {
	t.Helper()
	return writeJSON(t, map[string]string{
		"type": "authorized_user", "client_id": "c", "client_secret": "the-secret", "refresh_token": "the-refresh-token",
	})
}

func serviceFile(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return writeJSON(t, map[string]string{
		"type": "service_account", "client_email": "robot@project.iam.gserviceaccount.com",
		"private_key":    string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"private_key_id": "1", "token_uri": "https://oauth2.googleapis.com/token",
	})
}

// signedIn returns settings for a Drive that wants a token.
func signedIn(server *drivetest.Server) drive.Config {
	cfg := config(server)
	cfg.TokenURL = server.TokenURL()
	return cfg
}

func TestEverySignInWorks(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, cfg *drive.Config, server *drivetest.Server){
		"named file":      func(t *testing.T, cfg *drive.Config, _ *drivetest.Server) { cfg.Credentials = userFile(t) },
		"service account": func(t *testing.T, cfg *drive.Config, _ *drivetest.Server) { cfg.Credentials = serviceFile(t) },
		"file that is there": func(t *testing.T, cfg *drive.Config, _ *drivetest.Server) {
			cfg.CredentialFiles = []string{"/no/such", userFile(t)}
		},
		"token server, alone": func(*testing.T, *drive.Config, *drivetest.Server) {},
	} {
		t.Run(name, func(t *testing.T) {
			server := drivetest.Start(t, drivetest.Options{Auth: true})
			cfg := signedIn(server)
			change(t, &cfg, server)
			s := open(t, cfg)
			put(t, s, "small", []byte("small"))
			put(t, s, "large", random(5*mib, 1))
			requireHas(t, s, "large", random(5*mib, 1))
			require.Len(t, server.Tokens(), 1, "one token serves all")
		})
	}
}

func TestWithoutCredentials(t *testing.T) {
	for name, cfg := range map[string]drive.Config{
		"none":                    {},
		"files that are missing":  {CredentialFiles: []string{"/no/such/file"}},
		"no metadata server":      {MetadataHosts: []string{"127.0.0.1:1"}},
		"named file is missing":   {Credentials: "/no/such/file"},
		"named file is something": {Credentials: writeJSON(t, map[string]string{"type": "banana"})},
	} {
		t.Run(name, func(t *testing.T) {
			cfg.Folder = "Outlast"
			_, err := drive.New(t.Context(), cfg)
			var problem *drive.AccessError
			require.ErrorAs(t, err, &problem)
			require.Contains(t, problem.Cure(), "sign in")
			if cfg.Credentials == "" {
				require.ErrorIs(t, err, drive.ErrNoCredentials)
			} else {
				require.Contains(t, err.Error(), "GOOGLE_APPLICATION_CREDENTIALS="+cfg.Credentials)
				require.Contains(t, problem.Cure(), "unset the variable", "no sign-in goes before it")
				require.Contains(t, problem.Cure(), "--store none")
			}
		})
	}
}

// A token that runs out, or is refused, in the middle of an upload is replaced,
// once, and the upload goes on where it was.
func TestRefusedTokenIsReplacedOnce(t *testing.T) {
	for _, op := range []drivetest.Op{
		drivetest.OpIDs, drivetest.OpList, drivetest.OpMake, drivetest.OpCreate, drivetest.OpOpen, drivetest.OpSend, drivetest.OpDownload,
	} {
		t.Run(string(op), func(t *testing.T) {
			server := drivetest.Start(t, drivetest.Options{Auth: true})
			s := open(t, signedIn(server))
			server.Inject(drivetest.Fault{Op: op, Kind: drivetest.Unauthorized})
			put(t, s, "run/small", []byte("small"))
			put(t, s, "run/large", random(6*mib, 1))
			requireHas(t, s, "run/large", random(6*mib, 1))
			require.Len(t, server.Tokens(), 2)
		})
	}
}

func TestExpiredTokensAreReplaced(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{Auth: true, TokenLife: time.Hour})
	s := open(t, signedIn(server))
	put(t, s, "a", []byte("a"))
	server.Advance(2 * time.Hour) // this machine's clock is behind
	put(t, s, "b", []byte("b"))
	server.Withdraw()
	put(t, s, "c", []byte("c"))
	require.Len(t, server.Tokens(), 3)
}

func TestWithdrawnPermissionIsExplained(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{Auth: true})
	s := open(t, signedIn(server))
	put(t, s, "a", []byte("a"))
	server.Withdraw()
	server.WithdrawPermission()
	server.ResetCounts()
	_, err := s.Put(t.Context(), "b", strings.NewReader("b"), digestOf([]byte("b")))
	var problem *drive.AccessError
	require.ErrorAs(t, err, &problem)
	require.Contains(t, err.Error(), "invalid_grant")
	require.Contains(t, problem.Cure(), "sign in")
	require.LessOrEqual(t, server.Count(drivetest.OpToken), 2, "no hammering")
}

// Nothing that opens a door is in a log or an error.
func TestTokensAreNotLogged(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{Auth: true, Percent: 40, Seed: 7})
	var log bytes.Buffer
	cfg := signedIn(server)
	cfg.Credentials = userFile(t)
	cfg.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg.Tries = 3
	s := open(t, cfg)
	for n := range 25 {
		content := random(5*mib, byte(n%3))[:4*mib+n+1]
		if _, err := s.Put(t.Context(), "file", bytes.NewReader(content), digestOf(content)); err != nil {
			log.WriteString(err.Error())
		}
	}
	server.Withdraw()
	server.WithdrawPermission()
	_, err := s.Get(t.Context(), "file")
	require.Error(t, err)
	text := log.String() + err.Error()
	require.Greater(t, len(text), 1000)
	for _, secret := range append(server.Tokens(), "upload_id", "the-secret", "the-refresh-token") {
		require.NotContains(t, text, secret)
	}
}

func TestParse(t *testing.T) {
	for name, test := range map[string]struct {
		url    string
		folder string
		ok     bool
	}{
		"folder":           {"drive:Outlast", "Outlast", true},
		"folder in folder": {"drive:Outlast/digits", "Outlast/digits", true},
		"blanks":           {"drive:My models/best ones", "My models/best ones", true},
		"slashes around":   {"drive:/Outlast/", "Outlast", true},
		"none":             {"drive:", "", false},
		"only a slash":     {"drive:/", "", false},
		"outside":          {"drive:a/../../b", "a/../../b", false},
		"empty part":       {"drive:a//b", "a//b", false},
		"a path":           {"/content/drive/MyDrive", "", false},
		"a file":           {"file:/mnt", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			folder, ok := drive.Parse(test.url)
			require.Equal(t, test.ok, ok)
			require.Equal(t, test.folder, folder)
		})
	}
}

func TestEndpointsForTestsStayOnThisMachine(t *testing.T) {
	for name, address := range map[string]string{
		"another host":     "http://drive.example.com",
		"all addresses":    "http://0.0.0.0:80",
		"encrypted":        "https://127.0.0.1:1",
		"name of another":  "http://localhost.example.com",
		"user in front":    "http://127.0.0.1@example.com",
		"user information": "http://user@127.0.0.1",
		"path":             "http://127.0.0.1:1/prefix",
		"no URL":           "127.0.0.1:1",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := drive.New(t.Context(), drive.Config{Folder: "Outlast", Endpoint: address})
			var problem *drive.AccessError
			require.ErrorAs(t, err, &problem)
			require.Contains(t, err.Error(), "OUTLAST_DRIVE_ENDPOINT")
			if name != "path" {
				_, err = drive.New(t.Context(), drive.Config{Folder: "Outlast", Endpoint: "http://127.0.0.1:1", TokenURL: address})
				require.ErrorAs(t, err, &problem)
				require.Contains(t, err.Error(), "OUTLAST_DRIVE_TOKEN_URL")
			}
		})
	}
}

func TestFromEnvironment(t *testing.T) {
	lookup := func(values map[string]string) func(string) (string, bool) {
		return func(name string) (string, bool) {
			value, ok := values[name]
			return value, ok
		}
	}
	colab := drive.FromEnvironment(lookup(map[string]string{
		"COLAB_RELEASE_TAG": "release-colab", "TBE_EPHEM_CREDS_ADDR": "172.28.0.1:8009", "CLOUDSDK_CONFIG": "/content/.config",
	}), "/root")
	require.Equal(t, []string{
		"/content/.config/application_default_credentials.json", "/content/.adc/adc.json",
		"/root/.config/gcloud/application_default_credentials.json",
	}, colab.CredentialFiles)
	require.Equal(t, []string{"172.28.0.1:8009", "metadata.google.internal"}, colab.MetadataHosts)
	named := drive.FromEnvironment(lookup(map[string]string{
		"GOOGLE_APPLICATION_CREDENTIALS": "/key.json", "OUTLAST_DRIVE_ENDPOINT": "http://127.0.0.1:1", "OUTLAST_DRIVE_TOKEN_URL": "http://127.0.0.1:1/token",
	}), "/home/ann")
	require.Equal(t, "/key.json", named.Credentials)
	require.Equal(t, "http://127.0.0.1:1", named.Endpoint)
	require.Equal(t, "http://127.0.0.1:1/token", named.TokenURL)
}

// Colab's sign-in fills a metadata server for the whole machine.
func TestMetadataServer(t *testing.T) {
	server := drivetest.Start(t, drivetest.Options{Auth: true})
	host := strings.TrimPrefix(server.URL, "http://")
	s := open(t, drive.Config{Folder: "Outlast", MetadataHosts: []string{"127.0.0.1:1", host}})
	require.NotNil(t, s)
	require.Positive(t, server.Count(drivetest.OpToken))
	server.WithdrawPermission() // nobody has signed in
	_, err := drive.New(t.Context(), drive.Config{Folder: "Outlast", MetadataHosts: []string{host}})
	require.ErrorIs(t, err, drive.ErrNoCredentials)
}
