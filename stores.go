package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"

	"outlast/checkpoint"
	"outlast/checkpoint/drive"
	"outlast/checkpoint/folder"
	"outlast/magics"
)

// defaultDrive is the store that is taken without being named.
const defaultDrive = "drive:Outlast"

// colabMount is where notebooks for Colab mount a Drive: My Drive and shared
// drives lie below it.
const colabMount = "/content/drive"

// openStore opens the store that url names. Close it with closeStore.
func (p *program) openStore(ctx context.Context, url string) (checkpoint.Store, error) {
	if name, ok := drive.Parse(url); ok {
		store, err := p.openDrive(ctx, name)
		if err != nil {
			return nil, &storeAccessError{err}
		}
		return store, nil
	}
	path, ok := folder.Parse(url)
	if !ok {
		return nil, &magics.Problem{
			What: "open the store " + url,
			Err:  errors.New("this is no address of a store"),
			Hint: "give --store a folder, /path or file:/path, or a folder in Google Drive, drive:Folder/Sub",
		}
	}
	store, err := folder.New(path)
	if err != nil {
		return nil, &storeAccessError{err}
	}
	return checkpoint.WithRetry(store, checkpoint.RetryPolicy{}), nil
}

// openDrive opens a folder in Google Drive. What it remembers of ids and
// unfinished uploads is kept on this machine.
func (p *program) openDrive(ctx context.Context, name string) (*drive.Store, error) {
	cfg := p.driveConfig(name)
	sum := sha256.Sum256([]byte(name))
	cfg.Journal = filepath.Join(p.env.cacheDir(), "drive", hex.EncodeToString(sum[:8])+".journal")
	return drive.New(ctx, cfg)
}

func (p *program) driveConfig(name string) drive.Config {
	home, err := os.UserHomeDir()
	if err != nil {
		home = "" // credentials are then looked for elsewhere
	}
	cfg := drive.FromEnvironment(p.env.lookup, home)
	cfg.Folder, cfg.Log, cfg.SignIn = name, p.logger(), p.env.signInFile()
	return cfg
}

// closeStore lets go of a store. What a close could not write only costs time.
func (p *program) closeStore(store checkpoint.Store) {
	if c, ok := store.(io.Closer); ok {
		if err := c.Close(); err != nil {
			p.logger().Warn("store not closed", "error", err)
		}
	}
}

// defaultStore returns the store of runs that name none: Google Drive if
// somebody is signed in, else a Drive that is mounted, else none.
//
// Credentials that are there and are no good make it Google Drive all the same,
// which then cannot be opened, and says why: who has named them counts on copies,
// and a run without any would be found out when its machine is gone.
func (p *program) defaultStore(ctx context.Context) string {
	name, _ := drive.Parse(defaultDrive)
	if p.signedIn() {
		// Without a journal, which is for whoever writes there.
		store, err := drive.New(ctx, p.driveConfig(name))
		if err == nil {
			p.closeStore(store)
		}
		if !errors.Is(err, drive.ErrNoCredentials) {
			return defaultDrive
		}
	}
	if p.mount == "" {
		return ""
	}
	mine := filepath.Join(p.mount, "MyDrive")
	if info, err := os.Stat(mine); err == nil && info.IsDir() {
		return filepath.Join(mine, "Outlast")
	}
	return ""
}

// signedIn reports whether somebody has named credentials or has signed in with
// a browser, or this is Colab. A
// machine of Google's that is no Colab has an account of its own, which has no
// room in Drive: it is not taken unasked.
func (p *program) signedIn() bool {
	if p.env.host() == magics.HostColab {
		return true
	}
	for _, name := range []string{"GOOGLE_APPLICATION_CREDENTIALS", "OUTLAST_DRIVE_ENDPOINT"} {
		if p.env.get(name) != "" {
			return true
		}
	}
	_, err := os.Stat(p.env.signInFile())
	return err == nil
}

// space says whose store it is and how full, as far as the store knows.
func (p *program) space(ctx context.Context, store checkpoint.Store) (magics.Space, error) {
	d, ok := store.(*drive.Store)
	if !ok {
		return magics.Space{}, errors.ErrUnsupported
	}
	about, err := d.About(ctx)
	return magics.Space{Account: about.Account, By: d.SignedInBy(), Limit: about.Limit, Usage: about.Usage, Trash: about.Trash}, err
}
