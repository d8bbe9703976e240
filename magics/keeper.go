package magics

import (
	"context"
	_ "embed"
	"fmt"
	"html"
	"slices"
	"strings"
	"sync"
	"time"

	"outlast/training"
)

//go:embed keepalive.js
var keepaliveScript string

const (
	// beatInterval is how often the kernel and the page show a sign of life while
	// a run works. Idle cullers count in minutes.
	beatInterval = 60 * time.Second
	// watchInterval is how often the page looks at its connection.
	watchInterval = 30 * time.Second
	// lookInterval is how often we look which runs work: the kernel is busy
	// exactly as long as one does.
	lookInterval = 2 * time.Second
)

// keeper is the one keep-alive of a notebook.
type keeper struct {
	deps *Deps

	mu    sync.Mutex
	state keptAlive
	end   func() // stops the watching; nil if there is none
}

// keptAlive is what the card and the status tell.
type keptAlive struct {
	since    time.Time
	until    time.Time // zero: no limit
	runs     []string  // that work now
	beat     time.Time // the kernel's last sign of life; zero: none yet
	seen     time.Time // the page's
	callback bool      // the page can reach us
}

func (k *keeper) note(f func(*keptAlive)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f(&k.state)
}

func (k *keeper) now() (s keptAlive, on bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state, k.end != nil
}

// page notes that a page gave a sign of life.
func (k *keeper) page() { k.note(func(s *keptAlive) { s.seen = time.Now() }) }

func (k *keeper) stop() {
	k.mu.Lock()
	end := k.end
	k.end = nil
	k.mu.Unlock()
	if end != nil {
		end()
	}
}

// watch keeps the kernel busy while a run works, and updates the card. The
// messages name the %keepalive request as their parent, so that servers count
// them as activity. Without a run it stays silent and idle, so that a notebook
// that does nothing is culled as its owner wished.
func (k *keeper) watch(ctx context.Context, live Live, dir string, working func(bool)) {
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	busy := false
	defer func() {
		if busy {
			working(false)
		}
	}()
	for {
		runs := workingRuns(dir)
		s, _ := k.now()
		now := time.Now()
		over := !s.until.IsZero() && now.After(s.until)
		if over {
			runs = nil
		}
		news := !slices.Equal(runs, s.runs)
		if on := len(runs) > 0; on != busy {
			busy = on
			working(on)
		}
		if news || busy && now.Sub(s.beat) >= beatInterval {
			k.note(func(s *keptAlive) {
				s.runs = runs
				if busy {
					s.beat = now
				}
			})
			live.Update(k.card())
		}
		if over {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}

// workingRuns names the runs in dir that a supervisor works off.
func workingRuns(dir string) []string {
	names, err := training.List(dir)
	if err != nil {
		return nil // no data directory yet, or none that can be read: no runs
	}
	var working []string
	for _, name := range names {
		run, err := training.Find(dir, name)
		if err != nil {
			continue
		}
		if status, err := run.Status(); err == nil && status.State == training.RunRunning {
			working = append(working, name)
		}
	}
	slices.Sort(working)
	return working
}

// fact is one line of the card.
type fact struct{ label, text string }

func (k *keeper) facts() []fact {
	s, on := k.now()
	state := "off. %keepalive switches it on"
	switch {
	case on && !s.until.IsZero() && time.Now().After(s.until):
		state = "over since " + clock(s.until)
	case on && len(s.runs) > 0:
		state = "on, and the kernel is busy as long as this works: " + strings.Join(s.runs, ", ")
	case on:
		state = "on; nothing works now, so the kernel is idle, as it should be"
	}
	helps, cannot := k.deps.Host.protection()
	return []fact{
		{"Keep-alive", state},
		{"Host", string(k.deps.Host) + k.age()},
		{"Protects", helps},
		{"Cannot be helped", cannot},
	}
}

// age says how old the machine is, and what is left of a limit that is known.
func (k *keeper) age() string {
	if k.deps.MachineAge == nil {
		return ""
	}
	age, err := k.deps.MachineAge()
	if err != nil {
		return ""
	}
	text := "; this machine is up for " + span(age.Seconds())
	limit := k.deps.Host.limit()
	switch {
	case limit == 0:
		return text
	case age >= limit:
		return fmt.Sprintf("%s, beyond the usual limit of %s", text, span(limit.Seconds()))
	}
	return fmt.Sprintf("%s, and %s are left to the usual limit of %s", text, span((limit - age).Seconds()), span(limit.Seconds()))
}

// card is what %keepalive shows. The script goes into the same output, so that
// it ends with it; without it the card says the same.
func (k *keeper) card() View {
	v := factsView(k.facts())
	v.HTML = `<div class="outlast-keepalive">` + v.HTML +
		`<div class="outlast-connection" role="status" aria-live="polite" style="padding:0 12px"></div></div>` + k.script()
	return v
}

// status is what %keepalive status shows: what was done, and what was seen of it.
func (k *keeper) status() View {
	s, on := k.now()
	facts := k.facts()
	if on {
		facts = append(facts, fact{"Since", clock(s.since)})
	}
	facts = append(facts,
		fact{"Kernel's last sign of life", orNever(s.beat, "none was needed yet: no run has worked")},
		fact{"Page's last sign of life", orNever(s.seen, k.unseen(s))})
	return factsView(facts)
}

// unseen says why no page was heard of.
func (k *keeper) unseen(s keptAlive) string {
	if k.deps.Host != HostColab {
		return "pages of this host cannot reach the kernel; the card shows what the page itself sees"
	}
	if !s.callback {
		return "none: google.colab could not be reached"
	}
	return "none yet"
}

func orNever(t time.Time, otherwise string) string {
	if t.IsZero() {
		return otherwise
	}
	return clock(t)
}

func clock(t time.Time) string { return t.Format(time.TimeOnly) }

func factsView(facts []fact) View {
	var text, page strings.Builder
	page.WriteString(`<div style="border-left:3px solid currentColor;padding:2px 12px;line-height:1.5">`)
	for _, f := range facts {
		fmt.Fprintf(&text, "%s: %s.\n", f.label, f.text)
		fmt.Fprintf(&page, "<div><b>%s:</b> %s.</div>", html.EscapeString(f.label), html.EscapeString(f.text))
	}
	page.WriteString("</div>")
	return View{Text: strings.TrimRight(text.String(), "\n"), HTML: page.String()}
}

// Untouched says which runs go on although the notebook's Python has ended; ""
// if none works.
func (d *Deps) Untouched() string {
	runs := workingRuns(d.Dir)
	if len(runs) == 0 {
		return ""
	}
	return "Not touched, and still in training: " + strings.Join(runs, ", ") + ". %attach shows it."
}
