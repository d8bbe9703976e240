package kernel

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestWhatTheEndOfAChildSaysOfTheNextOne(t *testing.T) {
	for name, c := range map[string]struct {
		boot, worked time.Duration
		up, idle     bool
		asked        bool
		want         verdict
	}{
		"it fails at once":             {idle: true, want: childFails},
		"its boot fails late":          {boot: time.Minute, idle: true, want: childFails},
		"it boots slowly and fails":    {boot: time.Minute, worked: time.Second, up: true, idle: true, want: childFails},
		"it was well for a while":      {boot: time.Second, worked: time.Minute, up: true, idle: true, want: childWorks},
		"a cell ended it":              {worked: time.Second, up: true, want: childWorks},
		"its end was asked for":        {worked: time.Second, up: true, idle: true, asked: true, want: childEnded},
		"while it booted":              {boot: time.Minute, idle: true, asked: true, want: childEnded},
		"and it had worked for a week": {worked: 7 * 24 * time.Hour, up: true, asked: true, want: childEnded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &generation{child: &child{}}
				g.child.ended.Store(c.asked)
				time.Sleep(c.boot)
				if c.up {
					g.answered = time.Now()
					g.up.Store(true)
				}
				time.Sleep(c.worked)
				assert.Equal(t, c.want, g.verdict(c.idle))
			})
		})
	}
}
