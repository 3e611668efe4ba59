package flow

import (
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/middleway-net/middleway/stack/packet"
)

func key(i int) packet.AddrKey {
	return packet.KeyOf(netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)}))
}

var backend, another = key(0x202), key(0x203)

// TestAffinity: what was remembered is recalled for its client and port, until as long has passed since the last connection as
// the Service says.
func TestAffinity(t *testing.T) {
	table, clock := withClock(New(0))
	recalls := func(what string, client packet.AddrKey, id uint64, within time.Duration, want packet.AddrKey, ok bool) {
		t.Helper()
		addr, port, got := table.Recall(client, id, within)
		if got != ok || ok && (addr != want || port != 8080) {
			t.Errorf("%s: got %v:%d, %v, want %v", what, addr.Addr(), port, got, ok)
		}
	}
	recalls("before", key(1), 7, time.Hour, backend, false)
	table.Remember(key(1), 7, backend, 8080)
	recalls("at once", key(1), 7, time.Hour, backend, true)
	recalls("another client", key(2), 7, time.Hour, backend, false)
	recalls("another port", key(1), 8, time.Hour, backend, false)
	clock.advance(9 * time.Second)
	recalls("in time", key(1), 7, 10*time.Second, backend, true)
	clock.advance(time.Second)
	recalls("too late: asking does not count", key(1), 7, 10*time.Second, backend, false)
	table.Remember(key(1), 7, another, 8080)
	clock.advance(9 * time.Second)
	recalls("from the last connection on", key(1), 7, 10*time.Second, another, true)
	clock.advance(24*time.Hour - 10*time.Second)
	recalls("the longest that Kubernetes knows", key(1), 7, 24*time.Hour, another, true)
}

// A full table gives up what was used longest ago, and holds no more than it has room for.
func TestAffinityBounded(t *testing.T) {
	table, clock := withClock(New(512))
	room := affinitiesBeside(512)
	for i := range 50 * room {
		clock.advance(time.Second)
		table.Remember(key(i), 7, backend, 8080)
		if _, _, ok := table.Recall(key(i), 7, time.Hour); !ok {
			t.Fatalf("client %d is not remembered", i)
		}
	}
	newest, known := 0, 0
	for i := range 50 * room {
		if _, _, ok := table.Recall(key(i), 7, 1e6*time.Hour); ok {
			known++
			if i >= 48*room {
				newest++
			}
		}
	}
	if known > room || known < room*9/10 {
		t.Errorf("%d clients are known, of room for %d", known, room)
	}
	if newest < known*3/4 {
		t.Errorf("of %d known clients %d are of the newest: others should have been given up", known, newest)
	}
}

// What a daemon remembered the next one recalls, but for what it was writing when it died.
func TestAffinityStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flows")
	table, err := Open(path, 512)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		table.Remember(key(i), 7, backend, 8080)
	}
	bucket, _ := table.affinities.bucket(key(3), 7, table.head.seed)
	for i := range bucket {
		if bucket[i].is(key(3), 7) {
			bucket[i].version.Add(1) // torn
		}
	}
	if err := table.Close(); err != nil {
		t.Fatal(err)
	}
	table, err = Open(path, 512)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = table.Close() }()
	for i := range 8 {
		if addr, port, ok := table.Recall(key(i), 7, time.Hour); ok != (i != 3) || ok && (addr != backend || port != 8080) {
			t.Errorf("client %d: got %v:%d, %v", i, addr.Addr(), port, ok)
		}
	}
}

func TestAffinityAllocs(t *testing.T) {
	table := New(512)
	i := 0
	if n := testing.AllocsPerRun(1000, func() {
		i++
		table.Remember(key(i), 7, backend, 8080)
		table.Recall(key(i), 7, time.Hour)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
