package training

// Cause says how an attempt ended.
type Cause string

// The causes, from the best to the worst.
const (
	CauseDone       Cause = "done"
	CausePaused     Cause = "paused"      // it was asked to
	CauseKilled     Cause = "killed"      // by a signal that was not ours, or the machine could not even start it
	CauseLost       Cause = "lost"        // its supervisor died with it
	CauseDiskFull   Cause = "disk_full"   // it could not save
	CauseDeviceOOM  Cause = "device_oom"  // the GPU had no memory for it
	CauseHostOOM    Cause = "host_oom"    // the machine had no memory for it
	CauseDeviceLost Cause = "device_lost" // the GPU is gone
	CauseHang       Cause = "hang"        // no sign of life, ended by us
	CauseCrash      Cause = "crash"       // another exit status, or a signal of its own doing
	CauseError      Cause = "error"       // the user's code raised
)

// Shortage says whose memory it was that the device did not have.
type Shortage string

// The kinds of CauseDeviceOOM. Each has its own answer.
const (
	ShortageOwn       Shortage = ""              // the model is too large
	ShortageCap       Shortage = "cap"           // it met the limit that we set, not the device's
	ShortageNeighbour Shortage = "neighbour"     // another process has the memory
	ShortageScattered Shortage = "fragmentation" // there is enough, in pieces too small
	ShortageUnclear   Shortage = "unclear"       // a library says so; it may be a defect
)

// An outcome is how an attempt ended.
type outcome struct {
	cause     Cause
	shortage  Shortage
	memory    memory // of a device without enough of it
	exit      int
	signal    string
	message   string // in plain words, or the user's traceback
	final     Checkpoint
	unstarted bool // no process came of it
	beside    bool // other models of the run had seats, too
	partial   bool // only a part of the device was its to use
}

// lostText is what is said of a model whose supervisor died.
const lostText = "the supervisor was killed with it; it goes on from its last checkpoint"
