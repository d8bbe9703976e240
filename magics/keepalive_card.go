package magics

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html"
	"strings"
	"time"
)

//go:embed keepalive.js
var keepaliveScript string

// nearLimit is how long before the usual end of a machine the card begins to
// warn: long enough to let a model come to its end.
const nearLimit = time.Hour

// fact is one line of the card.
type fact struct{ label, text string }

func (k *keeper) facts() []fact {
	s := k.now()
	helps, cannot := k.deps.Host.protection()
	facts := []fact{{"Keep-alive", s.words()}}
	if left, known := k.deps.left(); known && left > 0 && left <= nearLimit {
		facts = append(facts, fact{"⚠ Limit near", deadline(left, s.runs)})
	}
	return append(facts,
		fact{"Host", string(k.deps.Host) + k.deps.age()},
		fact{"Protects", helps},
		fact{"Cannot be helped", cannot})
}

// words says in one sentence what the keep-alive does now.
func (s keptAlive) words() string {
	switch {
	case s.since.IsZero():
		return "off; %keepalive switches it on"
	case !s.ended.IsZero() && !s.until.IsZero() && !s.ended.Before(s.until):
		return "over since " + clock(s.ended) + ", as --for said; %keepalive switches it on again"
	case !s.ended.IsZero():
		return "off since " + clock(s.ended) + "; %keepalive switches it on again"
	}
	text := "on"
	if s.revived {
		text = "on again since this kernel was restarted at " + clock(s.since)
	}
	if !s.until.IsZero() {
		text += " until " + clock(s.until)
	}
	if len(s.runs) == 0 {
		return text + "; nothing works now, so the kernel is idle, as it should be"
	}
	text += ", and the kernel is busy as long as this works: " + enumerate(s.runs)
	if !s.beat.IsZero() {
		text += " (last sign of life at " + clock(s.beat) + ")"
	}
	return text
}

// deadline says what to do before the machine ends.
func deadline(left time.Duration, runs []string) string {
	text := "the host usually ends this machine at about " + clock(time.Now().Add(left))
	if len(runs) == 0 {
		return text
	}
	return text + ". What is in the store stays; to lose no step, pause before: %stop " + runs[0] +
		", then %resume on the next machine. %train --max-hours does it by itself"
}

// left returns how long this machine has until its host usually ends it.
func (d *Deps) left() (left time.Duration, known bool) {
	limit := d.Host.limit()
	if limit == 0 || d.MachineAge == nil {
		return 0, false
	}
	age, err := d.MachineAge()
	return limit - age, err == nil
}

func (d *Deps) nearLimit() bool {
	left, known := d.left()
	return known && left > 0 && left <= nearLimit
}

// age says how old the machine is, and what is left of a limit that is known.
func (d *Deps) age() string {
	if d.MachineAge == nil {
		return ""
	}
	age, err := d.MachineAge()
	if err != nil {
		return ""
	}
	// The card may stand for hours, and the notebook for years.
	text := fmt.Sprintf("; at %s this machine was up for %s", clock(time.Now()), span(age.Seconds()))
	limit := d.Host.limit()
	switch {
	case limit == 0:
		return text
	case age >= limit:
		return fmt.Sprintf("%s, beyond the usual limit of %s", text, span(limit.Seconds()))
	}
	return fmt.Sprintf("%s, and %s were left to the usual limit of %s", text, span((limit - age).Seconds()), span(limit.Seconds()))
}

// card is what %keepalive shows. The script goes into the same output, so that
// it ends with it; without it the card says the same.
func (k *keeper) card() View {
	v := factsView(k.facts())
	if s := k.now(); s.ended.IsZero() {
		v.HTML = `<div class="outlast-keepalive">` + v.HTML +
			`<div class="outlast-connection" role="status" aria-live="polite" style="padding:0 15px;font-size:13px;line-height:1.5"></div></div>` +
			script(k.deps, s)
	}
	return v
}

// script returns the page's script, told what it needs to know.
func script(d *Deps, s keptAlive) string {
	config, err := json.Marshal(map[string]any{
		"colab": d.Host.colab(), "kernel": d.KernelID, "working": len(s.runs) > 0, "at": time.Now().UnixMilli(),
		"beat": s.every.Milliseconds(), "watch": (s.every / 2).Milliseconds(),
	})
	if err != nil {
		return "" // strings and numbers always have a JSON form
	}
	return fmt.Sprintf("<script>(%s)(%s)</script>", strings.TrimSpace(keepaliveScript), config)
}

// status is what %keepalive status shows: what was done, and what was seen of it.
func (k *keeper) status() View {
	s := k.now()
	facts := k.facts()
	if s.since.IsZero() {
		return factsView(facts)
	}
	beats := "none was needed yet: no run has worked"
	if s.beats > 0 {
		beats = fmt.Sprintf("%d, one every %s, the last at %s", s.beats, span(s.every.Seconds()), clock(s.beat))
	}
	if s.revived && s.ended.IsZero() {
		facts = append(facts, fact{"Its card", "ended with the kernel before; %keepalive shows a new one"})
	}
	facts = append(facts, fact{"On since", clock(s.since)}, fact{"Kernel's signs of life", beats})
	if k.deps.Host != HostConsole { // which has no page
		facts = append(facts, fact{"Page's last sign of life", k.pageWords(s)})
	}
	return factsView(facts)
}

// pageWords says when a page was last heard of, or why none was.
func (k *keeper) pageWords(s keptAlive) string {
	switch {
	case !s.seen.IsZero():
		return clock(s.seen)
	case !k.deps.Host.colab():
		return "pages of this host do not call the kernel; they ask the server, and their card says what they see"
	case !s.callback:
		return "none: google.colab could not be reached when %keepalive ran"
	}
	return "none yet"
}

// clock writes a time of today's; of another day, with the day.
func clock(t time.Time) string {
	if now := time.Now(); t.YearDay() != now.YearDay() || t.Year() != now.Year() {
		return t.Format("Mon 15:04:05")
	}
	return t.Format(time.TimeOnly)
}

// enumerate writes names one after the other.
func enumerate(names []string) string { return strings.Join(names, ", ") }

func factsView(facts []fact) View {
	var page strings.Builder
	page.WriteString(`<div style="border-left:3px solid rgba(128,128,128,.6);padding:2px 12px;font-size:13px;line-height:1.5;max-width:110ch">`)
	for _, f := range facts {
		fmt.Fprintf(&page, "<div><b>%s:</b> %s.</div>", html.EscapeString(f.label), html.EscapeString(f.text))
	}
	page.WriteString("</div>")
	text := func(width, _ int) string {
		var lines []string
		for _, f := range facts {
			lines = append(lines, wrap(f.label+": "+f.text+".", width, "  ")...)
		}
		return strings.Join(lines, "\n")
	}
	return View{Text: text(0, 0), HTML: page.String(), Fit: text}
}
