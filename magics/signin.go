package magics

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// A SignIn is a sign-in to Google Drive that waits for a person and a browser.
type SignIn interface {
	// Link is the address of Google's page, which asks the person.
	Link() string
	// Address is where that page leads the browser back to, on this machine.
	Address() string
	// Browse opens a browser; false if this machine has none.
	Browse(ctx context.Context) bool
	// Wait returns the e-mail address of who has signed in. It ends with ctx.
	Wait(ctx context.Context) (account string, err error)
}

// What Colab offers for its users' Drive. The question that it asks is the
// page's own, so it must run as a part of the cell.
const (
	colabAuth  = "from google.colab import auth as _outlast_auth; _outlast_auth.authenticate_user(); del _outlast_auth"
	colabMount = "from google.colab import drive as _outlast_drive; _outlast_drive.mount('/content/drive'); del _outlast_drive"
)

// mount has Colab's own code mount the Drive.
func (d *Deps) mount(ctx context.Context, c *Call) error {
	if d.Host != HostColab || c.Notebook == nil {
		return &Problem{
			"drive mount", errors.New("this works in a notebook on Google Colab only"),
			"keep the copies in a folder that you have, --store /path, or in Drive without a mount, --store drive:Outlast",
		}
	}
	return c.Notebook.Hand(ctx, colabMount)
}

// auth signs in to Google Drive: on Colab with its own code, elsewhere, or where
// a client is named, with a browser: one here, unless paste says that it is on
// another machine.
func (d *Deps) auth(ctx context.Context, c *Call, client string, paste bool) error {
	if d.Host == HostColab && client == "" && !paste && c.Notebook != nil {
		return c.Notebook.Hand(ctx, colabAuth)
	}
	if client != "" {
		client = d.nearby(ctx, c.Notebook).path(client)
	}
	s, err := d.SignIn(ctx, client)
	if err != nil {
		return err
	}
	opened := !paste && s.Browse(ctx)
	if opened {
		fmt.Fprint(c.Stdout, "Your browser asks now whether Outlast may keep files in your Google Drive. It will see only those it made itself.\n"+
			"If it does not, open this link in it:\n\n")
	} else {
		fmt.Fprint(c.Stdout, "Open this link in a browser, and allow Outlast to keep files in your Google Drive. It will see only those it made itself.\n\n")
	}
	fmt.Fprintf(c.Stdout, "%s\n\n", s.Link())
	if !opened {
		fmt.Fprintf(c.Stdout, "At the end it is led to %s, on this machine. A browser elsewhere cannot open that page:\n"+
			"copy its address from the browser, and paste it below.\n", s.Address())
	}
	if !opened && c.Notebook != nil {
		return c.Notebook.Hand(ctx, question(s.Address()))
	}
	account, err := s.Wait(ctx)
	if errors.Is(err, context.Canceled) {
		return &Problem{"sign in to Google Drive", errors.New("it was interrupted"), "run it again"}
	}
	if err == nil {
		fmt.Fprint(c.Stdout, signedIn(account))
	}
	return err
}

// signedIn says that it has worked.
func signedIn(account string) string {
	return "Signed in to Google Drive as " + account + ". Runs that name no store use drive:Outlast, unless %drive use names another.\n"
}

// pasting asks in Python for the address that the browser was led to, and hands it
// to the sign-in that waits. What is typed is shown nowhere and kept nowhere.
const pasting = `import getpass, json, urllib.request
pasted = getpass.getpass("Paste the address here, or only press Enter if the page said that it worked: ")
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
with opener.open(urllib.request.Request(address + "paste", data=pasted.encode())) as answer:
    said = json.load(answer)
del pasted
if said["error"]:
    raise RuntimeError(said["error"]) from None
print(signed_in.replace("\x00", said["account"]), end="")
`

// question returns the line of Python that asks. Its names are its own.
func question(address string) string {
	return "exec(" + literal(pasting) + ", " + literal(map[string]string{"address": address, "signed_in": signedIn("\x00")}) + ")"
}

// literal writes v, texts only, as both JSON and Python have it.
func literal(v any) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // texts can be encoded
	}
	return strings.TrimSpace(b.String())
}
