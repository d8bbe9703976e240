package magics

import (
	"context"
	_ "embed"
	"fmt"
	"html"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"outlast/training"
)

//go:embed keepalive.js
var keepaliveScript string

// beatInterval is how often the kernel shows a sign of life while a run works.
// Idle cullers count in minutes.
const beatInterval = 60 * time.Second

// Keepalive returns %keepalive: the page's keep-alive script, and signs of life
// from the kernel while a run works.
func Keepalive(d *Deps) *Magic {
	m := &Magic{
		Name:  "keepalive",
		Args:  "[on | off | status]",
		Short: "Keep this notebook alive while a run works, as far as its host allows",
		Line:  true,
	}
	k := &keeper{deps: d}
	m.Bind = func(fs *pflag.FlagSet) func(context.Context, *Call) error {
		dir := d.dirFlag(fs)
		return func(_ context.Context, c *Call) error {
			word, err := optional(m, c)
			if err != nil {
				return err
			}
			switch word {
			case "", "on":
				k.start(c, *dir) //nolint:contextcheck // the beats outlive the call
				return nil
			case "off":
				k.stop()
				c.Screen.Show(View{Text: "Keep-alive is off.", JavaScript: "window.outlastKeepalive?.stop();"})
				return nil
			case "status":
				_, err := fmt.Fprintln(c.Stdout, k.report())
				return err
			}
			return &UsageError{m, "it is on, off or status, not " + word}
		}
	}
	return m
}

// keeper is the one keep-alive of a notebook.
type keeper struct {
	deps *Deps

	mu    sync.Mutex
	since time.Time
	last  time.Time // of the last beat; zero if there was none
	end   func()    // stops the beats; nil if there are none
}

// start shows the card with the script and begins to beat. Run again, it
// replaces the card: the old one's script stops by itself.
func (k *keeper) start(c *Call, dir string) {
	k.stop()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	k.mu.Lock()
	k.since, k.last = time.Now(), time.Time{}
	k.end = func() { cancel(); <-done }
	k.mu.Unlock()
	live := c.Screen.Live()
	live.Update(k.card(""))
	go func() {
		defer close(done)
		k.beat(ctx, live, dir)
	}()
}

func (k *keeper) stop() {
	k.mu.Lock()
	end := k.end
	k.end = nil
	k.mu.Unlock()
	if end != nil {
		end()
	}
}

// beat updates the card while a run works. The message names the %keepalive
// request as its parent, so that servers count it as activity; without a run it
// stays silent, so that an idle notebook is culled as its owner wished.
func (k *keeper) beat(ctx context.Context, live Live, dir string) {
	tick := time.NewTicker(beatInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		working := workingRuns(dir)
		if len(working) == 0 {
			continue
		}
		k.mu.Lock()
		k.last = time.Now()
		k.mu.Unlock()
		live.Update(k.card(strings.Join(working, ", ")))
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
	return working
}

func (k *keeper) report() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.end == nil {
		return "Keep-alive is off. %keepalive switches it on."
	}
	text := fmt.Sprintf("Keep-alive is on since %s. ", k.since.Format(time.TimeOnly))
	if k.last.IsZero() {
		return text + "No run has needed a sign of life yet."
	}
	return text + fmt.Sprintf("Last sign of life for a run: %s.", k.last.Format(time.TimeOnly))
}

// card is what the notebook shows. The script goes into the same output, so
// that it ends with it.
func (k *keeper) card(working string) View {
	helps, cannot := k.deps.Host.protection()
	state := "on; signs of life begin with the first run"
	if working != "" {
		state = fmt.Sprintf("on, working: %s (last sign of life %s)", working, time.Now().Format(time.TimeOnly))
	}
	text := fmt.Sprintf("Keep-alive: %s\nHost: %s\nWhat protects this notebook: %s.\nWhat cannot be helped: %s.",
		state, k.deps.Host, helps, cannot)
	lines := strings.Split(text, "\n")
	var b strings.Builder
	b.WriteString(`<div class="outlast-keepalive" style="border-left:3px solid currentColor;padding:4px 12px">`)
	for _, line := range lines {
		label, value, _ := strings.Cut(line, ": ")
		fmt.Fprintf(&b, "<div><b>%s:</b> %s</div>", html.EscapeString(label), html.EscapeString(value))
	}
	b.WriteString(`<div class="outlast-connection" aria-live="polite"></div></div>`)
	fmt.Fprintf(&b, "<script>%s</script>", keepaliveScript)
	return View{Text: text, HTML: b.String()}
}
