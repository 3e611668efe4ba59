package components

import (
	"maps"
	"slices"
	"time"
)

// A State says whether a component can be used.
type State string

const (
	Built    State = "built"
	Outdated State = "outdated" // there, but a build would take something else now
	Missing  State = "missing"
)

// An Entry is what is known about one component.
type Entry struct {
	Name    string     `json:"name"`
	Module  string     `json:"module"`
	Version string     `json:"version"`
	State   State      `json:"state"`
	Go      string     `json:"go,omitempty"`    // the version that built it
	Built   *time.Time `json:"built,omitempty"` // when
	Seconds float64    `json:"seconds"`         // that this took
	Size    int64      `json:"size"`            // of its files, in bytes
	Files   []string   `json:"files"`           // relative to the cache's folder
}

// List returns all components in the order in which they are built.
func (c Cache) List() []Entry {
	entries := make([]Entry, len(catalogue))
	for i, component := range catalogue {
		e := Entry{Name: component.Name, Module: component.Module.Path, Version: component.Module.Version, State: Missing, Files: []string{}}
		if s, ok := c.stamp(component.Name); ok {
			e.State, e.Version, e.Go, e.Built, e.Seconds, e.Size = Outdated, s.Version, s.Go, &s.Built, s.Seconds, s.Size()
			e.Files = slices.Sorted(maps.Keys(s.Files))
			if c.built(component) {
				e.State = Built
			}
		}
		entries[i] = e
	}
	return entries
}
