package drivetest

import (
	"encoding/json"
	"maps"
	"net/http"
)

// An apiError is a refusal, in the shape that Drive documents and real captures
// show. Servers in front of Drive answer in HTML or plain text: raw.
type apiError struct {
	code                  int
	domain                string
	reason                string
	message               string
	location, locationTyp string
	status                string
	details               []any
	text                  string // of the item, where it differs from message
	raw, rawType          string
}

func (e *apiError) write(w http.ResponseWriter) {
	if e.raw != "" {
		w.Header().Set("Content-Type", e.rawType)
		w.Header().Set("Server", "UploadServer")
		w.WriteHeader(e.code)
		w.Write([]byte(e.raw)) //nolint:errcheck // the client has gone, then
		return
	}
	item := map[string]any{"message": e.message, "domain": e.domain, "reason": e.reason}
	if e.text != "" {
		item["message"] = e.text
	}
	if e.location != "" {
		item["location"], item["locationType"] = e.location, e.locationTyp
	}
	body := map[string]any{"code": e.code, "message": e.message, "errors": []any{item}}
	if e.status != "" {
		body["status"] = e.status
	}
	if e.details != nil {
		body["details"] = e.details
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(e.code)
	json.NewEncoder(w).Encode(map[string]any{"error": body}) //nolint:errcheck // the client has gone, then
}

func errRate(reason, message string, code int) *apiError {
	return &apiError{code: code, domain: "usageLimits", reason: reason, message: message}
}

func errAuth() *apiError {
	return &apiError{
		code: http.StatusUnauthorized, domain: "global", reason: "authError", location: "Authorization", locationTyp: "header",
		status: "UNAUTHENTICATED", text: "Invalid Credentials",
		message: "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential. " +
			"See https://developers.google.com/identity/sign-in/web/devconsole-project.",
	}
}

func errQuota() *apiError {
	return &apiError{code: http.StatusForbidden, domain: "global", reason: "storageQuotaExceeded", message: "The user's Drive storage quota has been exceeded."}
}

func errServiceQuota() *apiError {
	return &apiError{
		code: http.StatusForbidden, domain: "usageLimits", reason: "storageQuotaExceeded",
		message: "Service Accounts do not have storage quota. Leverage shared drives " +
			"(https://developers.google.com/workspace/drive/api/guides/about-shareddrives), " +
			"or use OAuth delegation (http://support.google.com/a/answer/7281227) instead.",
	}
}

func errScope() *apiError {
	return &apiError{
		code: http.StatusForbidden, domain: "global", reason: "insufficientPermissions", status: "PERMISSION_DENIED",
		message: "Request had insufficient authentication scopes.", text: "Insufficient Permission",
		details: []any{map[string]any{
			"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
			"domain": "googleapis.com", "metadata": map[string]any{"service": "drive.googleapis.com"},
		}},
	}
}

func errNotFound(id string) *apiError {
	return &apiError{
		code: http.StatusNotFound, domain: "global", reason: "notFound", message: "File not found: " + id + ".",
		location: "fileId", locationTyp: "parameter",
	}
}

// errTaken: the message is Drive's; the full body is unverified.
func errTaken() *apiError {
	return &apiError{code: http.StatusConflict, domain: "global", reason: "fileIdInUse", message: "A file already exists with the provided ID."}
}

// errID: that Drive answers 400 is documented; the reason is unverified.
func errID() *apiError {
	return &apiError{
		code: http.StatusBadRequest, domain: "global", reason: "invalid", message: "The provided file ID is not usable.",
		location: "file.id", locationTyp: "other",
	}
}

func errParameter(name string) *apiError {
	return &apiError{code: http.StatusBadRequest, domain: "global", reason: "invalidParameter", message: "Unknown parameter " + name, location: name, locationTyp: "parameter"}
}

func errFields(name string) *apiError {
	return &apiError{
		code: http.StatusBadRequest, domain: "global", reason: "invalidParameter", message: "Invalid field selection " + name,
		location: "fields", locationTyp: "parameter",
	}
}

func errValue(parameter string) *apiError {
	return &apiError{code: http.StatusBadRequest, domain: "global", reason: "invalid", message: "Invalid Value", location: parameter, locationTyp: "parameter"}
}

func errBad(message string) *apiError {
	return &apiError{code: http.StatusBadRequest, domain: "global", reason: "badRequest", message: message}
}

// errOffset is what a client gets that sends from where it thinks, and not from
// where Drive is: seen live.
func errOffset(sent, has string) *apiError {
	return &apiError{
		code: http.StatusServiceUnavailable, rawType: "text/plain",
		raw: "Invalid request.  According to the Content-Range header, the upload offset is " + sent +
			" byte(s), which exceeds already uploaded size of " + has + " byte(s).",
	}
}

// An answer is a success.
type answer struct {
	code   int
	body   any // JSON; nil: none
	header http.Header
	torn   bool   // half of it is sent
	send   func() // sends content instead of body; nil: there is none
}

func (a *answer) write(w http.ResponseWriter) {
	maps.Copy(w.Header(), a.header)
	if a.send != nil {
		w.WriteHeader(a.code)
		a.send()
		return
	}
	if a.body == nil {
		if a.code != http.StatusPermanentRedirect {
			w.Header().Set("Content-Type", "text/html")
		}
		w.WriteHeader(a.code)
		return
	}
	data, err := json.Marshal(a.body)
	if err != nil {
		panic(err) // a fault of this package
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	if a.torn {
		w.WriteHeader(a.code)
		w.Write(data[:len(data)/2])           //nolint:errcheck // it is to break
		http.NewResponseController(w).Flush() //nolint:errcheck // likewise
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(a.code)
	w.Write(data) //nolint:errcheck // the client has gone, then
}
