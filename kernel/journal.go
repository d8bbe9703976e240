package kernel

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/klauspost/compress/s2"

	"outlast/kernel/jupyter"
)

// Bounds of the journal.
const (
	// defaultJournal is how much output of a session is kept, in bytes, as it is
	// when it is read again; on disk it takes less.
	defaultJournal = 256 << 20
	// segmentSize is how much of it goes into one file. The oldest file goes first.
	segmentSize = 8 << 20
	// journalBlock is how much is compressed at a time, in bytes.
	journalBlock = 128 << 10
	// maxJournalQueue is how much may wait for a slow disk, in bytes.
	maxJournalQueue = 128 << 20
	// journalDelay is how long output waits for more, to be written with it.
	journalDelay = 50 * time.Millisecond
	// journalPatience is how long output waits while more of it comes: who looks
	// on goes first.
	journalPatience = time.Second
	// journalHurry is how much waits no longer, in bytes.
	journalHurry = 16 << 20
	// journalOverhead is what an entry takes beside its content, about, in bytes.
	journalOverhead = 1 << 10
	// journalBatch is where a write is long enough, in bytes.
	journalBatch = 1 << 20
	// maxJournalCells is how many cells are remembered.
	maxJournalCells = 10_000
)

// A journal keeps on disk what cells print, so that it can be shown again to a
// front end that was away. It is not synced: it outlives a front end, not the
// machine. It ends with its session.
//
// A segment is a file of JSON lines, each one output of one cell. It is
// compressed (S2, a dialect of Snappy), because that takes less time than the
// kernel takes for the pages of what a cell usually prints.
type journal struct {
	folder *folder // nil if nothing is kept
	limit  int64
	log    *slog.Logger
	why    error // nothing is kept, if that was not asked for

	writing sync.Mutex // held while a batch is written; taken before mu

	mu     sync.Mutex
	queue  []journalEntry
	queued int         // bytes
	soon   *time.Timer // looks after what is queued; nil if nothing is
	oldest time.Time   // when the first of it came
	newest time.Time   // when the last of it came
	ended  bool
	cells  []*journalCell // oldest first
	byID   map[string]*journalCell
	kept   []journalSegment // the first has number base
	base   int
	total  int64 // bytes

	file *os.File   // the last segment; nil if nothing goes there any more
	pack *s2.Writer // to file
}

// A journalSegment says how long a segment is, in bytes.
type journalSegment struct {
	size   int64 // as read
	stored int64 // on disk; what follows is being written, or was torn
}

// A journalCell is what is known of one cell's output.
type journalCell struct {
	id          string
	number      int // of its own, in the order of arrival
	count       int // execution count; 0 before it is known
	first, last int // segments; last < first: it has printed nothing
	lost        bool
}

type journalEntry struct {
	cell *journalCell
	msg  *jupyter.Message
	size int
}

// journalLine is one line of a segment.
type journalLine struct {
	Cell     int             `json:"cell"`
	Type     jupyter.Type    `json:"type"`
	Content  json.RawMessage `json:"content"`
	Metadata json.RawMessage `json:"metadata"`
	Buffers  []string        `json:"buffers"`
}

// openJournal makes the journal of one session below dir; an empty dir keeps
// nothing, nor does one that cannot be made. What sessions that were killed have
// left there is removed.
func openJournal(dir string, limit int64, log *slog.Logger) *journal {
	j := &journal{limit: limit, log: log, byID: map[string]*journalCell{}}
	if limit <= 0 {
		j.limit = defaultJournal
	}
	if dir == "" {
		j.ended = true
		return j
	}
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		j.folder, err = newFolder(dir)
	}
	if err != nil { // a home may be full, or nobody's to write to
		log.Warn("output is not kept", "error", err)
		j.ended = true
		j.why = fmt.Errorf("%w: %w; when that can be made, restart the kernel", ErrNotKept, err)
		return j
	}
	return j
}

// kept reports whether messages of type t are part of what a cell shows.
func kept(t jupyter.Type) bool {
	switch t {
	case jupyter.TypeStream, jupyter.TypeDisplayData, jupyter.TypeUpdateDisplay, jupyter.TypeExecuteResult,
		jupyter.TypeError, jupyter.TypeClearOutput:
		return true
	}
	return false
}

// begin takes note of a cell that may print.
func (j *journal) begin(id string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ended || j.byID[id] != nil {
		return
	}
	number := 1
	if n := len(j.cells); n > 0 {
		number = j.cells[n-1].number + 1
	}
	c := &journalCell{id: id, number: number, last: -1}
	j.cells = append(j.cells, c)
	j.byID[id] = c
	for len(j.cells) > maxJournalCells {
		delete(j.byID, j.cells[0].id)
		j.cells = j.cells[1:]
	}
}

// note takes what goes to front ends. It does not wait for the disk.
func (j *journal) note(m *jupyter.Message) {
	output := kept(m.Header.Type)
	if !output && m.Header.Type != jupyter.TypeExecuteInput {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ended {
		return
	}
	c := j.byID[m.ParentID()]
	if c == nil {
		return
	}
	if !output {
		if input, err := jupyter.Decode[jupyter.ExecuteInputContent](m); err == nil {
			c.count = input.ExecutionCount
		}
		return
	}
	size := journalOverhead + len(m.Content) + len(m.Metadata)
	for _, b := range m.Buffers {
		size += len(b)
	}
	if j.queued+size > maxJournalQueue && j.queued > 0 {
		c.lost = true
		return
	}
	j.queue = append(j.queue, journalEntry{c, m, size})
	j.queued += size
	j.newest = time.Now()
	if j.soon == nil {
		j.oldest = j.newest
		j.soon = time.AfterFunc(journalDelay, j.look)
	}
	if j.queued >= journalHurry && j.queued-size < journalHurry {
		j.soon.Reset(0) // at once, before there is more than may wait
	}
}

// look writes what is queued, unless more is coming.
func (j *journal) look() {
	j.mu.Lock()
	now := time.Now()
	wait := now.Sub(j.newest) < journalDelay/2 && now.Sub(j.oldest) < journalPatience && j.queued < journalHurry
	if wait && j.soon != nil {
		j.soon.Reset(journalDelay)
	}
	j.mu.Unlock()
	if !wait {
		j.flush()
	}
}

// flush writes what was noted so far.
func (j *journal) flush() {
	j.writing.Lock()
	defer j.writing.Unlock()
	j.mu.Lock()
	batch := j.queue
	j.queue, j.queued = nil, 0
	if j.soon != nil {
		j.soon.Stop()
		j.soon = nil
	}
	ended := j.ended
	j.mu.Unlock()
	for len(batch) > 0 && !ended {
		n := 0
		for size := 0; n < len(batch) && size < journalBatch; n++ {
			size += batch[n].size
		}
		j.write(batch[:n])
		batch = batch[n:]
	}
}

// write appends outputs to one segment. Only flush writes.
func (j *journal) write(batch []journalEntry) {
	segment, err := j.segment()
	size := int64(0)
	for _, e := range batch {
		if err == nil {
			var n int
			n, err = writeLine(j.pack, e)
			size += int64(n)
		}
	}
	stored := int64(0)
	if err == nil {
		stored, err = j.stored()
	}
	if err != nil {
		j.seal() // its end may be torn
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range batch {
		if err != nil {
			e.cell.lost = true
			continue
		}
		if e.cell.last < 0 {
			e.cell.first = segment
		}
		e.cell.last = segment
	}
	if err != nil {
		j.log.Warn("output not kept", "error", err)
		if n := len(j.kept); n > 0 && j.kept[n-1].stored == 0 { // a disk may be full for long
			os.Remove(j.path(j.base + n - 1)) //nolint:errcheck // it is empty, and goes with the folder
			j.kept = j.kept[:n-1]
		}
		return
	}
	last := &j.kept[len(j.kept)-1]
	last.size += size
	last.stored = stored
	j.total += size
	for j.total > j.limit && len(j.kept) > 1 {
		j.evict()
	}
}

// stored writes what is still being compressed, and returns how long the segment
// is on disk.
func (j *journal) stored() (int64, error) {
	if err := j.pack.Flush(); err != nil {
		return 0, err
	}
	return j.file.Seek(0, io.SeekCurrent)
}

// segment returns the number of the segment that is written to, a new one if the
// last is full.
func (j *journal) segment() (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if n := len(j.kept); j.file != nil && j.kept[n-1].size < segmentSize {
		return j.base + n - 1, nil
	}
	j.seal()
	number := j.base + len(j.kept)
	file, err := os.OpenFile(j.path(number), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	j.file = file
	if j.pack == nil {
		j.pack = s2.NewWriter(file, s2.WriterConcurrency(1), s2.WriterBlockSize(journalBlock))
	} else {
		j.pack.Reset(file)
	}
	j.kept = append(j.kept, journalSegment{})
	return number, nil
}

// seal ends the last segment.
func (j *journal) seal() {
	if j.file != nil {
		j.file.Close() //nolint:errcheck // every write was checked
		j.file = nil
	}
}

func (j *journal) path(segment int) string {
	return filepath.Join(j.folder.path, strconv.Itoa(segment)+".jsonl.s2")
}

// evict removes the oldest segment, and notes what is no longer whole.
func (j *journal) evict() {
	gone := j.base
	os.Remove(j.path(gone)) //nolint:errcheck // it is no longer counted; the folder goes at the end
	j.total -= j.kept[0].size
	j.kept, j.base = j.kept[1:], j.base+1
	for _, c := range j.cells {
		if c.last >= 0 && c.first <= gone {
			c.first, c.lost = gone+1, true
		}
	}
}

// writeLine writes one output as JSON, and returns how long that is. What the
// child sent is JSON already, and not parsed again.
func writeLine(w io.Writer, e journalEntry) (size int, err error) {
	put := func(data []byte) {
		if err == nil {
			var n int
			n, err = w.Write(data)
			size += n
		}
	}
	put(fmt.Appendf(nil, `{"cell":%d,"type":%q,"content":`, e.cell.number, e.msg.Header.Type))
	put(oneLine(e.msg.Content))
	put([]byte(`,"metadata":`))
	put(oneLine(e.msg.Metadata))
	put([]byte(`,"buffers":[`))
	for i, buffer := range e.msg.Buffers {
		if i > 0 {
			put([]byte{','})
		}
		put(fmt.Appendf(nil, "%q", base64.StdEncoding.EncodeToString(buffer)))
	}
	put([]byte("]}\n"))
	return size, err
}

func oneLine(raw json.RawMessage) []byte {
	if bytes.IndexByte(raw, '\n') < 0 {
		return raw
	}
	var line bytes.Buffer
	if json.Compact(&line, raw) != nil {
		return []byte("{}")
	}
	return line.Bytes()
}

// ErrNotKept says that the journal does not have a cell.
var ErrNotKept = errors.New("its output is not kept")

// read hands to see what a cell has shown so far: the one with an execution
// count, or, for 0, the latest before the cell called self. lost reports that a
// part is no longer kept.
func (j *journal) read(count int, self string, see func(journalLine)) (lost bool, err error) {
	if j.why != nil {
		return false, j.why
	}
	j.flush()
	j.mu.Lock()
	c := j.find(count, self)
	if c == nil {
		j.mu.Unlock()
		return false, ErrNotKept
	}
	number, first, lost := c.number, c.first, c.lost
	var segments []journalSegment
	if c.last >= first {
		segments = slices.Clone(j.kept[first-j.base : c.last-j.base+1])
	}
	j.mu.Unlock()
	for i, segment := range segments {
		err := readSegment(j.path(first+i), segment.stored, number, see)
		if errors.Is(err, fs.ErrNotExist) { // evicted meanwhile
			lost = true
			continue
		}
		if err != nil {
			return lost, fmt.Errorf("read the journal: %w", err)
		}
	}
	return lost, nil
}

func (j *journal) find(count int, self string) *journalCell {
	for _, c := range slices.Backward(j.cells) {
		if c.id != self && (count == 0 && c.last >= 0 || count > 0 && c.count == count) {
			return c
		}
	}
	return nil
}

// readSegment hands to see a cell's lines in the first bytes of a segment.
func readSegment(path string, stored int64, cell int, see func(journalLine)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	r := bufio.NewReader(s2.NewReader(io.LimitReader(f, stored), s2.ReaderMaxBlockSize(journalBlock)))
	mark := []byte(fmt.Sprintf(`{"cell":%d,`, cell))
	for {
		text, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(text, mark) {
			continue
		}
		var line journalLine
		if err := json.Unmarshal(text, &line); err != nil {
			return err
		}
		see(line)
	}
}

// close ends the journal and removes it.
func (j *journal) close() {
	j.mu.Lock()
	j.ended = true
	j.mu.Unlock()
	j.flush() // after one that runs; what it would write is removed
	j.seal()
	if j.folder != nil {
		j.folder.remove()
	}
}
