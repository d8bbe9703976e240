package magics

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"outlast/checkpoint"
	"outlast/training"
)

// noStore is what --store and %drive use take for "keep no copies".
const noStore = "none"

// Space says whose store it is and how full.
type Space struct {
	Account             string // e-mail address
	By                  string // what makes it ours to open, such as a sign-in
	Limit, Usage, Trash int64  // bytes; a limit of 0 means none
}

// Drive returns %drive: where copies of checkpoints go, and what waits for it.
func Drive(d *Deps) *Magic {
	m := &Magic{
		Name:  "drive",
		Verb:  "drive",
		Args:  "[status | auth | mount | use URL]",
		Short: "Show the store of checkpoints, sign in to Google Drive, mount it, choose a store",
		Line:  true,
	}
	m.Hands = func(args string) bool {
		return slices.ContainsFunc(strings.Fields(args), func(word string) bool { return word == "auth" || word == "mount" })
	}
	m.Bind = func(fs *pflag.FlagSet) func(context.Context, *Call) error {
		dir := d.dirFlag(fs)
		client := fs.String("client", "", "with auth: `FILE` of an OAuth client, from Google's console; remembered")
		paste := fs.Bool("paste", false, "with auth: open no browser here, and ask for the address it was led to")
		return func(ctx context.Context, c *Call) error {
			word := "status"
			if len(c.Args) > 0 {
				word = c.Args[0]
			}
			if len(c.Args) != 1 && word != "use" && len(c.Args) > 0 || word == "use" && len(c.Args) != 2 {
				return &UsageError{m, "it takes " + m.Args}
			}
			if (*client != "" || *paste) && word != "auth" {
				return &UsageError{m, "--client and --paste go with auth"}
			}
			switch word {
			case "status":
				c.Screen.Show(factsView(d.driveFacts(ctx, *dir)))
				return nil
			case "auth":
				return d.auth(ctx, c, *client, *paste)
			case "mount":
				return d.mount(ctx, c)
			case "use":
				return d.use(ctx, c, c.Args[1])
			}
			return &UsageError{m, "it takes " + m.Args + ", not " + word}
		}
	}
	return m
}

// use makes url the store of runs that name none, after a look whether it can
// be opened.
func (d *Deps) use(ctx context.Context, c *Call, url string) error {
	if c.Notebook == nil {
		return &Problem{"choose a store", errors.New("there is no notebook to remember it"), "name it at each call: --store " + url}
	}
	if url != noStore {
		url = d.nearby(ctx, c.Notebook).store(url)
		store, err := d.OpenStore(ctx, url)
		if err != nil {
			return err
		}
		d.CloseStore(store)
	}
	d.Session.useStore(url)
	fmt.Fprintf(c.Stdout, "Runs that name no store now use: %s.\n", url)
	return nil
}

// defaultStore returns the store of a run that names none; "" if there is none.
func (d *Deps) defaultStore(ctx context.Context) string {
	switch chosen := d.Session.store(); chosen {
	case "":
		return d.DefaultStore(ctx)
	case noStore:
		return ""
	default:
		return chosen
	}
}

func (d *Deps) driveFacts(ctx context.Context, dir string) []fact {
	url := d.defaultStore(ctx)
	if url == "" {
		return append([]fact{{"Store", "none: runs that name none stay on this machine. --store URL or %drive use URL names one, and " +
			"drive:Outlast is one as soon as you are signed in to Google"}}, d.waiting(dir)...)
	}
	facts := []fact{{"Store", url + ", for runs that name none"}}
	store, err := d.OpenStore(ctx, url)
	if err != nil {
		return append(facts, fact{"Problem", withCure(err)})
	}
	defer d.CloseStore(store)
	space, err := d.Space(ctx, store)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		facts = append(facts, fact{"Kind", "a folder: what is there is called handed, as nobody confirms more"})
	case err != nil:
		facts = append(facts, fact{"Problem", withCure(err)})
	default:
		facts = append(facts, fact{"Signed in", signedInAs(space)}, fact{"Room", room(space)})
	}
	return append(facts, d.waiting(dir)...)
}

// signedInAs says who is signed in, and by what.
func signedInAs(s Space) string { return strings.TrimPrefix(s.Account+", by "+s.By, ", ") }

func withCure(err error) string {
	text := err.Error()
	if cure := CureOf(err); cure != "" {
		text += " → " + cure
	}
	return text
}

// room writes how full a store is. The trash counts: people forget it.
func room(s Space) string {
	text := mebibytes(s.Usage>>20) + " in use"
	if s.Limit > 0 {
		text = fmt.Sprintf("%s free of %s", mebibytes(max(s.Limit-s.Usage, 0)>>20), mebibytes(s.Limit>>20))
	}
	if s.Trash > 0 {
		text += fmt.Sprintf("; %s of it lie in the trash, which counts until it is emptied", mebibytes(s.Trash>>20))
	}
	return text
}

// waiting says of each run with a store what is not there yet.
func (d *Deps) waiting(dir string) []fact {
	names, err := training.List(dir)
	if err != nil {
		return []fact{{"Problem", err.Error()}}
	}
	var facts []fact
	for _, name := range names {
		run, err := training.Find(dir, name)
		if err != nil {
			continue // %status says what is wrong with it
		}
		if status, err := run.Status(); err == nil && status.Store != "" {
			facts = append(facts, fact{"Run " + name, unsent(status)})
		}
	}
	return facts
}

// unsent says how many newest checkpoints of a run its store does not have, and
// since when.
func unsent(s training.Status) string {
	waiting, sent := 0, 0
	var oldest time.Time
	for _, m := range s.Models {
		if m.Checkpoint == nil {
			continue
		}
		if m.Checkpoint.Durability != string(checkpoint.Local) {
			sent++
			continue
		}
		waiting++
		if info, err := os.Stat(filepath.Join(m.Checkpoint.Path, checkpoint.ManifestName)); err == nil && (oldest.IsZero() || info.ModTime().Before(oldest)) {
			oldest = info.ModTime()
		}
	}
	if waiting == 0 {
		return fmt.Sprintf("%s has the newest checkpoint of each model that has one, %d in all", s.Store, sent)
	}
	text := fmt.Sprintf("%d of %d newest checkpoints are not in %s yet", waiting, waiting+sent, s.Store)
	if !oldest.IsZero() {
		text += ", the oldest since " + span(time.Since(oldest).Seconds())
	}
	return text
}
