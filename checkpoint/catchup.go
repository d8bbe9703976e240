package checkpoint

import (
	"encoding/json"
	"os"
	"path/filepath"

	"outlast/checkpoint/durable"
)

// confirmedName is the file, on disk, that says what a store has confirmed. Lost
// it costs time: what it says is asked for again.
const confirmedName = "mirrored.json"

// confirmed says of each model's latest checkpoint, and of its final one, what a
// store has said of it.
type confirmed struct {
	Store string                  `json:"store"` // its address
	Said  map[string]confirmation `json:"said"`
}

// A confirmation is about one manifest, and with it about all that it lists.
type confirmation struct {
	SHA256     string     `json:"sha256"` // of the manifest
	Durability Durability `json:"durability"`
}

// readConfirmed returns what this store has said, as far as that was noted.
func readConfirmed(runDir, store string) confirmed {
	var c confirmed
	data, err := os.ReadFile(filepath.Join(runDir, confirmedName))
	if err != nil || json.Unmarshal(data, &c) != nil || c.Store != store {
		return confirmed{Store: store}
	}
	return c
}

func (c confirmed) save(runDir string) error {
	return durable.WriteJSON(filepath.Join(runDir, confirmedName), c)
}

func (it item) key() string {
	if it.final {
		return it.model + "/" + finalName
	}
	return it.model + "/" + checkpointsName
}

func (c *confirmed) add(it *item, manifest []byte, d Durability) {
	if c.Said == nil {
		c.Said = map[string]confirmation{}
	}
	c.Said[it.key()] = confirmation{digestOf(manifest).SHA256, d}
}

// catchUp, at its first call, queues what an earlier process has saved and not
// copied. known says that the store has seen this run's history: what it has
// confirmed then it is taken to have still. What a scrub has found, or a person has
// removed, is not told here; without mirrored.json all is asked for again.
func (m *Mirror) catchUp(known bool) {
	if m.claimed {
		return
	}
	m.claimed = true
	was := readConfirmed(m.runDir(), m.URL)
	m.known = confirmed{Store: m.URL}
	if known {
		m.known = was
	}
	models, err := modelsIn(m.runDir())
	if err != nil {
		m.Log.Warn("earlier checkpoints not looked for", "error", err)
		return
	}
	k := &Keeper{Dir: m.runDir()}
	for _, model := range models {
		m.catchUpModel(k, model, was)
	}
}

// catchUpModel looks at the best that is there of a model: its final checkpoint,
// or the newest that is sealed. What a store was to have, and has not any more,
// is on this disk only.
func (m *Mirror) catchUpModel(k *Keeper, model string, was confirmed) {
	m.catchUpBest(k, model)
	for _, dir := range k.places(model) {
		data, manifest, err := manifestBytes(dir)
		if err != nil || manifest.Model != model {
			continue
		}
		it := item{model: model, step: manifest.Step, final: manifest.Final}
		if said, ok := m.known.Said[it.key()]; ok && said.SHA256 == digestOf(data).SHA256 {
			m.tell(&it, said.Durability)
			return
		}
		if said, ok := was.Said[it.key()]; ok && said.SHA256 == digestOf(data).SHA256 && m.OnDone != nil {
			m.OnDone(model, it.step, it.final, Local)
		}
		it.earlier = true
		m.add(it, dir)
		return
	}
}
