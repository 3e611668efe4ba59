package lab

import "sync"

// maxLearned bounds the switch's table, in addresses. A lab has a few per node; a program that sends random source
// addresses must not fill the memory.
const maxLearned = 4096

type macAddr [6]byte

// group reports whether the address is a multicast or broadcast address (IEEE 802: lowest bit of the first byte).
func (a macAddr) group() bool { return a[0]&1 != 0 }

// macTable is a learning switch's memory: the port behind which each address was last seen. Entries do not age; an
// address that moves is learned anew with its first frame.
type macTable struct {
	mu    sync.RWMutex
	ports map[macAddr]int
}

// learn notes that frames from an address come in by a port.
func (t *macTable) learn(src macAddr, port int) {
	if src.group() {
		return // no valid source
	}
	t.mu.RLock()
	known, ok := t.ports[src]
	t.mu.RUnlock()
	if ok && known == port {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ports == nil || len(t.ports) >= maxLearned {
		t.ports = make(map[macAddr]int)
	}
	t.ports[src] = port
}

// lookup returns the port behind which dst is; false for addresses of groups and unknown ones, which go to all.
func (t *macTable) lookup(dst macAddr) (int, bool) {
	if dst.group() {
		return 0, false
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	port, ok := t.ports[dst]
	return port, ok
}
