package k8s

import (
	"time"

	"github.com/middleway-net/middleway/k8s/object"
)

// Stats are what a Pipeline counts.
type Stats struct {
	// Synced: the source has told all kinds. What is in force before is what a former daemon kept.
	Synced bool `json:"synced"`
	// Objects are how many there are, by kind.
	Objects map[string]int `json:"objects"`
	// Compiled is how many times a Service was compiled.
	Compiled uint64 `json:"compiled"`
	// Changes is how many times something that changed came into force, Last when it did so last.
	Changes uint64    `json:"changes"`
	Last    time.Time `json:"last"`
	// Latency is the time from a change in the store until it was in force: of the last one, the longest since the start, and the
	// sum of all.
	Latency    time.Duration `json:"latency"`
	LatencyMax time.Duration `json:"latencyMax"`
	LatencySum time.Duration `json:"latencySum"`
}

// Stats returns the counts by now.
func (p *Pipeline) Stats() Stats {
	p.mu.Lock()
	s := p.stats
	p.mu.Unlock()
	s.Synced = p.store.AllSynced()
	s.Objects = map[string]int{}
	for _, kind := range object.Kinds {
		s.Objects[kind.String()] = p.store.Len(kind)
	}
	return s
}

func (p *Pipeline) countCompiled(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.Compiled += uint64(n)
}

// measure notes that changes are in force now. The first whole set is none: it is as slow as its source.
func (p *Pipeline) measure(c Changes) {
	if c.Since.IsZero() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.stats
	s.Changes++
	s.Last = time.Now()
	s.Latency = s.Last.Sub(c.Since)
	s.LatencyMax = max(s.LatencyMax, s.Latency)
	s.LatencySum += s.Latency
}
