package training

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// TestVerdicts judges ends by what is known of them; what is known twice is
// judged by the surer.
func TestVerdicts(t *testing.T) {
	user := &Event{Failure: "user", Type: "ValueError", Message: "no", Traceback: "Traceback (most recent call last):\nValueError: no\n"}
	oom := &Event{Failure: "user", Type: "OutOfMemoryError", Message: "CUDA out of memory. Tried to allocate 540.00 MiB."}
	full := fmt.Errorf("write: %w", syscall.ENOSPC)
	segv := evidence{exit: -1, signal: "segmentation fault", own: true}
	kill := evidence{exit: -1, signal: "killed"}
	with := func(e evidence, change func(*evidence)) evidence { change(&e); return e }
	tests := map[string]struct {
		known evidence
		want  Cause
		says  string
	}{
		"it ended well":                       {evidence{}, CauseDone, ""},
		"it finished":                         {evidence{finished: &Event{}}, CauseDone, ""},
		"finished, and crashed while ending":  {with(segv, func(e *evidence) { e.finished = &Event{} }), CauseDone, ""},
		"finished, and had to be ended":       {with(kill, func(e *evidence) { e.finished = &Event{} }), CauseDone, ""},
		"finished while we asked for a pause": {evidence{finished: &Event{}, asked: true}, CauseDone, ""},
		"finished, its result unsaved":        {evidence{finished: &Event{}, unsaved: errors.New("input/output error")}, CauseCrash, "input/output error"},
		"finished, the disk full":             {evidence{finished: &Event{}, unsaved: full}, CauseDiskFull, "no space left"},
		"it ended before its end":             {evidence{abrupt: true}, CauseCrash, "Call job.finish"},
		"before its end, and unsaved":         {evidence{abrupt: true, unsaved: errors.New("input/output error")}, CauseCrash, "input/output error"},
		"finished, and ended at once":         {evidence{abrupt: true, finished: &Event{}}, CauseDone, ""},
		"asked to pause, and ended at once":   {evidence{abrupt: true, asked: true}, CausePaused, ""},
		"an early checkpoint unsaved":         {evidence{exit: 1, unsaved: errors.New("input/output error")}, CauseCrash, "status 1"},

		"it paused":                         {evidence{paused: true, exit: exitPaused, asked: true}, CausePaused, ""},
		"it ends politely":                  {evidence{asked: true}, CausePaused, ""},
		"it ends politely, and complete":    {evidence{asked: true, complete: true}, CauseDone, ""},
		"it had to be ended":                {with(kill, func(e *evidence) { e.asked = true }), CausePaused, ""},
		"it ended by our signal":            {evidence{exit: -1, signal: "terminated", asked: true}, CausePaused, ""},
		"it paused, and nobody asked":       {evidence{paused: true, exit: exitPaused}, CauseKilled, "somebody else"},
		"it paused and ended with status 0": {evidence{paused: true}, CauseKilled, "somebody else"},
		"its code raised while pausing":     {evidence{failed: user, exit: 1, asked: true}, CauseError, "ValueError"},

		"its code raised":                     {evidence{failed: user, exit: 1}, CauseError, "Traceback"},
		"its code raised, and it was killed":  {with(kill, func(e *evidence) { e.failed = user }), CauseError, "Traceback"},
		"without a traceback":                 {evidence{failed: &Event{Failure: "user", Type: "ValueError", Message: "no"}, exit: 1}, CauseError, "ValueError: no"},
		"it raised for lack of device memory": {evidence{failed: oom, exit: 1}, CauseDeviceOOM, "wanted 540 MiB"},
		"a text of the user's":                {evidence{failed: &Event{Failure: "user", Type: "ValueError", Message: "CUDA out of memory"}, exit: 1}, CauseError, "ValueError"},
		"it knows of the lack":                {evidence{failed: &Event{Failure: "oom", Memory: &memory{Tried: 100}}, exit: 1}, CauseDeviceOOM, "wanted 100 MiB"},
		"it knows of the host's":              {evidence{failed: &Event{Failure: "host_oom", Type: "MemoryError"}, exit: 1}, CauseHostOOM, "not the GPU"},
		"it knows of the disk":                {evidence{failed: &Event{Failure: "disk_full"}, exit: 1}, CauseDiskFull, "disk is full"},
		"it knows of the device":              {evidence{failed: &Event{Failure: "device_lost"}, exit: 1}, CauseDeviceLost, "GPU is gone"},
		"it raised on a full disk":            {evidence{failed: &Event{Failure: "user", Type: "OSError", Message: "[Errno 28] No space left on device"}, exit: 1}, CauseDiskFull, "disk is full"},
		"it raised an illegal access":         {evidence{failed: &Event{Failure: "user", Type: "RuntimeError", Message: "CUDA error: an illegal memory access was encountered", Traceback: "Traceback: it"}, exit: 1}, CauseCrash, "Traceback: it"},
		"a kind of a later version":           {evidence{failed: &Event{Failure: "flood", Type: "X", Message: "y"}, exit: 1}, CauseError, "X: y"},
		"it tells what it saw in a traceback": {evidence{failed: &Event{Failure: "user", Type: "KeyError", Message: "'x'", Traceback: "MemoryError\nKeyError: 'x'"}, exit: 1}, CauseError, "KeyError"},

		"status 3":                         {evidence{exit: 3}, CauseCrash, "status 3"},
		"a traceback in its log":           {evidence{exit: 1, said: "Traceback (most recent call last):\nImportError: no torch\n"}, CauseError, "ImportError: no torch"},
		"a lack of memory in its log":      {evidence{exit: 1, said: "Traceback (most recent call last):\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 540.00 MiB."}, CauseDeviceOOM, "540 MiB"},
		"no kernel image, in its log":      {evidence{exit: 1, said: "Traceback (most recent call last):\nRuntimeError: no kernel image is available"}, CauseError, "no kernel image"},
		"an error after it had coped":      {evidence{exit: 1, said: "CUDA out of memory. Tried to allocate 1 GiB\nsmaller batch\nTraceback (most recent call last):\n  File \"t.py\", line 3\nValueError: no\n"}, CauseError, "ValueError: no"},
		"a full disk it had coped with":    {evidence{exit: 1, said: "No space left on device, going on\n" + raisedText("KeyError: 'x'")}, CauseError, "KeyError"},
		"a lack of memory behind an error": {evidence{exit: 1, said: raisedText("RuntimeError: CUDA out of memory.") + "\nDuring handling of the above exception, another exception occurred:\n\n" + raisedText("TrainError: step 3")}, CauseDeviceOOM, "ran out of memory"},
		"the cause of an error":            {evidence{exit: 1, said: raisedText("MemoryError") + "\nThe above exception was the direct cause of the following exception:\n\n" + raisedText("TrainError: step 3")}, CauseHostOOM, "not the GPU"},
		"a launcher tells of its child":    {evidence{exit: 1, said: raisedText("RuntimeError: CUDA out of memory.") + raisedText("subprocess.CalledProcessError: Command 'x' returned non-zero exit status 1.")}, CauseDeviceOOM, "ran out of memory"},
		"a launcher, a child's error":      {evidence{exit: 1, said: raisedText("ValueError: no") + raisedText("subprocess.CalledProcessError: Command 'x' returned non-zero exit status 1.")}, CauseError, "CalledProcessError"},
		"it crashed":                       {segv, CauseCrash, "segmentation fault"},
		"it aborted for lack of memory":    {evidence{exit: -1, signal: "aborted", own: true, said: "what():  std::bad_alloc"}, CauseHostOOM, "not the GPU"},
		"a shell says it crashed":          {evidence{exit: 139}, CauseCrash, "segmentation fault"},
		"killed":                           {kill, CauseKilled, "from outside: killed"},
		"killed, after it had coped":       {with(kill, func(e *evidence) { e.said = "CUDA out of memory. Tried to allocate 1 GiB\nsmaller batch\n" }), CauseKilled, ""},
		"killed by the kernel, for memory": {with(kill, func(e *evidence) { e.oomKills = 1 }), CauseHostOOM, "the kernel ended"},
		"the kernel ended another one":     {evidence{exit: 3, oomKills: 1}, CauseCrash, "status 3"},
		"a shell says it was killed":       {evidence{exit: 137}, CauseKilled, "killed"},
		"and by the kernel":                {evidence{exit: 137, oomKills: 2}, CauseHostOOM, ""},
		"status 255 is no signal":          {evidence{exit: 255}, CauseCrash, "status 255"},

		"it hung":                     {with(kill, func(e *evidence) { e.silent = 10 * time.Minute }), CauseHang, "for 10m and"},
		"it hung after it had failed": {with(kill, func(e *evidence) { e.silent, e.failed = time.Minute, user }), CauseError, ""},
		"refused":                     {with(kill, func(e *evidence) { e.refused = "another protocol" }), CauseError, "another protocol"},
		"refused, though finished":    {evidence{refused: "another protocol", finished: &Event{}}, CauseError, "another protocol"},
		"the disk was full":           {with(kill, func(e *evidence) { e.unsaved, e.asked = full, true }), CauseDiskFull, "no space left"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			end := test.known.verdict()
			assert.Equal(t, test.want, end.cause)
			assert.Contains(t, end.message, test.says)
			if test.want != CauseDone && test.want != CausePaused {
				assert.NotEmpty(t, end.message, "every failure is told in words")
			}
			assert.Equal(t, test.known.exit, end.exit)
			assert.Equal(t, test.known.signal, end.signal)
		})
	}
}

// raisedText is how Python prints an exception.
func raisedText(last string) string {
	return "Traceback (most recent call last):\n  File \"t.py\", line 3, in <module>\n    train()\n" + last + "\n"
}

func TestShortDurations(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"10m": 10 * time.Minute, "2h": 2 * time.Hour, "1h30m": 90 * time.Minute, "1m30s": 90 * time.Second, "300ms": 300 * time.Millisecond, "0s": 0, "20s": 20 * time.Second, "10h": 10 * time.Hour,
	} {
		assert.Equal(t, want, short(d))
	}
}
