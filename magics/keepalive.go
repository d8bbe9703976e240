package magics

import (
	"context"
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
		Looks: true, // %train may run already
	}
	m.Wake = d.revive
	m.Bind = func(fs *pflag.FlagSet) func(context.Context, *Call) error {
		o := keepOptions{}
		dir := d.dirFlag(fs)
		fs.DurationVar(&o.span, "for", 0, "how long at most: 90m, 12h (default: until %keepalive off)")
		fs.DurationVar(&o.every, "every", beatInterval, "how often to give a sign of life while a run works")
		return func(ctx context.Context, c *Call) error {
			k := d.keeper()
			word, err := optional(m, c)
			if err != nil {
				return err
			}
			o.dir = *dir
			if err := o.check(m, fs, word); err != nil {
				return err
			}
			switch word {
			case "", "on":
				k.start(ctx, c, o)
			case "off":
				k.off(c)
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

// keepOptions is how one %keepalive was called.
type keepOptions struct {
	dir   string
	span  time.Duration // how long at most; 0: no limit
	every time.Duration // between two signs of life
}

func (o keepOptions) check(m *Magic, fs *pflag.FlagSet, word string) error {
	switch {
	case fs.Changed("for") && o.span <= 0:
		return &UsageError{m, "--for is a time such as 90m or 12h"}
	case o.every < minBeatInterval:
		return &UsageError{m, "--every is a time such as 60s, and at least " + minBeatInterval.String()}
	case word != "" && word != "on" && (fs.Changed("for") || fs.Changed("every")):
		return &UsageError{m, "--for and --every belong to on, not to " + word}
	}
	return nil
}

// start shows the card with the script and begins to watch. Run again, it
// takes the place of the card before.
func (k *keeper) start(ctx context.Context, c *Call, o keepOptions) {
	k.turn.Lock()
	defer k.turn.Unlock()
	k.stop()
	callback := k.deps.Host.colab() && c.Notebook != nil && offer(ctx, c.Notebook)
	s := keptAlive{since: time.Now(), every: o.every, callback: callback}
	if o.span > 0 {
		s.until = s.since.Add(o.span)
	}
	working := func(bool) {}
	if c.Notebook != nil {
		working = c.Notebook.Working
	}
	s.runs = workingRuns(o.dir)
	k.note(func(state *keptAlive) { *state = s })
	live := c.Screen.Live()
	live.Update(k.card())
	k.begin(func() { live.Update(k.card()) }, o.dir, working) //nolint:contextcheck // the watch outlives the cell: stop ends it
	if err := (keepNote{Dir: o.dir, Every: o.every, Until: s.until}).write(k.deps.KeepNote); err != nil {
		fmt.Fprintf(c.Stderr, "It ends with this kernel, also if that is restarted: %v\n", err)
	}
}

// begin begins to watch. The caller holds k.turn.
func (k *keeper) begin(tell func(), dir string, working func(bool)) {
	watching, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	k.mu.Lock()
	k.end = func() { cancel(); <-done }
	k.mu.Unlock()
	go func() {
		defer close(done)
		k.watch(watching, tell, dir, working)
	}()
}

// revive is %keepalive's Wake.
func (d *Deps) revive(working func(bool)) { d.keeper().revive(working) }

// revive goes on with the keep-alive that was on when the kernel was restarted. Its
// card cannot be reached any more: a page that still shows it is told by its script.
func (k *keeper) revive(working func(bool)) {
	k.turn.Lock()
	defer k.turn.Unlock()
	note, on := readNote(k.deps.KeepNote)
	if !on {
		return
	}
	k.note(func(s *keptAlive) {
		*s = keptAlive{since: time.Now(), every: note.Every, until: note.Until, revived: true}
	})
	k.begin(func() {
		if s := k.now(); s.ended.IsZero() && len(s.runs) > 0 {
			working(true)
		}
	}, note.Dir, working)
}

// offer gives a page of Colab something that it can call in the kernel, and
// reports whether that worked. A cell that runs may keep Python from it.
func offer(ctx context.Context, notebook Notebook) bool {
	ctx, cancel := context.WithTimeout(ctx, offerWait)
	defer cancel()
	return notebook.Exec(ctx, colabTarget) == nil
}

// offerWait is how long %keepalive waits for Python.
const offerWait = 5 * time.Second

// colabTarget lets a page of Colab give a sign of life that reaches us. A comm
// is heard while a cell of ours runs; a call (invokeFunction) would wait behind
// it, and is there for pages that have no comms.
const colabTarget = `
def _():
    import sys
    from google.colab import output
    bridge = sys.modules["_outlast_bridge"]
    def beat(*_):
        bridge.call("keepalive", False, "beat", "")
    get_ipython().kernel.comm_manager.register_target("outlast_beat", beat)
    output.register_callback("outlast_beat", beat)
_()
del _
`
