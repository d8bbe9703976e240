// Command fakedrive serves a Drive for tests, for clients that are not written
// in Go. It prints its address as the first line, and ends with its standard
// input. GET /violations lists, one a line, what Drive would have refused, and GET
// /secrets every token that it has given out.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"outlast/checkpoint/drivetest"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "fakedrive:", err)
		os.Exit(1)
	}
}

func run() error {
	var o drivetest.Options
	flags := flag.NewFlagSet("fakedrive", flag.ContinueOnError)
	flags.IntVar(&o.Percent, "faults", 0, "percentage of requests that fail")
	flags.Uint64Var(&o.Seed, "seed", 1, "of everything random")
	flags.DurationVar(&o.Lag, "lag", 0, "until queries for names see a change")
	flags.DurationVar(&o.ListLag, "list-lag", 0, "until queries for parents see a change")
	flags.Int64Var(&o.Limit, "limit", 0, "bytes of storage; 0 means no limit")
	flags.IntVar(&o.PageSize, "page", 0, "most files on a page")
	flags.BoolVar(&o.Auth, "auth", false, "want tokens, which POST /token gives")
	client := flags.String("client", "", "`FILE` of the only OAuth client that is known, as Google's console gives it")
	addr := flags.String("addr", "127.0.0.1:0", "address to listen on")
	if err := flags.Parse(os.Args[1:]); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "fakedrive-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is a temporary folder
	o.Dir = dir
	listener, err := net.Listen("tcp", *addr) //nolint:noctx // it lives as long as the program
	if err != nil {
		return err
	}
	drive := drivetest.New(o)
	if *client != "" {
		if err := register(drive, *client); err != nil {
			return err
		}
	}
	mux := http.NewServeMux()
	mux.Handle("/", drive)
	mux.HandleFunc("GET /violations", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, strings.Join(drive.Violations(), "\n")) //nolint:errcheck // the client has gone, then
	})
	mux.HandleFunc("GET /secrets", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, strings.Join(append(drive.Tokens(), drive.RefreshTokens()...), "\n")) //nolint:errcheck // the client has gone, then
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() {
		io.Copy(io.Discard, os.Stdin) //nolint:errcheck // its end is all that counts
		server.Close()                //nolint:errcheck // the program ends
	}()
	fmt.Printf("http://%s\n", listener.Addr())
	if err := server.Serve(listener); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// register has drive know the OAuth client in a file.
func register(drive *drivetest.Server, file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var in struct {
		Installed struct {
			ID     string `json:"client_id"`
			Secret string `json:"client_secret"`
		} `json:"installed"`
	}
	err = json.Unmarshal(data, &in)
	drive.Register(drivetest.Client{ID: in.Installed.ID, Secret: in.Installed.Secret})
	return err
}
