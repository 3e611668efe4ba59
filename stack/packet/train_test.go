package packet

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
)

// flatten joins what Finish returned.
func flatten(t *Train) []byte {
	frame, more := t.Finish()
	flat := append([]byte(nil), frame...)
	for _, m := range more {
		flat = append(flat, m...)
	}
	return flat
}

// merge starts a train with the first packet and appends the others; it fails if one does not join.
func merge(t testing.TB, train *Train, segs [][]byte, offload func(*Parsed) Offload) {
	t.Helper()
	for i, s := range segs {
		p := parsed(t, s)
		if i == 0 {
			train.Start(framed(s), p, offload(p))
		} else if !train.Append(s, p, offload(p)) {
			t.Fatalf("packet %d of %d did not join", i+1, len(segs))
		}
	}
}

func complete(*Parsed) Offload { return Offload{} }

// TestTrainRestores splits random super-packets and merges the segments again: the result is the original bit for bit.
func TestTrainRestores(t *testing.T) {
	r := seeded(t)
	var train Train
	for i := range 2000 {
		size := 1 + r.IntN(1500)
		count := 2 + r.IntN(MaxTrain-1)
		if i%2 == 0 {
			count = 2 + r.IntN(5)
		}
		n := min((count-1)*size+1+r.IntN(size), 65_000) // a header takes up to 100 bytes
		s := random(r, n)
		if s.flags &= ACK | PSH | ECE; s.proto == UDP && n > size*maxUDPTrain {
			continue
		}
		if n <= size {
			continue
		}
		b, p, o := s.super(t, size)
		offload := complete
		partial := r.IntN(2) == 0
		if partial {
			offload = PartialOffload
		}
		segs := walk(t, b, p, o, partial)
		merge(t, &train, segs, offload)
		if train.Count() != len(segs) || train.Len() != p.Len || train.Empty() {
			t.Fatalf("got %d packets, %d bytes, want %d, %d", train.Count(), train.Len(), len(segs), p.Len)
		}
		want := framed(b)
		o.Encode(want)
		if got := flatten(&train); !bytes.Equal(got, want) {
			k := min(len(want), 120)
			t.Fatalf("%d segments of %d:\ngot  % x\nwant % x", len(segs), size, got[:k], want[:k])
		}
		train.Reset()
		if !train.Empty() || train.Count() != 0 {
			t.Fatal("not empty after Reset")
		}
	}
}

// TestTrainJoins has a row for each rule. first and second follow each other without a gap but for what edit changes.
func TestTrainJoins(t *testing.T) {
	options := bytesOf(12)
	both := func(f func(s *spec)) func(a, b *spec) { return func(a, b *spec) { f(a); f(b) } }
	for _, tt := range []struct {
		name string
		base spec
		edit func(a, b *spec)
		want bool
	}{
		{"TCP", tcp4(100), nil, true},
		{"TCP over IPv6", tcp6(100), nil, true},
		{"UDP", udp4(100), nil, true},
		{"UDP over IPv6", udp6(100), nil, true},
		{"the same options", tcp4(100), both(func(s *spec) { s.options = options }), true},
		{"a shorter one", tcp4(100), func(_, b *spec) { b.payload = b.payload[:1] }, true},
		{"a shorter UDP one", udp6(100), func(_, b *spec) { b.payload = b.payload[:1] }, true},
		{"PSH on the second", tcp4(100), func(_, b *spec) { b.flags |= PSH }, true},
		{"ECE on both", tcp4(100), both(func(s *spec) { s.flags |= ECE }), true},
		{"ECN on both", udp4(100), both(func(s *spec) { s.tos = 3 }), true},
		{"IDs wrap", tcp4(100), func(a, b *spec) { a.id, b.id = 0xffff, 0 }, true},
		{"sequence numbers wrap", tcp4(100), func(a, b *spec) { a.seq, b.seq = 0xffffffff, 99 }, true},
		{"without DF", tcp4(100), both(func(s *spec) { s.frag = 0 }), true},

		{"a longer one", tcp4(100), func(_, b *spec) { b.payload = bytesOf(101) }, false},
		{"a longer UDP one", udp4(100), func(_, b *spec) { b.payload = bytesOf(101) }, false},
		{"an empty one", tcp4(100), func(_, b *spec) { b.payload = nil }, false},
		{"an empty UDP one", udp4(100), func(_, b *spec) { b.payload = nil }, false},
		{"an empty first one", tcp4(100), func(a, b *spec) { a.payload, b.seq = nil, a.seq }, false},
		{"PSH on the first", tcp4(100), func(a, _ *spec) { a.flags |= PSH }, false},
		{"PSH on both", tcp4(100), both(func(s *spec) { s.flags |= PSH }), false},
		{"ECE on the second", tcp4(100), func(_, b *spec) { b.flags |= ECE }, false},
		{"ECE on the first", tcp4(100), func(a, _ *spec) { a.flags |= ECE }, false},
		{"CWR on the first", tcp4(100), func(a, _ *spec) { a.flags |= CWR }, false},
		{"FIN on the second", tcp4(100), func(_, b *spec) { b.flags |= FIN }, false},
		{"SYN", tcp4(100), both(func(s *spec) { s.flags = SYN }), false},
		{"SYN ACK", tcp4(100), both(func(s *spec) { s.flags = SYN | ACK }), false},
		{"RST", tcp4(100), func(_, b *spec) { b.flags |= RST }, false},
		{"URG", tcp4(100), both(func(s *spec) { s.flags |= URG }), false},
		{"no ACK", tcp4(100), both(func(s *spec) { s.flags = 0 }), false},
		{"a gap", tcp4(100), func(_, b *spec) { b.seq++ }, false},
		{"an overlap", tcp4(100), func(_, b *spec) { b.seq-- }, false},
		{"the same again", tcp4(100), func(a, b *spec) { b.seq = a.seq }, false},
		{"another acknowledgment", tcp4(100), func(_, b *spec) { b.ack++ }, false},
		{"another window", tcp4(100), func(_, b *spec) { b.window++ }, false},
		{"another urgent pointer", tcp4(100), func(_, b *spec) { b.urgent++ }, false},
		{"other options", tcp4(100), func(a, b *spec) { a.options, b.options = options, make([]byte, 12) }, false},
		{"fewer options", tcp4(100), func(a, b *spec) { a.options, b.options = options, options[:8] }, false},
		{"another source port", tcp4(100), func(_, b *spec) { b.sport++ }, false},
		{"another destination port", udp4(100), func(_, b *spec) { b.dport++ }, false},
		{"another source", udp6(100), func(_, b *spec) { b.src = "fd00:10:244:1::9" }, false},
		{"another destination", tcp4(100), func(_, b *spec) { b.dst = "10.244.2.9" }, false},
		{"another protocol", tcp4(100), func(_, b *spec) { b.proto = UDP }, false},
		{"another family", tcp4(100), func(_, b *spec) { b.v6, b.frag = true, 0 }, false},
		{"another TOS", tcp4(100), func(_, b *spec) { b.tos = 4 }, false},
		{"congestion seen by the second", tcp4(100), func(a, b *spec) { a.tos, b.tos = 2, 3 }, false},
		{"another TTL", tcp4(100), func(_, b *spec) { b.ttl = 63 }, false},
		{"another hop limit", tcp6(100), func(_, b *spec) { b.ttl = 63 }, false},
		{"another traffic class", tcp6(100), func(_, b *spec) { b.tos = 4 }, false},
		{"another flow label", tcp6(100), func(_, b *spec) { b.label = 4 }, false},
		{"DF on one", tcp4(100), func(_, b *spec) { b.frag = 0 }, false},
		{"the reserved flag on one", tcp4(100), func(_, b *spec) { b.frag |= 0x8000 }, false},
		{"ID too far", tcp4(100), func(_, b *spec) { b.id++ }, false},
		{"ID the same", udp4(100), func(a, b *spec) { b.id = a.id }, false},
		{"IPv4 options", tcp4(100), both(func(s *spec) { s.ipOptions = []byte{1, 1, 1, 0} }), false},
		{"IPv6 extensions", tcp6(100), both(func(s *spec) { s.extFirst, s.ext = HopByHop, extension(TCP, 0) }), false},
		{"fragments", udp4(104), both(func(s *spec) { s.frag = 0x2000 }), false},
		{"SCTP", spec{proto: SCTP, id: 100, payload: bytesOf(100)}, nil, false},
		{"ICMP echo", spec{proto: ICMP, id: 100, payload: append([]byte{8, 0, 0, 0}, bytesOf(100)...)}, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := tt.base, tt.base
			b.seq += uint32(len(a.payload))
			b.id++
			if tt.edit != nil {
				tt.edit(&a, &b)
			}
			for _, offload := range []func(*Parsed) Offload{complete, PartialOffload} {
				one, two := a.build(), b.build()
				p, q := parsed(t, one), parsed(t, two)
				var train Train
				train.Start(framed(one), p, offload(p))
				if got := train.Append(two, q, offload(q)); got != tt.want {
					t.Fatalf("joined: got %v, want %v", got, tt.want)
				}
				if !tt.want {
					alone(t, &train, one, offload(p))
				}
			}
		})
	}
}

// alone checks that a train with one packet gives back that packet and its offload as they were.
func alone(t *testing.T, train *Train, one []byte, o Offload) {
	t.Helper()
	want := framed(one)
	o.Encode(want)
	if got := flatten(train); !bytes.Equal(got, want) || train.Count() != 1 {
		t.Errorf("alone:\ngot  % x\nwant % x", got[:min(len(got), 80)], want[:min(len(want), 80)])
	}
}

func TestTrainEndsWith(t *testing.T) {
	for name, last := range map[string]func(*spec){
		"a shorter packet": func(s *spec) { s.payload = s.payload[:99] },
		"PSH":              func(s *spec) { s.flags |= PSH },
	} {
		var train Train
		a, b, c := tcp4(100), tcp4(100), tcp4(100)
		b.id, b.seq = 101, 1100
		last(&b)
		c.id, c.seq = 102, 1100+uint32(len(b.payload))
		merge(t, &train, [][]byte{a.build(), b.build()}, complete)
		if data := c.build(); train.Append(data, parsed(t, data), Offload{}) {
			t.Errorf("a packet joined behind %s", name)
		}
	}
}

// TestTrainChecksums: a super-packet tells its receiver not to verify, so that what is wrong must never get in.
func TestTrainChecksums(t *testing.T) {
	for _, base := range []spec{tcp4(100), tcp6(100), udp4(100), udp6(100)} {
		next := base.with(func(s *spec) { s.seq, s.id = 1100, 101 })
		third := base.with(func(s *spec) { s.seq, s.id = 1200, 102 })
		for _, tt := range []struct {
			name              string
			wrong1, wrong2    bool
			partial1, partial bool
			want              bool
		}{
			{"right, right", false, false, false, false, true},
			{"wrong, right", true, false, false, false, false},
			{"right, wrong", false, true, false, false, false},
			{"partial, partial", false, false, true, true, true},
			{"partial, right", false, false, true, false, true},
			{"right, partial", false, false, false, true, true},
			{"partial, wrong", false, true, true, false, false},
			{"wrong, partial", true, false, false, true, false},
		} {
			t.Run(fmt.Sprintf("%v %s, %s", base.proto, map[bool]string{true: "6", false: "4"}[base.v6], tt.name), func(t *testing.T) {
				make1 := func(s spec, wrong, partial bool) ([]byte, *Parsed, Offload) {
					s.partial = partial
					b := s.build()
					if wrong {
						b[len(b)-1] ^= 1
					}
					p := parsed(t, b)
					if partial {
						return b, p, PartialOffload(p)
					}
					return b, p, Offload{}
				}
				one, p, o := make1(base, tt.wrong1, tt.partial1)
				two, q, u := make1(next, tt.wrong2, tt.partial)
				var train Train
				train.Start(framed(one), p, o)
				if got := train.Append(two, q, u); got != tt.want {
					t.Fatalf("joined: got %v, want %v", got, tt.want)
				}
				if !tt.want {
					alone(t, &train, one, o)
				}
				if data := third.build(); tt.want != train.Append(data, parsed(t, data), Offload{}) && tt.want {
					t.Error("a third one, right, did not join")
				}
			})
		}
		// A datagram without checksum is not verifiable.
		if base.proto == UDP && !base.v6 {
			one, two := base.build(), next.build()
			clear(one[26:28])
			clear(two[26:28])
			var train Train
			train.Start(framed(one), parsed(t, one), Offload{})
			if train.Append(two, parsed(t, two), Offload{}) {
				t.Error("datagrams without checksum joined")
			}
		}
	}
}

// TestTrainOpenOffload: only the transport checksum at its place may be open.
func TestTrainOpenOffload(t *testing.T) {
	one, two := tcp4(100), tcp4(100)
	two.seq, two.id = 1100, 101
	a, b := one.build(), two.build()
	p, q := parsed(t, a), parsed(t, b)
	elsewhere := Offload{NeedsChecksum: true, ChecksumStart: 40, ChecksumOffset: 16}
	for _, tt := range []struct {
		name string
		o, u Offload
	}{
		{"first is a super-packet", PartialOffload(p).Segmented(p, 50), Offload{}},
		{"second is a super-packet", Offload{}, PartialOffload(p).Segmented(p, 50)},
		{"first has another checksum open", elsewhere, Offload{}},
		{"second has another checksum open", Offload{}, elsewhere},
		{"second has a checksum at another offset open", PartialOffload(p), Offload{NeedsChecksum: true, ChecksumStart: 20, ChecksumOffset: 6}},
	} {
		var train Train
		train.Start(framed(a), p, tt.o)
		if train.Append(b, q, tt.u) {
			t.Errorf("%s: joined", tt.name)
		}
		alone(t, &train, a, tt.o)
	}
}

func TestTrainUDPOptions(t *testing.T) {
	surplus := func(s spec) []byte {
		b := append(s.build(), 1, 2, 3)
		shorten(b)
		return b
	}
	next := udp4(100).with(func(s *spec) { s.id = 101 })
	for _, tt := range [][2][]byte{{surplus(udp4(100)), next.build()}, {udp4(103).build(), surplus(next)}} {
		var train Train
		train.Start(framed(tt[0]), parsed(t, tt[0]), Offload{})
		if train.Append(tt[1], parsed(t, tt[1]), Offload{}) {
			t.Error("a datagram with options behind it joined")
		}
	}
}

func TestTrainBounds(t *testing.T) {
	for _, tt := range []struct {
		name  string
		s     spec
		count int
	}{
		{"TCP by packets", tcp4(100), MaxTrain},
		{"UDP by packets", udp4(100), maxUDPTrain},
		{"UDP over IPv6 by packets", udp6(100), maxUDPTrain},
		{"TCP by bytes", tcp4(1460), (MaxSize - 40) / 1460},
		{"TCP over IPv6 by bytes", tcp6(8940), (MaxSize - 60) / 8940},
		{"UDP by bytes", udp4(1472), (MaxSize - 28) / 1472},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var train Train
			for i := 0; ; i++ {
				b := tt.s.build()
				p := parsed(t, b)
				if i == 0 {
					train.Start(framed(b), p, Offload{})
				} else if !train.Append(b, p, Offload{}) {
					break
				}
				tt.s.id++
				tt.s.seq += uint32(len(tt.s.payload))
			}
			if train.Count() != tt.count {
				t.Errorf("got %d packets, want %d", train.Count(), tt.count)
			}
			flat := flatten(&train)
			o, _ := DecodeOffload(flat)
			b := flat[VnetLen:]
			p := parsed(t, b)
			if reason := o.Check(b, p); reason != Kept || p.Len != len(b) || len(b) > MaxSize {
				t.Errorf("got %v of %d bytes, want kept", reason, len(b))
			}
			if got := len(walk(t, b, p, o, false)); got != tt.count {
				t.Errorf("splits into %d, want %d", got, tt.count)
			}
		})
	}
}

// TestTrainEdited takes from the TTL before Finish, as the stack does, with and without a second packet.
func TestTrainEdited(t *testing.T) {
	for _, s := range []spec{tcp4(200), tcp6(200), udp4(200)} {
		for _, size := range []int{100, 200} {
			segs := s.segments(size)
			var train Train
			merge(t, &train, segs, complete)
			if !DecrementTTL(train.First()) {
				t.Fatal("TTL: refused")
			}
			flat := flatten(&train)
			o, _ := DecodeOffload(flat)
			b := flat[VnetLen:]
			p := parsed(t, b)
			want := s.with(func(s *spec) { s.ttl = 63 })
			if size == 200 {
				equalSegments(t, [][]byte{b}, [][]byte{want.build()})
			} else {
				equalSegments(t, walk(t, b, p, o, false), want.segments(size))
			}
		}
	}
}

// FuzzTrain merges two arbitrary packets: if they join, the result splits into the two that came in.
func FuzzTrain(f *testing.F) {
	pair := func(s spec, edit func(*spec), mode byte) {
		next := s
		next.seq += uint32(len(s.payload))
		next.id++
		if edit != nil {
			edit(&next)
		}
		f.Add(s.build(), next.build(), mode)
	}
	for mode := range byte(8) {
		pair(tcp4(100), nil, mode)
		pair(tcp6(50), func(s *spec) { s.flags |= PSH }, mode)
		pair(udp4(70), nil, mode)
		pair(udp6(70), func(s *spec) { s.payload = s.payload[:20] }, mode)
	}
	pair(tcp4(100), func(s *spec) { s.options = bytesOf(12) }, 1)
	f.Fuzz(func(t *testing.T, a, b []byte, mode byte) {
		if mode&1 != 0 {
			resum(a)
			resum(b)
		}
		var p, q Parsed
		if Parse(a, &p) != Kept || Parse(b, &q) != Kept {
			return
		}
		offload := func(p *Parsed, partial bool) Offload {
			if partial && p.Payload != 0 {
				return PartialOffload(p)
			}
			return Offload{}
		}
		o, u := offload(&p, mode&2 != 0), offload(&q, mode&4 != 0)
		wantA, wantB := string(a[:p.Len]), string(b[:q.Len])
		var train Train
		train.Start(framed(a), &p, o)
		if !train.Append(b, &q, u) {
			alone(t, &train, a[:p.Len], o)
			return
		}
		flat := flatten(&train)
		s, err := DecodeOffload(flat)
		whole := flat[VnetLen:]
		var w Parsed
		if reason := Parse(whole, &w); err != nil || reason != Kept || s.Check(whole, &w) != Kept || w.Len != len(whole) {
			t.Fatalf("the super-packet: %v, %v", reason, err)
		}
		segs := walk(t, whole, &w, s, false)
		if len(segs) != 2 {
			t.Fatalf("got %d packets, want 2", len(segs))
		}
		for i, want := range []string{wantA, wantB} {
			open := o.NeedsChecksum
			if i == 1 {
				open = u.NeedsChecksum
			}
			if got := canonical(segs[i], &p, open); got != canonical([]byte(want), &p, open) {
				t.Fatalf("packet %d:\ngot  % x\nwant % x", i, segs[i], want)
			}
		}
	})
}

// canonical returns a packet with checksums of 0xffff written as the equal 0, and without the transport checksum if it was
// open when the packet came in.
func canonical(b []byte, p *Parsed, open bool) string {
	b = append([]byte(nil), b...)
	at, _ := checksumOffset(p.Proto)
	for _, at := range []int{10, p.L4 + at} {
		if at == 10 && p.Version == 6 {
			continue
		}
		if sum := b[at : at+2]; at != 10 && open || binary.BigEndian.Uint16(sum) == 0xffff {
			clear(sum)
		}
	}
	return string(b)
}

// resum makes the checksums of a packet right, if it is one.
func resum(b []byte) {
	if len(b) >= 20 && b[0] == 0x45 {
		clear(b[10:12])
		binary.BigEndian.PutUint16(b[10:], ^slowSum(b[:20], 0))
	}
	var p Parsed
	if Parse(b, &p) == Kept && p.Payload != 0 {
		o := PartialOffload(&p)
		at := int(o.ChecksumStart + o.ChecksumOffset)
		binary.BigEndian.PutUint16(b[at:], PseudoSum(b, &p, p.Len-p.L4))
		FinishChecksum(b[:p.Len], &o)
	}
}

func TestTrainAllocs(t *testing.T) {
	train, frames, packets, ps := benchTrain(t, 44)
	for _, o := range []Offload{{}, PartialOffload(&ps[0])} {
		if n := testing.AllocsPerRun(100, func() { coalesce(train, frames, packets, ps, o) }); n != 0 {
			t.Errorf("%+v: got %v allocations, want 0", o, n)
		}
		if train.Count() != 44 {
			t.Errorf("got %d packets, want 44", train.Count())
		}
	}
}

func benchTrain(t testing.TB, count int) (train *Train, first []byte, packets [][]byte, ps []Parsed) {
	s := tcp4(count * 1398).with(func(s *spec) { s.options = bytesOf(12) })
	packets = s.segments(1398)
	for _, b := range packets {
		ps = append(ps, *parsed(t, b))
	}
	return &Train{}, framed(packets[0]), packets, ps
}

func coalesce(train *Train, first []byte, packets [][]byte, ps []Parsed, o Offload) {
	train.Reset()
	train.Start(first, &ps[0], o)
	for i := 1; i < len(packets); i++ {
		train.Append(packets[i], &ps[i], o)
	}
}

// BenchmarkCoalesce44 merges 44 segments, each verified or vouched for by an outer checksum.
func BenchmarkCoalesce44(b *testing.B) {
	for _, bb := range []struct {
		name    string
		trusted bool
	}{{"verify", false}, {"trusted", true}} {
		b.Run(bb.name, func(b *testing.B) {
			train, first, packets, ps := benchTrain(b, 44)
			head := append([]byte(nil), first...)
			var o Offload
			if bb.trusted {
				o = PartialOffload(&ps[0])
			}
			b.SetBytes(44 * 1450)
			b.ReportAllocs()
			for b.Loop() {
				copy(first, head[:VnetLen+ps[0].Payload]) // Finish wrote into it
				coalesce(train, first, packets, ps, o)
				if train.Count() != 44 {
					b.Fatalf("got %d packets, want 44", train.Count())
				}
				train.Finish()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/44, "ns/segment")
		})
	}
}
