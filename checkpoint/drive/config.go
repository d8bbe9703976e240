package drive

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Defaults of a Config.
const (
	defaultRoot  = "https://www.googleapis.com"
	defaultTries = 8                      // over a minute in all: an outage is the caller's to sit out
	defaultPause = 500 * time.Millisecond // before the second try
	defaultStall = time.Minute            // Drive may think for seconds after the last byte of a large file
	defaultChunk = 256 << 20              // a round trip each: too few bytes make a fast line slow
	maxParallel  = 6                      // small files are read into memory, so this times smallFile is our need
)

// scope is all that we ask for: files that this program made.
const scope = "https://www.googleapis.com/auth/drive.file"

// A Config says where a store is and how to get there. Only Folder is needed.
type Config struct {
	// Folder is the store's folder below My Drive, as Parse returns it.
	Folder string
	// Journal is a file of this machine that remembers ids and unfinished
	// uploads. Without it, or when it is lost, work is repeated but nothing goes
	// wrong. One store uses it at a time; a second one does without.
	Journal string
	// Credentials is a file that the user has named; it must be there.
	Credentials string
	// SignIn is where a sign-in with a browser is kept; it comes next.
	SignIn string
	// CredentialFiles are tried in order after that; those missing are skipped.
	CredentialFiles []string
	// MetadataHosts are tried after the files: host or host:port of metadata
	// servers, such as the one that Colab's sign-in fills.
	MetadataHosts []string
	// Endpoint sends all Drive calls to this root, without credentials unless
	// TokenURL is set too; TokenURL sends requests for tokens there. Loopback
	// addresses only.
	Endpoint, TokenURL string

	Log      *slog.Logger  // nil: no log
	Tries    int           // of a request that fails without progress; 0 means 8
	Pause    time.Duration // before the second of them, doubled each time; 0 means 500 ms
	Stall    time.Duration // without a byte moving before a request is given up; 0 means 1 min
	Place    time.Duration // until a folder is looked for in its place again; 0 means 1 min
	Chunk    int64         // most bytes of one upload request, a multiple of 256 KiB; 0 means 256 MiB
	Parallel int           // Puts at work at once; 0 means 6
}

// Parse returns the folder below My Drive that a URL such as drive:Outlast/digits
// names. It reports false for another kind of URL, and for one that names no
// folder.
func Parse(url string) (folder string, ok bool) {
	rest, found := strings.CutPrefix(url, "drive:")
	if !found {
		return "", false
	}
	folder = strings.Trim(rest, "/")
	return folder, fs.ValidPath(folder) && folder != "."
}

// FromEnvironment returns the settings of a machine: lookup is os.LookupEnv,
// home the user's home folder. Folder, Journal and SignIn are the caller's to fill
// in.
func FromEnvironment(lookup func(string) (string, bool), home string) Config {
	get := func(name string) string {
		value, _ := lookup(name)
		return value
	}
	cfg := Config{
		Credentials: get("GOOGLE_APPLICATION_CREDENTIALS"),
		Endpoint:    get("OUTLAST_DRIVE_ENDPOINT"),
		TokenURL:    get("OUTLAST_DRIVE_TOKEN_URL"),
	}
	const wellKnown = "application_default_credentials.json"
	if dir := get("CLOUDSDK_CONFIG"); dir != "" {
		cfg.CredentialFiles = append(cfg.CredentialFiles, filepath.Join(dir, wellKnown))
	}
	colab := get("COLAB_RELEASE_TAG") != ""
	if colab { // its sign-in sets the variable inside the Python process only
		cfg.CredentialFiles = append(cfg.CredentialFiles, "/content/.adc/adc.json")
	}
	if dir := get("APPDATA"); dir != "" {
		cfg.CredentialFiles = append(cfg.CredentialFiles, filepath.Join(dir, "gcloud", wellKnown))
	}
	if home != "" {
		cfg.CredentialFiles = append(cfg.CredentialFiles, filepath.Join(home, ".config", "gcloud", wellKnown))
	}
	for _, name := range []string{"GCE_METADATA_HOST", "TBE_EPHEM_CREDS_ADDR"} {
		if host := get(name); host != "" {
			cfg.MetadataHosts = append(cfg.MetadataHosts, host)
		}
	}
	if colab || onGoogleMachine() {
		cfg.MetadataHosts = append(cfg.MetadataHosts, "metadata.google.internal")
	}
	return cfg
}

// onGoogleMachine reports whether this is a virtual machine of Google's, so that
// nobody else waits for a metadata server that is not there.
func onGoogleMachine() bool {
	name, err := os.ReadFile("/sys/class/dmi/id/product_name")
	return err == nil && strings.HasPrefix(string(name), "Google")
}

func (c Config) withDefaults() Config {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Tries == 0 {
		c.Tries = defaultTries
	}
	if c.Pause == 0 {
		c.Pause = defaultPause
	}
	if c.Stall == 0 {
		c.Stall = defaultStall
	}
	if c.Place == 0 {
		c.Place = defaultPlace
	}
	if c.Chunk == 0 {
		c.Chunk = defaultChunk
	}
	if c.Parallel == 0 {
		c.Parallel = maxParallel
	}
	return c
}

// root returns the root of the API, after checking the settings that could send
// data or tokens elsewhere.
func (c Config) root() (*url.URL, error) {
	if !fs.ValidPath(c.Folder) || c.Folder == "." {
		return nil, &AccessError{
			What: fmt.Sprintf("use the Drive folder %q as store", c.Folder),
			Err:  errors.New("it is no path of a folder"),
			Hint: "give a store such as drive:Outlast/digits",
		}
	}
	if c.Chunk%chunkUnit != 0 || c.Chunk < 0 {
		return nil, fmt.Errorf("open Google Drive: chunks of %d bytes: want a multiple of %d", c.Chunk, chunkUnit)
	}
	if c.TokenURL != "" {
		if _, err := loopback("OUTLAST_DRIVE_TOKEN_URL", c.TokenURL); err != nil {
			return nil, err
		}
	}
	if c.Endpoint == "" {
		return url.Parse(defaultRoot)
	}
	root, err := loopback("OUTLAST_DRIVE_ENDPOINT", c.Endpoint)
	if err != nil {
		return nil, err
	}
	root.Path = strings.TrimSuffix(root.Path, "/")
	if root.Path != "" { // the generated client drops it from uploads
		return nil, refuseURL("OUTLAST_DRIVE_ENDPOINT", c.Endpoint)
	}
	return root, nil
}

// loopback parses an address that must be on this machine: it replaces one of
// Google's in tests, and must not lead files or tokens astray.
func loopback(name, value string) (*url.URL, error) {
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "http" || u.RawQuery != "" || u.User != nil {
		return nil, refuseURL(name, value)
	}
	if ip := net.ParseIP(u.Hostname()); u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, refuseURL(name, value)
	}
	return u, nil
}

func refuseURL(name, value string) error {
	return &AccessError{
		What: "use " + name + "=" + value,
		Err:  errors.New("it is for tests, and takes addresses of this machine only"),
		Hint: "unset it, or give an address such as http://127.0.0.1:8080; " + withoutDrive,
	}
}
