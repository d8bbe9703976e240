package drive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/oauth2"

	"outlast/checkpoint/durable"
)

// lockPause is between two tries to be the one who renews a sign-in.
const lockPause = 50 * time.Millisecond

// A storedSignIn is what is kept of a sign-in with a browser. Google's own tools
// read such a file too.
type storedSignIn struct {
	Type string `json:"type"` // authorized_user
	desktopClient
	RefreshToken string    `json:"refresh_token"`
	Account      string    `json:"account,omitempty"` // e-mail address
	Created      time.Time `json:"created"`
}

func readSignIn(file string) (s storedSignIn, err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return s, err
	}
	if json.Unmarshal(data, &s) != nil {
		return s, &AccessError{"read the sign-in in " + file, errors.New("it is damaged"), signInHint}
	}
	return s, nil
}

// save writes s so that only this user can read it: whoever has it has their
// Drive, as far as Outlast sees it.
func (s storedSignIn) save(file string) error {
	s.Type = "authorized_user"
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the sign-in: %w", err)
	}
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keep the sign-in: %w", err)
	}
	f, err := os.CreateTemp(dir, filepath.Base(file)+durable.TempMark) // for its owner only
	if err != nil {
		return fmt.Errorf("keep the sign-in: %w", err)
	}
	_, err = f.Write(append(data, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = durable.Rename(f.Name(), file)
	}
	if err != nil {
		os.Remove(f.Name()) //nolint:errcheck // it could not be written, perhaps
		return fmt.Errorf("keep the sign-in: %w", err)
	}
	return nil
}

// storedTokens gets access tokens for the sign-in in a file. It reads the file
// each time: another process may have renewed it, or another person signed in.
type storedTokens struct{ file, tokenURL string }

var _ oauth2.TokenSource = storedTokens{}

// Token implements oauth2.TokenSource. Google may give a new refresh token in
// the place of the old one, which it then no longer takes: one process renews at
// a time, and keeps what it got before anything else.
func (t storedTokens) Token() (*oauth2.Token, error) {
	ctx, cancel := context.WithTimeout(context.Background(), tokenTimeout)
	defer cancel()
	lock := flock.New(t.file + ".lock")
	if held, err := lock.TryLockContext(ctx, lockPause); err == nil && held { // a folder that cannot be written to is no reason to stop
		defer lock.Unlock() //nolint:errcheck // it ends with the process
	}
	in, err := readSignIn(t.file)
	if err != nil {
		return nil, &AccessError{"sign in to Google Drive", plain(err), signInHint}
	}
	conf, err := in.config(t.tokenURL, "")
	if err != nil {
		return nil, err
	}
	token, err := conf.TokenSource(tokenClient(), &oauth2.Token{RefreshToken: in.RefreshToken}).Token()
	if err != nil {
		return nil, err
	}
	if token.RefreshToken != in.RefreshToken {
		in.RefreshToken = token.RefreshToken
		if err := in.save(t.file); err != nil {
			return nil, &AccessError{"keep the renewed sign-in", err, "make room for it, and have " + filepath.Dir(t.file) + " writable; then sign in again"}
		}
	}
	return token, nil
}
