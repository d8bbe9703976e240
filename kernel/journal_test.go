package kernel

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"outlast/kernel/jupyter"
)

// Only sockets need a short path.
func TestTheJournalIsWhereItIsSaidToBe(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("x", maxSocketPath))
	j := openJournal(dir, 0, slog.New(slog.DiscardHandler))
	defer j.close()
	assert.Equal(t, dir, filepath.Dir(j.folder.path))
}

// printer prints into the journal of a session, as the cell "a".
type printer struct {
	*journal
	t *testing.T
}

func newPrinter(t *testing.T) printer {
	t.Helper()
	j := openJournal(t.TempDir(), 0, slog.New(slog.DiscardHandler))
	require.NoError(t, j.why)
	t.Cleanup(j.close)
	j.begin("a")
	return printer{j, t}
}

func (p printer) print(text string) {
	p.t.Helper()
	m, err := jupyter.New(jupyter.TypeStream, "s", []byte(`{"msg_id":"a"}`), jupyter.StreamContent{Name: jupyter.Stdout, Text: text})
	require.NoError(p.t, err)
	p.note(m)
}

// written is how many bytes are on disk.
func (p printer) written() (total int64) {
	p.t.Helper()
	entries, err := os.ReadDir(p.folder.path)
	require.NoError(p.t, err)
	for _, e := range entries {
		info, err := e.Info()
		require.NoError(p.t, err)
		total += info.Size()
	}
	return total
}

func TestOutputIsWrittenWhenItPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrinter(t)
		p.print("x")
		time.Sleep(journalDelay / 2)
		assert.Zero(t, p.written())
		time.Sleep(journalDelay)
		assert.NotZero(t, p.written())
	})
}

func TestOutputThatDoesNotPauseIsWrittenEverySecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrinter(t)
		began := time.Now()
		for p.written() == 0 {
			p.print("x")
			time.Sleep(10 * time.Millisecond)
		}
		assert.InDelta(t, journalPatience.Seconds(), time.Since(began).Seconds(), 2*journalDelay.Seconds())
	})
}

func TestMuchOutputIsNotHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrinter(t)
		for range journalHurry>>20 + 1 {
			p.print(fmt.Sprintf("%1048576d", 1))
		}
		time.Sleep(time.Millisecond) // nobody has paused
		synctest.Wait()
		assert.NotZero(t, p.written())
		assert.False(t, p.cells[0].lost)
	})
}

func TestWhoReadsSeesWhatIsNotYetWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrinter(t)
		for i := range 3 {
			p.print(fmt.Sprint(i))
		}
		assert.Equal(t, []string{"0", "1", "2"}, p.texts(false))
	})
}

// A disk that is full has taken a part of what was written.
func TestAWriteThatFailsCostsOnlyItsOwnOutput(t *testing.T) {
	p := newPrinter(t)
	p.print("before")
	p.flush()
	_, err := p.file.WriteString("torn")
	require.NoError(t, err)
	require.NoError(t, p.file.Close())
	p.print("lost")
	p.flush()
	assert.Equal(t, []string{"before"}, p.texts(true))
	for range 3 { // nothing of a new segment can be written
		_, err = p.segment()
		require.NoError(t, err)
		require.NoError(t, p.file.Close())
		p.print("lost")
		p.flush()
		assert.Len(t, p.kept, 1)
	}
	p.print("after")
	p.flush()
	assert.Equal(t, []string{"before", "after"}, p.texts(true))
}

func TestTheOldestOutputGoesFirst(t *testing.T) {
	p := newPrinter(t)
	p.limit = 3 * segmentSize
	for i := range 5 {
		p.print(strings.Repeat("x", segmentSize) + fmt.Sprint(i))
		p.flush()
	}
	texts := p.texts(true)
	require.Len(t, texts, 2) // each is a little longer than a segment
	assert.True(t, strings.HasSuffix(texts[0], "3") && strings.HasSuffix(texts[1], "4"))
	assert.Less(t, p.written(), int64(segmentSize), "it is compressed")
}

// texts returns what the cell has printed, as the journal has it.
func (p printer) texts(lost bool) (texts []string) {
	p.t.Helper()
	got, err := p.read(0, "b", func(line journalLine) {
		var c jupyter.StreamContent
		require.NoError(p.t, json.Unmarshal(line.Content, &c))
		texts = append(texts, c.Text)
	})
	require.NoError(p.t, err)
	assert.Equal(p.t, lost, got)
	return texts
}
