package object

import "sync"

// names holds one copy of each string that many objects share: names of nodes, zones, namespaces and ports, of which a cluster
// has few. Each object is decoded by itself, and 100,000 endpoints would otherwise hold 100,000 copies.
var names = struct {
	mu  sync.Mutex
	all map[string]string
}{all: map[string]string{}}

// maxNames bounds the copies: a cluster that goes through more begins anew.
const maxNames = 1 << 16

// shared returns the copy of s that all objects share.
func shared(s string) string {
	if s == "" {
		return ""
	}
	names.mu.Lock()
	defer names.mu.Unlock()
	if one, ok := names.all[s]; ok {
		return one
	}
	if len(names.all) == maxNames {
		clear(names.all)
	}
	names.all[s] = s
	return s
}
