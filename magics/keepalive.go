package magics

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/pflag"
)

// Keepalive returns %keepalive: the page's keep-alive script, a truthful busy
// and signs of life from the kernel while a run works.
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
		span := fs.Duration("for", 0, "how long at most: 90m, 12h (default: as long as runs work)")
		return func(ctx context.Context, c *Call) error {
			word, err := optional(m, c)
			if err != nil {
				return err
			}
			if *span < 0 {
				return &UsageError{m, "--for is a time such as 90m or 12h"}
			}
			switch word {
			case "", "on":
				k.start(ctx, c, *dir, *span) //nolint:contextcheck // it outlives the cell: stop ends it
			case "off":
				k.stop()
				c.Screen.Show(View{Text: "Keep-alive is off.", HTML: "<div>Keep-alive is off.</div><script>window.outlastKeepalive?.stop();</script>"})
			case "status":
				c.Screen.Show(k.status())
			case "beat": // a page of Colab says that it is there
				k.page()
			default:
				return &UsageError{m, "it is on, off or status, not " + word}
			}
			return nil
		}
	}
	return m
}

// start shows the card with the script and begins to watch. Run again, it
// replaces the card: the old one's script stops by itself.
func (k *keeper) start(ctx context.Context, c *Call, dir string, span time.Duration) {
	k.stop()
	if k.deps.Host == HostColab && c.Notebook != nil {
		// A page of Colab can call into the kernel, if the kernel offers something.
		err := c.Notebook.Exec(ctx, colabCallback)
		k.note(func(s *keptAlive) { s.callback = err == nil })
	}
	watching, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	now := time.Now()
	k.mu.Lock()
	k.state = keptAlive{since: now, callback: k.state.callback}
	if span > 0 {
		k.state.until = now.Add(span)
	}
	k.end = func() { cancel(); <-done }
	k.mu.Unlock()
	live := c.Screen.Live()
	live.Update(k.card())
	working := func(bool) {}
	if c.Notebook != nil {
		working = c.Notebook.Working
	}
	go func() {
		defer close(done)
		k.watch(watching, live, dir, working)
	}()
}

// colabCallback lets a page of Colab give a sign of life that reaches us.
const colabCallback = `
def _():
    import sys
    from google.colab import output
    bridge = sys.modules["_outlast_bridge"]
    output.register_callback("outlast_beat", lambda: bridge.call("keepalive", False, "beat", ""))
_()
del _
`

// script returns the page's script, told what it needs to know.
func (k *keeper) script() string {
	config, err := json.Marshal(map[string]any{
		"host": k.deps.Host, "kernel": k.deps.KernelID,
		"beat": beatInterval.Milliseconds(), "watch": watchInterval.Milliseconds(),
	})
	if err != nil {
		return "" // strings and numbers always have a JSON form
	}
	return fmt.Sprintf("<script>(%s)(%s)</script>", keepaliveScript, config)
}
