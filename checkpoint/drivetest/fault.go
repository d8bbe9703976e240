package drivetest

import (
	"io"
	"net/http"
	"strconv"
	"time"
)

// An Op is what a request is for.
type Op string

// The operations that are known.
const (
	OpAbout    Op = "about.get"
	OpIDs      Op = "files.generateIds"
	OpList     Op = "files.list"
	OpGet      Op = "files.get"
	OpDownload Op = "files.get media"
	OpMake     Op = "files.create" // without content
	OpCreate   Op = "files.create multipart"
	OpOpen     Op = "files.create resumable"
	OpSend     Op = "upload bytes"
	OpAsk      Op = "upload status"
	OpUpdate   Op = "files.update"
	OpCopy     Op = "files.copy"
	OpDelete   Op = "files.delete"
	OpToken    Op = "token"
	OpConsent  Op = "consent" // the page where a person is asked
)

// A Kind is a way to fail.
type Kind string

// The ways to fail. Those that say so are for some operations only; others
// pass unharmed.
const (
	RateLimit       Kind = "403 rateLimitExceeded"
	UserRateLimit   Kind = "403 userRateLimitExceeded"
	TooMany         Kind = "429"
	ServerError     Kind = "500"
	BadGateway      Kind = "502 in HTML"
	Unavailable     Kind = "503 in plain text"
	Drop            Kind = "connection closed before"
	Lose            Kind = "connection closed after" // it was done all the same
	TornAnswer      Kind = "half an answer"          // likewise
	Unauthorized    Kind = "401"
	Cut             Kind = "connection closed in the middle" // OpSend: some of it is kept; OpDownload
	Short           Kind = "less kept than sent"             // OpSend
	LoseBytes       Kind = "less kept than was confirmed"    // OpAsk
	Expire404       Kind = "session 404"                     // OpSend, OpAsk
	Expire410       Kind = "session 410"                     // OpSend, OpAsk
	Stall           Kind = "nothing at all"                  // until the client hangs up
	StallAfter      Kind = "nothing after it was done"       // likewise
	StallMiddle     Kind = "nothing from the middle on"      // OpSend, OpDownload
	Flip            Kind = "one bit differs"                 // OpDownload; OpSend, OpCreate: what is kept
	OtherHost       Kind = "session on another host"         // OpOpen
	BadPage         Kind = "page token refused"              // OpList
	Incomplete      Kind = "incomplete search"               // OpList
	Full            Kind = "403 storageQuotaExceeded"
	FullService     Kind = "403 storageQuotaExceeded of a service account"
	FullOld         Kind = "403 quotaExceeded"
	NoScope         Kind = "403 insufficientPermissions"
	DailyLimit      Kind = "403 dailyLimitExceeded"
	DomainPolicy    Kind = "403 domainPolicy"
	NotYours        Kind = "403 appNotAuthorizedToFile"
	TooManyChildren Kind = "403 numChildrenInNonRootLimitExceeded"
	NotEnabled      Kind = "403 accessNotConfigured"
	StaleID         Kind = "400 id not usable" // OpMake, OpCreate, OpOpen
)

// A Fault makes requests fail.
type Fault struct {
	Op         Op            // of the requests; empty means any
	Kind       Kind          //
	Skip       int           // so many requests pass first
	Times      int           // then so many fail; 0 means one
	RetryAfter time.Duration // what TooMany and Unavailable ask for, in whole seconds
}

// Inject adds a fault. Faults that were added earlier come first.
func (s *Server) Inject(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range faults {
		if f.Times == 0 {
			f.Times = 1
		}
		s.faults = append(s.faults, &f)
	}
}

// Injected returns how many requests failed in a way, or in any if kind is empty.
func (s *Server) Injected(kind Kind) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if kind != "" {
		return s.injected[kind]
	}
	sum := 0
	for _, n := range s.injected {
		sum += n
	}
	return sum
}

// Stalled returns a channel that is closed once a request has come to a stop.
func (s *Server) Stalled() <-chan struct{} { return s.stalled }

// halt says so.
func (s *Server) halt() { s.stallOnce.Do(func() { close(s.stalled) }) }

// nextFault decides whether a request fails. The caller holds the lock.
func (s *Server) nextFault(op Op, _ *http.Request) Fault {
	for _, f := range s.faults {
		if f.Times == 0 || f.Op != "" && f.Op != op {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		f.Times--
		s.injected[f.Kind]++
		return *f
	}
	if s.opts.Percent == 0 || op == OpToken || op == OpConsent || s.random.IntN(100) >= s.opts.Percent {
		return Fault{}
	}
	kinds := []Kind{RateLimit, UserRateLimit, TooMany, ServerError, BadGateway, Unavailable, Drop, Lose, TornAnswer}
	switch op {
	case OpSend:
		kinds = append(kinds, Cut, Cut, Short, Short, Expire404, Flip)
	case OpAsk:
		kinds = append(kinds, Expire410, LoseBytes)
	case OpDownload:
		kinds = append(kinds, Cut, Cut, Cut)
	case OpCreate:
		kinds = append(kinds, Flip)
	case OpList:
		kinds = append(kinds, BadPage)
	}
	kind := kinds[s.random.IntN(len(kinds))]
	s.injected[kind]++
	return Fault{Kind: kind}
}

// A call is one request being served.
type call struct {
	server *Server
	op     Op
	id     string
	w      http.ResponseWriter
	r      *http.Request
	fault  Fault
}

// answers are the refusals that need no state.
func (f Fault) answer() *apiError {
	switch f.Kind {
	case RateLimit:
		return errRate("rateLimitExceeded", "Rate Limit Exceeded", http.StatusForbidden)
	case UserRateLimit:
		return errRate("userRateLimitExceeded", "User Rate Limit Exceeded", http.StatusForbidden)
	case TooMany:
		return errRate("rateLimitExceeded", "Rate Limit Exceeded", http.StatusTooManyRequests)
	case ServerError:
		return &apiError{code: 500, domain: "global", reason: "internalError", message: "Internal Error"}
	case BadGateway:
		return &apiError{code: 502, raw: "<!DOCTYPE html>\n<html lang=en><title>Error 502 (Server Error)!!1</title>", rawType: "text/html; charset=UTF-8"}
	case Unavailable:
		return &apiError{code: 503, raw: "Service Unavailable", rawType: "text/plain"}
	case Unauthorized:
		return errAuth()
	case Full:
		return errQuota()
	case FullService:
		return errServiceQuota()
	case FullOld:
		return &apiError{code: 403, domain: "usageLimits", reason: "quotaExceeded", message: "The user has exceeded their Drive storage quota"}
	case NoScope:
		return errScope()
	case DailyLimit:
		return &apiError{code: 403, domain: "usageLimits", reason: "dailyLimitExceeded", message: "Daily Limit Exceeded"}
	case DomainPolicy:
		return &apiError{code: 403, domain: "global", reason: "domainPolicy", message: "The domain administrators have disabled Drive apps."}
	case NotYours:
		return &apiError{code: 403, domain: "global", reason: "appNotAuthorizedToFile", message: "The user has not granted the app access to the file."}
	case TooManyChildren:
		return &apiError{
			code: 403, domain: "global", reason: "numChildrenInNonRootLimitExceeded",
			message: "The limit for this folder's number of children (files and folders) has been exceeded.",
		}
	case NotEnabled:
		return &apiError{code: 403, domain: "usageLimits", reason: "accessNotConfigured", message: "Google Drive API has not been used in project 1 before or it is disabled."}
	}
	return nil
}

// before does what a fault does before the request is looked at. It reports
// whether that was all.
func (c *call) before() bool {
	switch c.fault.Kind {
	case Drop:
		panic(http.ErrAbortHandler)
	case Stall:
		c.stall()
	}
	e := c.fault.answer()
	if e == nil {
		return false
	}
	io.Copy(io.Discard, io.LimitReader(c.r.Body, 1<<20)) //nolint:errcheck // as a server that is polite
	if c.fault.RetryAfter > 0 {
		c.w.Header().Set("Retry-After", strconv.Itoa(int(c.fault.RetryAfter.Seconds())))
	}
	e.write(c.w)
	return true
}

// stall does nothing until the client hangs up.
func (c *call) stall() {
	c.server.halt()
	io.Copy(io.Discard, c.r.Body) //nolint:errcheck // only then is a lost connection noticed
	<-c.r.Context().Done()
	panic(http.ErrAbortHandler)
}

// after sends the answer, as far as a fault lets it.
func (c *call) after(a *answer) {
	switch c.fault.Kind {
	case Lose:
		panic(http.ErrAbortHandler)
	case StallAfter:
		c.stall()
	case TornAnswer:
		a.torn = true
	}
	a.write(c.w)
}
