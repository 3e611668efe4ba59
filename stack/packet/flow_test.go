package packet

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

func randomFlow(r *rand.Rand) (Proto, netip.AddrPort, netip.AddrPort) {
	addr := func(v6 bool) netip.Addr {
		if v6 {
			return netip.AddrFrom16([16]byte(append([]byte{0xfd}, randomBytes(r, 15)...)))
		}
		return netip.AddrFrom4([4]byte(randomBytes(r, 4)))
	}
	v6 := r.IntN(2) == 0
	return Proto(r.Uint32()), netip.AddrPortFrom(addr(v6), uint16(r.Uint32())), netip.AddrPortFrom(addr(v6), uint16(r.Uint32()))
}

func TestFlow(t *testing.T) {
	r := seeded(t)
	for range 10_000 {
		proto, src, dst := randomFlow(r)
		f := NewFlow(proto, src, dst)
		if f.Proto() != proto || f.Src() != src.Addr() || f.Dst() != dst.Addr() || f.SrcPort() != src.Port() || f.DstPort() != dst.Port() {
			t.Fatalf("NewFlow(%v, %v, %v): got %v", proto, src, dst, f)
		}
		if got, want := f.Reverse(), NewFlow(proto, dst, src); got != want {
			t.Fatalf("Reverse: got %v, want %v", got, want)
		}
		if f.Reverse().Reverse() != f {
			t.Fatalf("%v does not come back", f)
		}
		if !f.From(KeyOf(src.Addr())) || src.Addr() != dst.Addr() && f.From(KeyOf(dst.Addr())) {
			t.Fatalf("From: wrong for %v", f)
		}
		if again := NewFlow(proto, src, dst); f.Hash(1) != again.Hash(1) || f.Hash(1) == f.Hash(2) {
			t.Fatalf("Hash of %v: not a function of flow and seed", f)
		}
	}
	if f := NewFlow(TCP, netip.MustParseAddrPort("10.244.1.2:1"), netip.MustParseAddrPort("10.244.1.3:2")); f.From(KeyOf(netip.MustParseAddr("::10.244.1.2"))) {
		t.Error("an IPv6 address is the source of an IPv4 flow")
	}
}

// TestHashDistribution counts, for sets of flows that differ little, how evenly the parts of the hash that are used spread
// over 256 slots. With a seed of zero too: lanes are chosen with it.
func TestHashDistribution(t *testing.T) {
	const slots, each = 256, 64
	flow := func(proto Proto, src, dst string) Flow {
		return NewFlow(proto, netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst))
	}
	at := func(f Flow, add uint64, where string) Flow {
		switch where {
		case "source":
			f.src[1] += add
		case "destination":
			f.dst[1] += add
		case "source prefix":
			f.src[0] += add << 16
		case "source port":
			f.ports += add << 32
		case "destination port":
			f.ports += add << 16
		}
		return f
	}
	v4, v6 := flow(TCP, "10.244.0.0:1", "10.96.0.1:1"), flow(UDP, "[fd00:10:244::]:1", "[fd00:10:96::1]:1")
	for _, seed := range []uint64{0, 1, rand.Uint64()} {
		for _, tt := range []struct {
			base  Flow
			where string
		}{
			{v4, "source"}, {v4, "destination"}, {v4, "source port"}, {v4, "destination port"},
			{v6, "source"}, {v6, "destination"}, {v6, "source prefix"}, {v6, "source port"}, {v6, "destination port"},
			// What a sender might choose so that a factor becomes zero; the seed keeps him from it.
			{flowWith(v6, 0xa0761d6478bd642f, 0xe7037ed1a0b428db), "source prefix"},
		} {
			if seed == 0 && tt.base.src[1] == 0xa0761d6478bd642f {
				continue
			}
			for _, shift := range []uint{0, 20, 32} {
				var count [slots]int
				for i := range uint64(slots * each) {
					f := at(tt.base, i, tt.where)
					count[f.Hash(seed)>>shift%slots]++
				}
				// Chi-squared with 255 degrees of freedom: mean 255, deviation 22.6; 420 is 7 deviations off.
				chi := 0.0
				for _, n := range count {
					chi += float64((n-each)*(n-each)) / each
				}
				if chi > 420 {
					t.Errorf("seed %d, %v and on by %s, bits from %d: chi-squared %.0f", seed, tt.base, tt.where, shift, chi)
				}
			}
		}
	}
}

func flowWith(f Flow, src, dst uint64) Flow {
	f.src[1], f.dst[1] = src, dst
	return f
}

func TestHashAllocs(t *testing.T) {
	f := NewFlow(TCP, netip.MustParseAddrPort("10.244.1.2:1"), netip.MustParseAddrPort("10.244.1.3:2"))
	var sum uint64
	if n := testing.AllocsPerRun(100, func() { sum += f.Hash(1) + uint64(f.Reverse().ports) }); n != 0 {
		t.Errorf("Hash: got %v allocations, want 0", n)
	}
	_ = sum
}

func BenchmarkHash(b *testing.B) {
	f := NewFlow(TCP, netip.MustParseAddrPort("10.244.1.2:1"), netip.MustParseAddrPort("10.244.1.3:2"))
	b.ReportAllocs()
	var sum uint64
	for b.Loop() {
		sum += f.Hash(sum)
	}
}

func TestProtoString(t *testing.T) {
	for p, want := range map[Proto]string{TCP: "tcp", UDP: "udp", SCTP: "sctp", ICMP: "icmp", ICMPv6: "icmpv6", 47: "47"} {
		if got := p.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestDrops(t *testing.T) {
	var d Drops
	seen := map[string]bool{}
	for r := range numDropReasons {
		if name := r.String(); name == "" || seen[name] {
			t.Errorf("reason %d: name %q is empty or taken", r, name)
		} else {
			seen[name] = true
		}
	}
	if got := numDropReasons.String(); got != "unknown" {
		t.Errorf("beyond the reasons: got %q", got)
	}
	if names := DropNames(); len(names) != len(seen)-1 || slices.Contains(names, Kept.String()) || !slices.Contains(names, "send") {
		t.Errorf("names: %v", names)
	}
	d.Add(DropTTL, 2)
	d.Add(DropTTL, 3)
	d.Add(DropSend, 1)
	sum := map[string]uint64{"ttl": 10}
	d.AddTo(sum)
	if len(sum) != 2 || sum["ttl"] != 15 || sum["send"] != 1 {
		t.Errorf("got %v, want ttl 15 and send 1", sum)
	}
}
