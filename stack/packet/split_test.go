package packet

import (
	"bytes"
	"fmt"
	"testing"
)

// walk returns the segments of a super-packet.
func walk(t testing.TB, b []byte, p *Parsed, o Offload, partial bool) (segs [][]byte) {
	t.Helper()
	segments, ok := Split(b, p, o, partial)
	if !ok {
		t.Fatalf("Split: %d bytes of headers refused", p.Payload)
	}
	for segments.Left() {
		n := segments.NextLen()
		head := make([]byte, segments.HeaderLen())
		payload, ok := segments.Next(head)
		if !ok || len(head)+len(payload) != n {
			t.Fatalf("segment %d: got %d bytes, %v, want %d", len(segs), len(head)+len(payload), ok, n)
		}
		segs = append(segs, append(head, payload...))
	}
	if _, ok := segments.Next(make([]byte, segments.HeaderLen())); ok {
		t.Fatal("a segment after the last one")
	}
	return segs
}

// equalSegments compares what came with what the reference makes.
func equalSegments(t testing.TB, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got %d segments, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			n := min(len(got[i]), len(want[i]), 120)
			t.Fatalf("segment %d of %d:\ngot  % x\nwant % x", i, len(got), got[i][:n], want[i][:n])
		}
		p := parsed(t, got[i])
		if !TransportChecksumOK(got[i], p) && !ChecksumIsPartial(got[i], p) {
			t.Fatalf("segment %d of %d: wrong checksum", i, len(got))
		}
	}
}

func TestSplit(t *testing.T) {
	all := byte(ACK | FIN | PSH | ECE | CWR)
	for _, tt := range []struct {
		name  string
		s     spec
		size  int
		count int
	}{
		{"even", tcp4(3000), 1000, 3},
		{"a short last one", tcp4(3001), 1000, 4},
		{"a single one", tcp4(500), 1000, 1},
		{"nothing but headers", tcp4(0), 1000, 1},
		{"one byte each", tcp4(40), 1, 40},
		{"CWR first, FIN and PSH last, ECE all", tcp4(3000).with(func(s *spec) { s.flags = all }), 1000, 3},
		{"urgent", tcp4(3000).with(func(s *spec) { s.flags, s.urgent = ACK|URG, 5 }), 1000, 3},
		{"IDs and sequence numbers wrap", tcp4(3000).with(func(s *spec) { s.id, s.seq = 0xfffe, 0xffffff00 }), 1000, 3},
		{"IPv4 options", tcp4(3000).with(func(s *spec) { s.ipOptions = []byte{1, 1, 1, 0} }), 1000, 3},
		{"options", tcp4(3000).with(func(s *spec) { s.options = bytesOf(40) }), 1000, 3},
		{"IPv6", tcp6(3000).with(func(s *spec) { s.flags, s.label, s.tos = all, 0xabcde, 3 }), 1000, 3},
		{"IPv6 extensions", tcp6(3000).with(func(s *spec) { s.extFirst, s.ext = HopByHop, extensions(3, TCP) }), 1000, 3},
		{"UDP", udp4(3001), 1000, 4},
		{"UDP over IPv6", udp6(3001), 1000, 4},
		{"UDP over IPv6 behind extensions", udp6(3001).with(func(s *spec) { s.extFirst, s.ext = Routing, extension(UDP, 0) }), 1000, 4},
		{"UDP without payload", udp4(0), 1000, 1},
		{"the largest over IPv4", tcp4(65535 - 40), 1460, 45},
		{"the largest over IPv6", tcp6(65535 - 20), 1440, 46},
	} {
		for _, partial := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, partial %v", tt.name, partial), func(t *testing.T) {
				b, p, o := tt.s.super(t, tt.size)
				segs := walk(t, b, p, o, partial)
				tt.s.partial = partial
				equalSegments(t, segs, tt.s.segments(tt.size))
				if len(segs) != tt.count {
					t.Errorf("got %d segments, want %d", len(segs), tt.count)
				}
			})
		}
	}
}

func TestSplitRandom(t *testing.T) {
	r := seeded(t)
	for i := range 3000 {
		n := r.IntN(3000)
		if i%100 == 0 {
			n = r.IntN(65_400)
		}
		s, size := random(r, n), 1+r.IntN(1500)
		if n > 3000 {
			size += 500
		}
		size = max(size, n/maxSegments+1)
		if s.v6 && r.IntN(3) == 0 {
			s.extFirst, s.ext = HopByHop, extensions(1+r.IntN(3), s.proto)
		}
		b, p, o := s.super(t, size)
		before := string(b)
		s.partial = r.IntN(2) == 0
		equalSegments(t, walk(t, b, p, o, s.partial), s.segments(size))
		if string(b) != before {
			t.Fatal("Split wrote to the super-packet")
		}
	}
}

func TestSplitRefusesLongHeaders(t *testing.T) {
	for units, want := range map[int]bool{3: true, 11: true, 12: false} { // 40 + 8 + 8 * units + 20 + 4, at most 160
		s := tcp6(3000).with(func(s *spec) {
			s.extFirst, s.ext, s.options = HopByHop, extension(TCP, units), make([]byte, 4)
		})
		b, p, o := s.super(t, 1000)
		if _, got := Split(b, p, o, false); got != want {
			t.Errorf("%d bytes of headers: got %v, want %v", p.Payload, got, want)
		}
	}
}

func FuzzSplit(f *testing.F) {
	f.Add(false, false, uint16(100), byte(ACK|PSH), uint16(0xfffe), uint32(0xffffff00), byte(12), bytesOf(250), false) // tcp4
	f.Add(true, false, uint16(90), byte(ACK|CWR|FIN), uint16(0), uint32(1), byte(0), bytesOf(200), true)               // tcp6
	f.Add(false, true, uint16(1), byte(0), uint16(9), uint32(0), byte(0), bytesOf(30), false)                          // udp4
	f.Add(true, true, uint16(65535), byte(0), uint16(9), uint32(0), byte(0), bytesOf(0), true)                         // udp6
	f.Fuzz(func(t *testing.T, v6, udp bool, size uint16, flags byte, id uint16, seq uint32, options byte, payload []byte, partial bool) {
		if size == 0 || len(payload)/int(size) > 300 || len(payload) > 60_000 {
			return
		}
		s := tcp4(0)
		if udp {
			s = udp4(0)
		} else {
			s.flags, s.seq, s.options = flags, seq, bytesOf(int(options%11)*4)
		}
		s.v6, s.id, s.payload = v6, id, payload
		b, p, o := s.super(t, int(size))
		s.partial = partial
		equalSegments(t, walk(t, b, p, o, partial), s.segments(int(size)))
	})
}

func TestSplitAllocs(t *testing.T) {
	b, p, o := tcp4(60_000).super(t, 1400)
	var head [MaxSegmentHeader]byte
	for _, partial := range []bool{false, true} {
		if n := testing.AllocsPerRun(100, func() {
			segments, _ := Split(b, p, o, partial)
			for segments.Left() {
				segments.Next(head[:])
			}
		}); n != 0 {
			t.Errorf("partial %v: got %v allocations, want 0", partial, n)
		}
	}
}

// BenchmarkSegmentTCP44 walks a super-packet that fits one UDP_SEGMENT send: 44 segments of 1398 bytes.
func BenchmarkSegmentTCP44(b *testing.B) {
	for _, bb := range []struct {
		name    string
		partial bool
	}{{"full", false}, {"partial", true}} {
		b.Run(bb.name, func(b *testing.B) {
			data, p, o := tcp4(44*1398).with(func(s *spec) { s.options = bytesOf(12) }).super(b, 1398)
			var head [MaxSegmentHeader]byte
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				segments, _ := Split(data, p, o, bb.partial)
				for segments.Left() {
					segments.Next(head[:])
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/44, "ns/segment")
		})
	}
}
