package fragment

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
)

// A source that floods the table with first fragments does not push out those of others: it pushes out its own.
func TestFlood(t *testing.T) {
	table := New()
	now := time.Duration(0)
	for i := range 20_000 {
		now += time.Microsecond
		flood := packettest.Packet{Src: podA, Dst: podB, ID: uint16(i)}
		through(t, table, pieces(t, flood, 1300)[0], now)
		if i%10 > 0 {
			continue
		}
		other := pieces(t, packettest.Packet{Src: podB, Dst: podA, SrcPort: 9, ID: uint16(i)}, 1300)
		through(t, table, other[0], now)
		if got := through(t, table, other[1], now); len(got) != 1 {
			t.Fatalf("packet %d: got %v", i, got)
		}
	}
}

// TestFloodOfAbandoned: first fragments that nothing follows, from one source of the same shard, fill the table for their whole
// lifetime. What others have in it stays: those that wait for their first, and those that are known.
func TestFloodOfAbandoned(t *testing.T) {
	table := New()
	other := podB
	id := func(src netip.Addr) packet.PacketID {
		return parse(t, pieces(t, packettest.Packet{Src: src, Dst: podB}, 1300)[0]).PacketID()
	}
	shardOf := func(src netip.Addr) *shard { id := id(src); return table.shard(&id) }
	for other = other.Next(); shardOf(other) != shardOf(podA); {
		other = other.Next()
	}
	flood := func(ids int, now time.Duration) {
		for i := range ids {
			through(t, table, pieces(t, packettest.Packet{Src: podA, Dst: podB, ID: uint16(i)}, 1300)[0], now)
		}
	}
	for round := range time.Duration(20) {
		now := round * 100 * time.Millisecond
		flood(4*shardPackets, now)
		early := pieces(t, packettest.Packet{Src: other, Dst: podA, SrcPort: 9, ID: uint16(2 * round)}, 1300)
		inOrder := pieces(t, packettest.Packet{Src: other, Dst: podA, SrcPort: 9, ID: uint16(2*round + 1)}, 1300)
		through(t, table, early[1], now)
		through(t, table, inOrder[0], now)
		flood(4*shardPackets, now+time.Millisecond)
		if got := through(t, table, early[0], now+time.Millisecond); len(got) != 2 {
			t.Errorf("round %d: the fragment that came early is lost: %v", round, got)
		}
		if got := through(t, table, inOrder[1], now+time.Millisecond); len(got) != 1 {
			t.Errorf("round %d: the fragment that came late is lost: %v", round, got)
		}
	}
	if n := table.drops()["fragments-full"]; n != 0 {
		t.Errorf("%d were pushed out", n)
	}
}

// TestVictim: who makes room in a full bucket.
func TestVictim(t *testing.T) {
	const known, waits, done = "known", "waits", "done"
	type row struct {
		src  netip.Addr
		came time.Duration
		kind string
	}
	a, b, c := podA, podB, podA6
	for _, tt := range []struct {
		name     string
		newcomer netip.Addr
		rows     [ways]row
		want     int
	}{
		{"the oldest of one's own", a, [ways]row{{a, 5, known}, {a, 3, known}, {a, 4, waits}, {a, 9, known}, {a, 9, known}, {a, 9, known}, {a, 9, known}, {a, 9, known}}, 1},
		{"not what waits before what is older", a, [ways]row{{a, 5, known}, {a, 4, known}, {a, 6, waits}, {a, 9, known}, {a, 9, known}, {a, 9, known}, {a, 9, known}, {a, 9, known}}, 1},
		{"what has passed first", a, [ways]row{{a, 5, known}, {a, 3, known}, {a, 8, done}, {a, 9, known}, {a, 9, known}, {a, 9, known}, {a, 9, known}, {a, 9, known}}, 2},
		{"of him who has most", c, [ways]row{{b, 1, waits}, {b, 1, known}, {b, 1, known}, {a, 9, known}, {a, 8, known}, {a, 9, waits}, {a, 9, known}, {a, 9, known}}, 4},
		{"one's own among equals", b, [ways]row{{a, 1, known}, {a, 1, known}, {a, 1, known}, {a, 1, known}, {b, 9, known}, {b, 8, known}, {b, 9, waits}, {b, 9, known}}, 5},
		{"not one's own where another has more", b, [ways]row{{a, 1, known}, {a, 1, known}, {a, 1, known}, {a, 1, known}, {a, 2, known}, {b, 8, known}, {b, 9, waits}, {b, 9, known}}, 0},
	} {
		var full bucket
		for i, r := range tt.rows {
			e := &full[i]
			e.id = parse(t, pieces(t, packettest.Packet{Src: r.src, Dst: map[bool]netip.Addr{true: podB, false: podB6}[r.src.Is4()], ID: uint16(i)}, 1300)[0]).PacketID()
			at := 100*time.Second + r.came*time.Millisecond
			switch r.kind {
			case known:
				e.known, e.deadline = true, at+lifetime
			case done:
				e.known, e.deadline = true, at+lingering
			case waits:
				e.deadline = at + waitFor
			}
		}
		id := parse(t, pieces(t, packettest.Packet{Src: tt.newcomer, Dst: map[bool]netip.Addr{true: podB, false: podB6}[tt.newcomer.Is4()], ID: 99}, 1300)[0]).PacketID()
		if got := full.victim(&id); got != &full[tt.want] {
			t.Errorf("%s: entry %d", tt.name, slices.IndexFunc(full[:], func(e entry) bool { return e.id == got.id }))
		}
	}
}
