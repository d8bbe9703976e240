package drive

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"google.golang.org/api/googleapi"
)

// A verdict is what to do about an error.
type verdict int

// What Drive's answers come to.
const (
	passing   verdict = iota // a lost connection, a server's error: try again
	limited                  // too many requests: slow down, then try again
	full                     // no room: wait until there is some
	signedOut                // the token is not accepted: get another one, once
	forbidden                // the credentials or the account do not allow it
	gone                     // there is no such object, folder or upload
	taken                    // the id is in use
	refused                  // the request is wrong
)

// reasonOf returns the reason that Drive gives, and where it has one, the
// parameter that it is about. What is no JSON has none.
func reasonOf(e *googleapi.Error) (reason string) {
	for _, item := range e.Errors {
		if item.Reason != "" {
			return item.Reason
		}
	}
	return ""
}

// judge classifies the error of one request.
func judge(err error) verdict {
	if answer, ok := errors.AsType[*googleapi.Error](err); ok {
		return judgeAnswer(answer)
	}
	if token, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		if token.ErrorCode != "" || token.Response != nil && token.Response.StatusCode < 500 && token.Response.StatusCode != http.StatusTooManyRequests {
			return forbidden // invalid_grant and its like: the permission was withdrawn
		}
		return passing
	}
	if _, ok := errors.AsType[*AccessError](err); ok {
		return forbidden
	}
	return passing // the network: whatever it says, the next connection may work
}

func judgeAnswer(e *googleapi.Error) verdict {
	switch reason := reasonOf(e); reason {
	case "rateLimitExceeded", "userRateLimitExceeded", "sharingRateLimitExceeded":
		return limited
	case "storageQuotaExceeded", "quotaExceeded", "teamDriveFileLimitExceeded":
		return full
	}
	switch {
	case e.Code == http.StatusTooManyRequests:
		return limited
	case e.Code == http.StatusRequestTimeout || e.Code >= 500:
		return passing
	case e.Code == http.StatusUnauthorized:
		return signedOut
	case e.Code == http.StatusForbidden:
		return forbidden
	case e.Code == http.StatusNotFound || e.Code == http.StatusGone:
		return gone
	case e.Code == http.StatusConflict:
		return taken
	}
	return refused
}

// retryAfter returns how long the server wants to be left alone, 0 if it has not
// said.
func retryAfter(err error, now time.Time) time.Duration {
	var answer *googleapi.Error
	if !errors.As(err, &answer) || answer.Header == nil {
		return 0
	}
	value := answer.Header.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil {
		return min(max(time.Duration(seconds)*time.Second, 0), longestRetryAfter)
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(at.Sub(now), 0), longestRetryAfter)
	}
	return 0
}

// clean takes what must not be seen out of an error: the address of an upload
// is all that anybody needs to write to it.
func clean(err error) error {
	if where, ok := errors.AsType[*url.Error](err); ok {
		return where.Err
	}
	return err
}

// explain makes an error that the user understands of one that is final.
func explain(what string, err error) error {
	var answer *googleapi.Error
	var token *oauth2.RetrieveError
	var problem *AccessError
	switch {
	case errors.As(err, &problem):
		return problem
	case errors.As(err, &token):
		return &AccessError{what, errors.New("Google has withdrawn or does not know the permission (" + token.ErrorCode + ")"), withdrawnHint}
	case !errors.As(err, &answer):
		return &AccessError{what, clean(err), "check the network; it is tried again"}
	}
	why := errors.New(strings.TrimSpace(answer.Message))
	if answer.Message == "" {
		why = errors.New(http.StatusText(answer.Code))
	}
	why = &apiError{why.Error(), answer}
	switch reason := reasonOf(answer); {
	case answer.Code == http.StatusUnauthorized:
		return &AccessError{what, why, signInHint}
	case reason == "insufficientPermissions" || scopeMissing(answer):
		return &AccessError{what, why, "the sign-in does not cover Drive; " + signInHint}
	case reason == "accessNotConfigured":
		return &AccessError{what, why, "enable the Google Drive API in the Google Cloud project of these credentials"}
	case reason == "appNotAuthorizedToFile" || reason == "insufficientFilePermissions":
		return &AccessError{what, why, "it belongs to another program or person: choose another folder with --store"}
	case reason == "domainPolicy":
		return &AccessError{what, why, "the administrator of this account forbids it: use another account, or a folder as --store"}
	case reason == "dailyLimitExceeded":
		return &AccessError{what, why, "the daily limit of the Google Cloud project is used up: it is tried again"}
	case strings.Contains(reason, "Limit") || strings.Contains(reason, "TooDeep"):
		return &AccessError{what, why, "choose another folder with --store"}
	}
	return &AccessError{what, why, "it is tried again; if it lasts, choose another --store"}
}

// apiError is Drive's answer without the addresses and bodies that
// googleapi.Error prints.
type apiError struct {
	text string
	err  *googleapi.Error
}

func (e *apiError) Error() string {
	if reason := reasonOf(e.err); reason != "" {
		return e.text + " (" + strconv.Itoa(e.err.Code) + " " + reason + ")"
	}
	return e.text + " (" + strconv.Itoa(e.err.Code) + ")"
}

// Unwrap returns the answer as Google's client has it.
func (e *apiError) Unwrap() error { return e.err }

func scopeMissing(e *googleapi.Error) bool {
	for _, detail := range e.Details {
		if info, ok := detail.(map[string]any); ok && info["reason"] == "ACCESS_TOKEN_SCOPE_INSUFFICIENT" {
			return true
		}
	}
	return false
}

// interrupted reports whether err is only our own context's end.
func interrupted(ctx context.Context, err error) bool { return err != nil && ctx.Err() != nil }
