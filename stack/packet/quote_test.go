package packet

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// aboutIt is an ICMP error about the packet that s is, of which it quotes at most n bytes.
func (s spec) aboutIt(src, dst string, kind byte, n int) spec {
	quoted := s.build()
	e := spec{src: src, dst: dst, v6: s.v6, proto: ICMP, payload: append([]byte{kind, 1, 0, 0, 0, 0, 5, 0xaa}, quoted[:min(n, len(quoted))]...)}
	if s.v6 {
		e.proto = ICMPv6
	}
	return e
}

// TestTranslateQuote: what comes out is the error about the packet as it was before translation.
func TestTranslateQuote(t *testing.T) {
	const router4, router6 = "192.168.254.1", "fd00:254::1"
	hop := func(s *spec) { s.extFirst, s.ext = HopByHop, extensions(1, UDP) }
	for _, tt := range []struct {
		name   string
		was    spec // as it was sent, with its source as third4 or third6
		kind   byte
		cut    int
		router bool // sent by a router in the middle
	}{
		{"UDP, port unreachable", udp4(30), 3, 1000, false},
		{"UDP, cut behind its header", udp4(30), 3, 28, false},
		{"UDP over IPv6", udp6(30), 1, 1000, false},
		{"UDP over IPv6, too big", udp6(1200), 2, 1232, true},
		{"UDP behind extension headers", udp6(30).with(hop), 1, 1000, false},
		{"TCP, fragmentation needed", tcp4(1400), 3, 548, true},
		{"TCP, cut in its header", tcp4(1400), 3, 28, true},
		{"TCP over IPv6, time exceeded", tcp6(30), 3, 1000, true},
		{"first piece of a packet", udp4(30).with(func(s *spec) { s.frag = 0x2000 }), 11, 28, true},
		{"behind IPv4 options", udp4(30).with(func(s *spec) { s.ipOptions = make([]byte, 8) }), 12, 1000, false},
		{"ICMP echo", echo4(30), 11, 28, true},
		{"ICMPv6 echo", echo6(30), 3, 1000, true},
		{"no ports", spec{proto: 50, payload: bytesOf(40)}, 3, 28, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src, host, pod, router := other4, third4, "10.244.2.3", router4
			if tt.was.v6 {
				src, host, pod, router = other6, third6, "fd00:10:244:2::3", router6
			}
			was := tt.was.moved(host, pod, 4000, 53)
			left := tt.was.moved(src, pod, 5000, 53)
			by := pod
			if tt.router {
				by = router
			}
			b := left.aboutIt(by, src, tt.kind, tt.cut).build()
			want := was.aboutIt(by, host, tt.kind, tt.cut).build()
			p := parsed(t, b)
			var q Quote
			if !ParseQuote(b, p, &q) {
				t.Fatal("no quote found")
			}
			whole := was
			whole.frag = 0 // pieces have no ports for Parse
			to := whole.flowOf(t)
			if reason := TranslateQuote(b, p, &q, &to); reason != Kept {
				t.Fatal(reason)
			}
			if diff := cmp.Diff(want, b); diff != "" {
				t.Errorf("translated (-want +got):\n%s", diff)
			}
			if again := parsed(t, b); *again != *p || !TransportChecksumOK(b, p) {
				t.Errorf("headers: got %+v, want %+v", *p, *again)
			}
		})
	}
}

func TestParseQuoteRefuses(t *testing.T) {
	whole := udp4(30)
	for _, tt := range []struct {
		name string
		s    spec
	}{
		{"no ICMP", udp4(40)},
		{"an echo", echo4(40)},
		{"an ICMPv6 echo", echo6(40)},
		{"a redirect", whole.aboutIt("", "", 5, 100)},
		{"no more than its header", whole.aboutIt("", "", 3, 0)},
		{"half an IP header", whole.aboutIt("", "", 3, 19)},
		{"no ports", whole.aboutIt("", "", 3, 23)},
		{"half an IPv6 header", udp6(30).aboutIt("", "", 1, 39)},
		{"no IPv6 ports", udp6(30).aboutIt("", "", 1, 43)},
		{"half an echo", echo4(30).aboutIt("", "", 3, 27)},
		{"a piece of the middle", udp4(30).with(func(s *spec) { s.frag = 0x2001 }).aboutIt("", "", 3, 100)},
		{"a piece over IPv6", udp6(30).with(func(s *spec) { s.extFirst, s.ext = FragmentHdr, fragmentHeader(UDP, 1) }).aboutIt("", "", 3, 100)},
		{"of the other family", spec{proto: ICMP, payload: append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, udp6(30).build()...)}},
		{"an error about an error", whole.aboutIt("", "", 3, 100).aboutIt("", "", 3, 100)},
		{"a piece of an error", udp4(36).aboutIt("", "", 3, 100).with(func(s *spec) { s.frag = 0x2000 })},
		{"a header length that is none", whole.aboutIt("", "", 3, 100).with(func(s *spec) { s.payload[8] = 0x42 })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.s.build()
			var q Quote
			if ParseQuote(b, parsed(t, b), &q) {
				t.Errorf("got %+v", q)
			}
		})
	}
}

func TestTranslateQuoteWrongSum(t *testing.T) {
	b := udp4(30).aboutIt("10.244.2.3", "10.244.1.2", 3, 100).build()
	b[len(b)-1] ^= 1
	before := bytes.Clone(b)
	var q Quote
	p := parsed(t, b)
	if !ParseQuote(b, p, &q) {
		t.Fatal("no quote found")
	}
	to := udp4(30).moved(other4, third4, 1, 2).flowOf(t)
	if got := TranslateQuote(b, p, &q, &to); got != DropChecksum || !bytes.Equal(b, before) {
		t.Errorf("got %v, changed %v; want %v", got, !bytes.Equal(b, before), DropChecksum)
	}
}

func TestQuoteAllocs(t *testing.T) {
	b := udp4(30).aboutIt("10.244.2.3", "10.244.1.2", 3, 100).build()
	to := udp4(30).moved(other4, third4, 1, 2).flowOf(t)
	if n := testing.AllocsPerRun(100, func() {
		var p Parsed
		var q Quote
		Parse(b, &p)
		ParseQuote(b, &p, &q)
		TranslateQuote(b, &p, &q, &to)
	}); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

// FuzzQuote: nothing that parses as an error is read or written beyond its end, and what is translated still parses.
func FuzzQuote(f *testing.F) {
	for _, s := range []spec{udp4(30), tcp4(30), echo4(8), udp6(30), tcp6(30), echo6(8), udp6(5).with(func(s *spec) { s.extFirst, s.ext = HopByHop, extensions(3, UDP) })} {
		kind := byte(3)
		f.Add(s.aboutIt("", "", kind, 1000).build())
		f.Add(s.aboutIt("", "", kind, 48).build())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Parsed
		var q Quote
		if Parse(b, &p) != Kept || !ParseQuote(b, &p, &q) {
			return
		}
		behind := bytes.Clone(b[p.Len:])
		to := q.Flow.WithSource(KeyOf(q.Flow.Dst()), 7)
		if !q.Flow.HasPorts() {
			to = q.Flow.WithSource(KeyOf(q.Flow.Dst()), q.Flow.SrcPort())
		}
		if TranslateQuote(b, &p, &q, &to) != Kept {
			return
		}
		var again Parsed
		var quoted Quote
		if reason := Parse(b, &again); reason != Kept || again != p || !TransportChecksumOK(b, &p) {
			t.Fatalf("%v: parses as %+v, want %+v", reason, again, p)
		}
		if !ParseQuote(b, &p, &quoted) || quoted.Flow != to {
			t.Fatalf("quotes %v, want %v", quoted.Flow, to)
		}
		if !bytes.Equal(behind, b[p.Len:]) {
			t.Fatal("wrote behind the packet")
		}
	})
}
