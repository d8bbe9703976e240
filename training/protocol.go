package training

import (
	"encoding/json"
	"fmt"
)

// ProtocolVersion is the version of the worker protocol of docs/formats.md.
const ProtocolVersion = 1

// exitPaused is the status of a worker that saved and ended because it was
// asked to (EX_TEMPFAIL of sysexits.h: try again later).
const exitPaused = 75

// EventKind names an event.
type EventKind string

// The events of a worker.
const (
	EventHello      EventKind = "hello"
	EventRestored   EventKind = "restored"
	EventProgress   EventKind = "progress"
	EventMetrics    EventKind = "metrics"
	EventCheckpoint EventKind = "checkpoint"
	EventFinish     EventKind = "finish"
	EventPaused     EventKind = "paused"
	EventFailed     EventKind = "failed"
	EventNote       EventKind = "note" // something the user should know
)

// An Event is one line on a worker's private descriptor. Which fields it has
// depends on its kind.
type Event struct {
	Kind      EventKind         `json:"event"`
	Protocol  int               `json:"protocol,omitempty"`
	PID       int               `json:"pid,omitempty"`
	Python    string            `json:"python,omitempty"`
	Versions  map[string]string `json:"versions,omitempty"` // of the libraries that it has imported
	Step      int64             `json:"step,omitempty"`
	Total     int64             `json:"total,omitempty"`
	Time      float64           `json:"time,omitempty"` // seconds since 1970
	Values    map[string]any    `json:"values,omitempty"`
	Path      string            `json:"path,omitempty"`
	Reason    string            `json:"reason,omitempty"`
	Metrics   map[string]any    `json:"metrics,omitempty"`
	Failure   string            `json:"kind,omitempty"`   // of failed: user, oom, host_oom, disk_full, device_lost; of note
	Memory    *memory           `json:"memory,omitempty"` // of the device: of failed, and of finish
	Type      string            `json:"type,omitempty"`
	Message   string            `json:"message,omitempty"`
	Traceback string            `json:"traceback,omitempty"`
}

// The reasons of checkpoints that count for less than others.
const (
	reasonDue = "due" // a newer one may overtake it
	reasonEnd = "end" // what a program ends with; it counts if the exit status is 0
)

// ParseEvent reads one line.
func ParseEvent(line []byte) (Event, error) {
	var e Event
	if err := json.Unmarshal(line, &e); err != nil {
		return e, fmt.Errorf("read event: %w", err)
	}
	if e.Kind == "" {
		return e, fmt.Errorf("read event: it has no kind")
	}
	return e, nil
}

// jobFile is what a worker is told.
type jobFile struct {
	Protocol          int            `json:"protocol"`
	Run               string         `json:"run"`
	Name              string         `json:"name"`
	Params            map[string]any `json:"params"`
	Seed              int64          `json:"seed"`
	Attempt           int            `json:"attempt"`
	BatchSize         int            `json:"batch_size"`
	GradAccum         int            `json:"grad_accum"`
	EffectiveBatch    int            `json:"effective_batch"`
	Precision         string         `json:"precision"`
	LoRARank          int            `json:"lora_rank"`
	Device            string         `json:"device"`
	MemoryFraction    float64        `json:"memory_fraction"`
	GradCheckpointing bool           `json:"grad_checkpointing"`
	LoaderWorkers     *int           `json:"loader_workers"` // at most so many; null: as the code likes
	Threads           int            `json:"threads"`        // of libraries that compute in parallel; 0: as the code likes
	Dir               string         `json:"dir"`
	Staging           string         `json:"staging"`
	MemoryStaging     string         `json:"memory_staging"` // likewise, and in memory; empty if there is none
	Checkpoint        *jobCheckpoint `json:"checkpoint"`
	CheckpointEvery   Every          `json:"checkpoint_every"`
	Code              jobCode        `json:"code"`
}

type jobCheckpoint struct {
	Step int64  `json:"step"`
	Path string `json:"path"`
}

type jobCode struct {
	Kind   CodeKind `json:"kind"`
	Path   string   `json:"path"`
	Shared []string `json:"shared"` // paths
}
