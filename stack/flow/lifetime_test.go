package flow

import (
	"net/netip"
	"testing"
	"time"

	"github.com/middleway-net/middleway/stack/packet"
)

// TestExpiry lets each kind of flow live exactly as long as it should.
func TestExpiry(t *testing.T) {
	type table struct {
		*Table
		there, back Copy
	}
	answer := func(x *table) { x.Lookup(x.back.Flow) }
	closing := func(flags uint8, both bool) func(x *table) {
		return func(x *table) {
			answer(x)
			x.Closing(&x.there, flags)
			if both {
				x.Closing(&x.back, flags)
			}
		}
	}
	for _, tt := range []struct {
		name  string
		proto packet.Proto
		event func(*table)
		want  time.Duration
	}{
		{"TCP opening", packet.TCP, nil, time.Minute},
		{"TCP established", packet.TCP, answer, 2*time.Hour + 10*time.Minute},
		{"TCP half closed", packet.TCP, closing(packet.FIN, false), 2*time.Hour + 10*time.Minute},
		{"TCP closed", packet.TCP, closing(packet.FIN, true), 2 * time.Minute},
		{"TCP reset", packet.TCP, closing(packet.RST, false), 10 * time.Second},
		{"TCP reset by both", packet.TCP, closing(packet.RST|packet.ACK, true), 10 * time.Second},
		{"TCP closed and reset", packet.TCP, closing(packet.FIN|packet.RST, true), 10 * time.Second},
		{"TCP closed and opened again", packet.TCP, func(x *table) {
			closing(packet.FIN, true)(x)
			x.Opening(&x.there)
			x.Opening(&x.back)
		}, 2*time.Hour + 10*time.Minute},
		{"TCP reset and opened again", packet.TCP, func(x *table) {
			closing(packet.RST, false)(x)
			x.Opening(&x.there)
		}, 2*time.Hour + 10*time.Minute},
		{"TCP, ACK alone closes nothing", packet.TCP, closing(packet.ACK|packet.PSH, true), 2*time.Hour + 10*time.Minute},
		{"SCTP opening", packet.SCTP, nil, time.Minute},
		{"SCTP established", packet.SCTP, answer, 2*time.Hour + 10*time.Minute},
		{"UDP one way", packet.UDP, nil, 30 * time.Second},
		{"UDP answered", packet.UDP, answer, 3 * time.Minute},
		{"ICMP", packet.ICMP, answer, 30 * time.Second},
		{"ICMPv6", packet.ICMPv6, nil, 30 * time.Second},
		{"another protocol", 47, answer, 30 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			plain, clock := withClock(New(512))
			f := numbered(tt.proto, 1)
			x := &table{Table: plain, there: create(plain, f, toPod, toNode, 1)}
			back, _ := plain.find(f.Reverse())
			x.back = plain.entries[back].copy(back)
			if tt.event != nil {
				tt.event(x)
			}
			clock.advance(tt.want)
			if x.sweep(); !x.has(f) || !x.has(f.Reverse()) || x.Len() != 2 {
				t.Errorf("gone after %v", tt.want)
			}
			clock.advance(time.Second)
			if x.sweep(); x.has(f) || x.Len() > 1 {
				t.Errorf("still there after more than %v", tt.want)
			}
			clock.advance(time.Hour * 3)
			if x.sweep(); x.Len() != 0 || x.Evicted() != 0 {
				t.Errorf("left over: %v", x)
			}
		})
	}
}

// TestExpiryOneWay: what keeps one direction busy keeps the other, however long it is quiet, from expiry and eviction.
func TestExpiryOneWay(t *testing.T) {
	table, clock := withClock(New(512))
	cache := NewCache(table)
	flows := sameBucket(table, packet.UDP, ways+1)
	f := flows[0]
	create(table, f, toPod, toNode, 1)
	back := f.Reverse()
	for range 20 { // f is quiet, packets come back
		clock.advance(time.Minute)
		if cache.Get(&back, clock.now()) == nil {
			t.Fatal("the busy direction is gone")
		}
		if table.sweep(); !table.has(f) || !table.has(back) {
			t.Fatal("a direction is gone")
		}
	}
	for _, other := range flows[1:ways] { // these are idler
		create(table, other, toPod, toNode, 1)
	}
	clock.advance(2 * time.Second)
	cache.Get(&back, clock.now())
	if create(table, flows[ways], toPod, toNode, 1); !table.has(f) {
		t.Error("the quiet direction was evicted, although its flow is busy")
	}
}

// TestSeenAhead: a worker may note a packet in a second that has not begun where a bucket is swept.
func TestSeenAhead(t *testing.T) {
	table, clock := withClock(New(512))
	cache := NewCache(table)
	flows := sameBucket(table, packet.TCP, ways+1)
	for _, f := range flows[:ways] {
		create(table, f, toPod, toNode, 1)
		clock.advance(time.Second)
	}
	cache.Get(&flows[3], clock.now())
	if cache.Get(&flows[3], clock.now()+1) == nil {
		t.Fatal("unknown")
	}
	if table.sweep(); !table.has(flows[3]) {
		t.Error("a busy flow expired")
	}
	if create(table, flows[ways], toPod, toNode, 1); !table.has(flows[3]) {
		t.Error("a busy flow was evicted")
	}
}

func TestEviction(t *testing.T) {
	type kind int
	const (
		established kind = iota
		opening
		expired
		translated // and closed
		asking     // translated, and never answered
	)
	for _, tt := range []struct {
		name   string
		bucket [ways]kind // by age, the oldest first
		want   int        // which one goes
	}{
		{"the one idle longest", [ways]kind{}, 0},
		{"one that is not established", [ways]kind{4: opening}, 4},
		{"of those not established the one idle longest", [ways]kind{3: opening, 6: opening}, 3},
		{"an expired one", [ways]kind{0: opening, 1: opening, 7: expired}, 7},
		{"of the expired ones the one idle longest", [ways]kind{2: expired, 5: expired}, 2},
		{"one that is over before one that begins", [ways]kind{0: opening, 4: translated, 6: asking}, 4},
		{"one that is translated and has no answer", [ways]kind{4: asking}, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table, clock := withClock(New(512))
			translate := func(f packet.Flow) packet.Flow {
				return f.WithDestination(packet.KeyOf(netip.MustParseAddr("10.244.3.2")), 8080)
			}
			flows := sameBucket(table, packet.TCP, ways+1, func(f packet.Flow) packet.Flow { t := translate(f); return t.Reverse() })
			leavesAs := func(i int) packet.Flow {
				if i < ways && tt.bucket[i] >= translated {
					return translate(flows[i])
				}
				return flows[i]
			}
			for i, f := range flows[:ways] {
				c, _ := table.Enter(&Pair{Flow: f, Translated: leavesAs(i), Verdict: toPod, Reply: toNode, Generation: 1})
				if tt.bucket[i] != opening && tt.bucket[i] != asking {
					table.Lookup(leavesAs(i).Reverse())
				}
				if tt.bucket[i] == translated {
					back, _ := table.Peek(leavesAs(i).Reverse())
					table.Closing(&c, packet.FIN)
					table.Closing(&back, packet.FIN)
				}
				if tt.bucket[i] == expired {
					table.Closing(&c, packet.RST)
				}
				clock.advance(time.Second)
			}
			clock.advance(11 * time.Second)
			for i, f := range flows[:ways] { // the others stay fresh in the same order
				if tt.bucket[i] == expired {
					continue
				}
				table.entryOf(f).seen.Store(clock.now() - uint32(ways-i))
				table.entryOf(leavesAs(i).Reverse()).seen.Store(clock.now() - uint32(ways-i))
			}
			create(table, flows[ways], toPeer, toNode, 1)
			for i, f := range flows {
				if got := table.has(f); got != (i != tt.want) {
					t.Errorf("flow %d: there %v", i, got)
				}
			}
			if table.Evicted() != 1 || table.Len() != 2*(ways+1)-1 {
				t.Errorf("evicted %d, %v", table.Evicted(), table)
			}
			if back := leavesAs(tt.want).Reverse(); !table.has(back) {
				t.Error("the evicted flow's other direction is gone as well")
			}
		})
	}
}

// TestEvictionKeepsOwn fills a bucket in which both directions of a new flow meet.
func TestEvictionKeepsOwn(t *testing.T) {
	table, _ := withClock(New(512))
	var f packet.Flow
	for i := 0; ; i++ {
		if f = numbered(packet.UDP, i); table.bucket(table.hash(f)) == table.bucket(table.hash(f.Reverse())) {
			break
		}
	}
	bucket := table.bucket(table.hash(f))
	for i, n := 0, 0; n < ways; i++ {
		g := numbered(packet.TCP, i)
		if table.bucket(table.hash(g)) == bucket && table.bucket(table.hash(g.Reverse())) != bucket {
			create(table, g, toPod, toNode, 1)
			n++
		}
	}
	for range 3 {
		if c := create(table, f, toPeer, toPod, 1); c.Verdict != toPeer || !table.has(f) || !table.has(f.Reverse()) {
			t.Fatalf("got %+v, there %v, back %v", c, table.has(f), table.has(f.Reverse()))
		}
	}
	if table.Evicted() != 2 {
		t.Errorf("evicted %d, want 2", table.Evicted())
	}
}
