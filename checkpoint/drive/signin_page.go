package drive

import (
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
)

// maxPasted bounds an address that is pasted.
const maxPasted = 16 << 10

// handler serves what a sign-in has to show: the way to Google, the way back,
// and a place for the address that was pasted into a notebook.
func (s *SignIn) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /start/{ticket}", s.serveStart)
	mux.HandleFunc("GET /{$}", s.serveBack)
	mux.HandleFunc("POST /paste", s.servePaste)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Addresses here have secrets in them, which go nowhere else.
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Referrer-Policy", "no-referrer")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		mux.ServeHTTP(w, r)
	})
}

func (s *SignIn) serveStart(w http.ResponseWriter, r *http.Request) {
	if r.PathValue("ticket") != s.ticket {
		http.NotFound(w, r)
		return
	}
	if !s.started.CompareAndSwap(false, true) {
		page(w, http.StatusGone, "This address was used already", "Open the link that the notebook shows.")
		return
	}
	http.Redirect(w, r, s.Link(), http.StatusFound)
}

// serveBack is where Google leads the browser back to.
func (s *SignIn) serveBack(w http.ResponseWriter, r *http.Request) {
	if !s.ours(r.URL.Query()) {
		page(w, http.StatusBadRequest, "This is no answer to the sign-in that waits", "Open the link that the notebook shows last.")
		return
	}
	s.answer(r.URL.Query())
	<-s.done
	if s.err != nil {
		page(w, http.StatusOK, "Outlast is not signed in", s.err.Error())
		return
	}
	page(w, http.StatusOK, "Outlast is signed in", "as "+s.account+". You can close this page.")
}

// servePaste takes an address from the notebook's Python, and says how it went:
// an empty one asks only.
func (s *SignIn) servePaste(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(io.LimitReader(r.Body, maxPasted))
	if err == nil {
		err = s.settle(string(text))
	}
	var said struct {
		Account string `json:"account"`
		Error   string `json:"error"`
	}
	said.Account = s.account
	if err != nil {
		said.Account, said.Error = "", err.Error()
		if cure, ok := err.(interface{ Cure() string }); ok {
			said.Error += ". To do: " + cure.Cure()
		}
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(said) //nolint:errcheck // the notebook was interrupted, then
}

// settle takes what was pasted and waits for what comes of it.
func (s *SignIn) settle(pasted string) error {
	select {
	case <-s.done: // the browser has come back by itself, through a tunnel
		return s.err
	default:
	}
	if err := s.Paste(pasted); err != nil {
		return err
	}
	<-s.done
	return s.err
}

// page answers the browser with a few words.
func page(w http.ResponseWriter, code int, title, text string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	fmt.Fprintf(w, "<!DOCTYPE html><meta charset=utf-8><title>%[1]s</title>"+
		"<body style='font-family:sans-serif;margin:4em auto;max-width:40em'><h1>%[1]s</h1><p>%[2]s</p>",
		html.EscapeString(title), html.EscapeString(text))
}
