package kernel

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestMemoryIsGivenBackWhenAFloodIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e ebb
		mebibyte := [][]byte{make([]byte, 1<<20)}
		flood := func() {
			for range ebbBytes>>20 + 1 {
				e.passed(mebibyte)
			}
		}
		e.passed(mebibyte)
		assert.False(t, e.pending.Load(), "that was little")
		for range 3 {
			flood()
			assert.True(t, e.pending.Load())
			flood()
			time.Sleep(ebbDelay)
			synctest.Wait()
			assert.True(t, e.pending.Load(), "it goes on")
		}
		time.Sleep(ebbDelay)
		synctest.Wait()
		assert.False(t, e.pending.Load())
	})
}
