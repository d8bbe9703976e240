package magics

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/pflag"
)

// checkWait is how long a check may take: a store that cannot be reached, or a
// driver that hangs, must not keep the others from being shown.
const checkWait = 5 * time.Second

// finding is one line of %doctor.
type finding struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Cure   string `json:"cure,omitempty"`
}

// fine and wrong return what was found; what is wrong comes with what to do.
func fine(name, format string, args ...any) finding {
	return finding{Name: name, OK: true, Detail: fmt.Sprintf(format, args...)}
}

func wrong(name, detail, cure string) finding {
	return finding{Name: name, Detail: detail, Cure: cure}
}

// failed is what is wrong by an error. Its own cure goes first.
func failed(name string, err error, cure string) finding {
	if own := CureOf(err); own != "" {
		cure = own
	}
	return wrong(name, err.Error(), cure)
}

// A check looks at what one or more lines of %doctor are about.
type check struct {
	names []string
	look  func(ctx context.Context) []finding // one for each name
	cure  string                              // if it does not answer
}

// Doctor returns %doctor: what is set up, and what is missing.
func Doctor(d *Deps) *Magic {
	m := &Magic{
		Name:  "doctor",
		Verb:  "doctor",
		Short: "Check what training needs, from kernel to store: a line each, ok or what to do",
		Line:  true,
		Looks: true,
	}
	m.Bind = func(fs *pflag.FlagSet) func(context.Context, *Call) error {
		dir := d.dirFlag(fs)
		asJSON := fs.Bool("json", false, "print one JSON object")
		return func(ctx context.Context, c *Call) error {
			if len(c.Args) > 0 {
				return &UsageError{m, "it takes flags only"}
			}
			findings := examine(ctx, (&examination{Deps: d, call: c, dir: *dir}).checks())
			if ctx.Err() != nil {
				return &Problem{"look at all that training needs", errors.New("it was interrupted"), "run it again"}
			}
			object := map[string]any{"checks": findings}
			if err := c.result(object); err != nil {
				return err
			}
			if *asJSON {
				return writeJSON(c, object)
			}
			c.Screen.Show(findingsGrid("Outlast "+d.Version, findings).view())
			return nil
		}
	}
	return m
}

func findingsGrid(title string, findings []finding) grid {
	g := grid{Title: title, Header: []string{"", "check", "found"}}
	for _, f := range findings {
		sign := "✓"
		if !f.OK {
			sign = "!"
		}
		g.Rows = append(g.Rows, []string{sign, f.Name, f.Detail})
		if f.Cure != "" {
			g.Rows = append(g.Rows, []string{"", "", "→ " + f.Cure})
		}
	}
	return g
}

// examine makes all checks at once, and waits for none longer than checkWait.
func examine(ctx context.Context, checks []check) []finding {
	found := make([][]finding, len(checks))
	var looking sync.WaitGroup
	for i, c := range checks {
		looking.Go(func() { found[i] = c.within(ctx) })
	}
	looking.Wait()
	var all []finding
	for _, f := range found {
		all = append(all, f...)
	}
	return all
}

// within makes the check. One that does not end in time is left behind: a file
// system that is gone answers no context.
func (c check) within(ctx context.Context) []finding {
	ctx, cancel := context.WithTimeout(ctx, checkWait)
	defer cancel()
	answer := make(chan []finding, 1)
	go func() {
		defer func() {
			if v := recover(); v != nil { // the kernel would end with it
				answer <- c.all(fmt.Sprintf("a mistake in Outlast ended this check: %v", v), "please report it")
			}
		}()
		answer <- c.look(ctx)
	}()
	select {
	case found := <-answer:
		if ctx.Err() == nil {
			return found
		}
	case <-ctx.Done():
	}
	return c.all(fmt.Sprintf("no answer within %.0f s", checkWait.Seconds()), c.cure)
}

// all finds the same of each name.
func (c check) all(detail, cure string) []finding {
	var all []finding
	for _, name := range c.names {
		all = append(all, wrong(name, detail, cure))
	}
	return all
}

// An examination is one call of %doctor.
type examination struct {
	*Deps
	call *Call
	dir  string
}

// checks returns what is looked at, in the order in which it is shown.
func (e *examination) checks() []check {
	size := sync.OnceValue(func() int64 { return largestCheckpoint(e.dir) })
	return []check{
		{[]string{"host"}, e.host, "run it again"},
		{[]string{"kernel"}, e.kernel, "see whether 'jupyter kernelspec list' answers"},
		{[]string{"child"}, e.child, "see whether " + e.Python + " --version answers"},
		{[]string{"keep-alive"}, e.keepAlive, "run it again"},
		{[]string{"gpu", "batch"}, e.devices, "run nvidia-smi in a terminal; if it hangs too, the driver is the cause: restart the machine"},
		{[]string{"disk"}, func(context.Context) []finding { return []finding{e.disk(size())} }, anotherDir},
		{
			[]string{"store", "quota"},
			func(ctx context.Context) []finding { return e.store(ctx, size) },
			"check the network; " + e.call.prompt() + "drive status waits longer for an answer",
		},
		{[]string{"runs"}, e.runs, anotherDir},
	}
}

func (e *examination) host(context.Context) []finding { return []finding{fine("host", "%s", e.Host)} }

func (e *examination) runs(context.Context) []finding {
	working := workingRuns(e.dir)
	if len(working) == 0 {
		return []finding{fine("runs", "none is working")}
	}
	return []finding{fine("runs", "working: %v", working)}
}
