package drive

import (
	"fmt"
	"time"
)

// An AccessError is trouble with Drive that the user can do something about.
type AccessError struct {
	What string // what failed
	Err  error  // why
	Hint string // what to do
}

func (p *AccessError) Error() string { return p.What + ": " + p.Err.Error() }

// Unwrap returns the reason.
func (p *AccessError) Unwrap() error { return p.Err }

// Cure says what to do.
func (p *AccessError) Cure() string { return p.Hint }

// A QuotaError says that Drive has no room for a file. Until there is some, Put
// returns it without sending anything, but for a look at the quota now and then.
type QuotaError struct {
	About
	Need           int64     // bytes of the file that did not fit
	Since          time.Time // when Drive said so first
	ServiceAccount bool      // these have no room of their own at all
}

func (e *QuotaError) Error() string {
	account := e.Account
	if account == "" {
		account = "this account"
	}
	if e.Missing() == 0 {
		return fmt.Sprintf("upload to Google Drive: the storage of %s is full", account)
	}
	return fmt.Sprintf("upload to Google Drive: the storage of %s is full: %s are missing", account, bytesText(e.Missing()))
}

// Missing is how many bytes must become free, 0 if Drive has not said.
func (e *QuotaError) Missing() int64 {
	if e.Limit == 0 {
		return 0
	}
	return max(e.Need-(e.Limit-e.Usage), 0)
}

// Cure says what to do.
func (e *QuotaError) Cure() string {
	if e.ServiceAccount {
		return "a service account has no storage of its own: sign in as a user"
	}
	if e.Trash > 0 {
		return fmt.Sprintf("empty the trash of Drive, which holds %s, or delete something; "+
			"checkpoints stay on this disk meanwhile, and go on by themselves", bytesText(e.Trash))
	}
	return "delete something in Drive, or choose another --store; checkpoints stay on this disk meanwhile, and go on by themselves"
}

// bytesText writes a size as people read it.
func bytesText(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d bytes", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1024 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}
