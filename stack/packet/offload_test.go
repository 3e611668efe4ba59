package packet

import (
	"encoding/binary"
	"errors"
	"io"
	"testing"
)

func TestOffloadEncode(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    Offload
		want [2]byte   // flags, gso_type
		nums [4]uint16 // hdr_len, gso_size, csum_start, csum_offset, in the machine's byte order
	}{
		{"nothing", Offload{}, [2]byte{0, 0}, [4]uint16{}},
		{"checksum", Offload{NeedsChecksum: true, ChecksumStart: 20, ChecksumOffset: 16}, [2]byte{1, 0}, [4]uint16{0, 0, 20, 16}},
		{"TCP over IPv4", Offload{NeedsChecksum: true, GSO: GSOTCP4, HeaderLen: 52, Size: 1398, ChecksumStart: 20, ChecksumOffset: 16}, [2]byte{1, 1}, [4]uint16{52, 1398, 20, 16}},
		{"TCP over IPv6 with CWR", Offload{NeedsChecksum: true, GSO: GSOTCP6, ECN: true, HeaderLen: 72, Size: 1378, ChecksumStart: 40, ChecksumOffset: 16}, [2]byte{1, 0x84}, [4]uint16{72, 1378, 40, 16}},
		{"UDP", Offload{NeedsChecksum: true, GSO: GSOUDP, HeaderLen: 28, Size: 65535, ChecksumStart: 20, ChecksumOffset: 6}, [2]byte{1, 5}, [4]uint16{28, 65535, 20, 6}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := []byte{9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9}
			tt.o.Encode(b)
			if [2]byte(b) != tt.want || b[VnetLen] != 9 {
				t.Errorf("got % x, want it to start % x and end 09", b, tt.want)
			}
			for i, want := range tt.nums {
				if got := binary.NativeEndian.Uint16(b[2+2*i:]); got != want {
					t.Errorf("field %d: got %d, want %d", i, got, want)
				}
			}
			if got, err := DecodeOffload(b); err != nil || got != tt.o {
				t.Errorf("DecodeOffload: got %+v, %v, want %+v", got, err, tt.o)
			}
		})
	}
}

func TestDecodeOffloadShort(t *testing.T) {
	for n := range VnetLen {
		if _, err := DecodeOffload(make([]byte, n)); !errors.Is(err, io.ErrShortBuffer) {
			t.Errorf("%d bytes: got %v, want %v", n, err, io.ErrShortBuffer)
		}
	}
	b := []byte{0xfe, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if o, err := DecodeOffload(b); err != nil || o != (Offload{}) {
		t.Errorf("flags that are not ours: got %+v, %v, want nothing", o, err)
	}
}

func TestOffloadCheck(t *testing.T) {
	edit := func(o Offload, f func(*Offload)) Offload { f(&o); return o }
	tcp := Offload{NeedsChecksum: true, GSO: GSOTCP4, HeaderLen: 40, Size: 100, ChecksumStart: 20, ChecksumOffset: 16}
	udp := Offload{NeedsChecksum: true, GSO: GSOUDP, HeaderLen: 28, Size: 100, ChecksumStart: 20, ChecksumOffset: 6}
	tcp6o := Offload{NeedsChecksum: true, GSO: GSOTCP6, HeaderLen: 60, Size: 100, ChecksumStart: 40, ChecksumOffset: 16}
	surplus := func(s *spec) { s.payload = append(s.payload, 0) }
	for _, tt := range []struct {
		name string
		s    spec
		o    Offload
		want DropReason
	}{
		{"nothing", tcp4(300), Offload{}, Kept},
		{"sizes without a kind mean nothing", tcp4(300), Offload{Size: 1, HeaderLen: 9999, ChecksumStart: 9999}, Kept},
		{"checksum", tcp4(300), Offload{NeedsChecksum: true, ChecksumStart: 20, ChecksumOffset: 16}, Kept},
		{"checksum of a protocol of its own, in the payload", udp4(300), Offload{NeedsChecksum: true, ChecksumStart: 28, ChecksumOffset: 2}, Kept},
		{"checksum at the very end", udp4(300), Offload{NeedsChecksum: true, ChecksumStart: 20, ChecksumOffset: 306}, Kept},
		{"checksum one byte past the end", udp4(300), Offload{NeedsChecksum: true, ChecksumStart: 20, ChecksumOffset: 307}, DropOffload},
		{"checksum that starts in the IP header", udp4(300), Offload{NeedsChecksum: true, ChecksumStart: 19, ChecksumOffset: 6}, DropOffload},
		{"checksum at 0", udp4(300), Offload{NeedsChecksum: true}, DropOffload},
		{"checksum start beyond the packet", udp4(300), Offload{NeedsChecksum: true, ChecksumStart: 65535, ChecksumOffset: 65535}, DropOffload},
		{"checksum of a packet without payload", spec{proto: 59}, Offload{NeedsChecksum: true, ChecksumStart: 20}, DropOffload},

		{"TCP over IPv4", tcp4(300), tcp, Kept},
		{"header length is not trusted", tcp4(300), edit(tcp, func(o *Offload) { o.HeaderLen = 65535 }), Kept},
		{"TCP with CWR", tcp4(300), edit(tcp, func(o *Offload) { o.ECN = true }), Kept},
		{"TCP over IPv6", tcp6(300), tcp6o, Kept},
		{"UDP over IPv4", udp4(300), udp, Kept},
		{"UDP over IPv6", udp6(300), edit(udp, func(o *Offload) { o.ChecksumStart = 40 }), Kept},
		{"a segment larger than the packet", tcp4(300), edit(tcp, func(o *Offload) { o.Size = 1400 }), Kept},
		{"size 0", tcp4(300), edit(tcp, func(o *Offload) { o.Size = 0 }), DropOffload},
		{"no checksum", tcp4(300), edit(tcp, func(o *Offload) { o.NeedsChecksum = false }), DropOffload},
		{"checksum starts elsewhere", tcp4(300), edit(tcp, func(o *Offload) { o.ChecksumStart = 22 }), DropOffload},
		{"checksum lies elsewhere", tcp4(300), edit(tcp, func(o *Offload) { o.ChecksumOffset = 6 }), DropOffload},
		{"TCP4 over IPv6", tcp6(300), edit(tcp6o, func(o *Offload) { o.GSO = GSOTCP4 }), DropOffload},
		{"TCP6 over IPv4", tcp4(300), edit(tcp, func(o *Offload) { o.GSO = GSOTCP6 }), DropOffload},
		{"TCP4 on UDP", udp4(300), edit(udp, func(o *Offload) { o.GSO = GSOTCP4 }), DropOffload},
		{"UDP on TCP", tcp4(300), edit(tcp, func(o *Offload) { o.GSO = GSOUDP }), DropOffload},
		{"UDP with options behind it", udp4(300).with(surplus), udp, DropOffload},
		{"UDP fragmentation (UFO)", udp4(300), edit(udp, func(o *Offload) { o.GSO = 3 }), DropOffload},
		{"a kind that does not exist", tcp4(300), edit(tcp, func(o *Offload) { o.GSO = 0x7f }), DropOffload},
		{"a fragment", tcp4(300).with(func(s *spec) { s.frag = 0x2000 }), tcp, DropOffload},
		{"ICMP", spec{proto: ICMP, payload: bytesOf(100)}, edit(tcp, func(o *Offload) { o.ChecksumOffset = 2 }), DropOffload},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.s.build()
			if tt.name == "UDP with options behind it" {
				binary.BigEndian.PutUint16(b[24:], uint16(len(b)-20-1))
			}
			if got := tt.o.Check(b, parsed(t, b)); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// FuzzOffload takes whatever a pod may hand over: what Check keeps can be finished and split without harm.
func FuzzOffload(f *testing.F) {
	seed := func(s spec, size int) {
		b, _, o := s.super(f, size)
		frame := framed(b)
		o.Encode(frame)
		f.Add(frame[:VnetLen], b)
	}
	seed(tcp4(250), 100)
	seed(tcp6(250).with(func(s *spec) { s.flags = ACK | CWR | PSH }), 99)
	seed(udp4(250), 100)
	seed(udp6(20).with(func(s *spec) { s.extFirst, s.ext = HopByHop, extensions(2, UDP) }), 1)
	f.Add([]byte{1, 0, 0, 0, 0, 0, 20, 0, 6, 0}, udp4(10).build())
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, tcp4(10).build())
	f.Add([]byte{1, 5, 255, 255, 255, 255, 255, 255, 255, 255}, udp4(10).build())
	f.Fuzz(func(t *testing.T, vnet, b []byte) {
		o, err := DecodeOffload(vnet)
		if (err == nil) != (len(vnet) >= VnetLen) {
			t.Fatalf("%d bytes: %v", len(vnet), err)
		}
		if len(b) >= 20 && b[0] == 0x45 {
			binary.BigEndian.PutUint16(b[10:], 0)
			binary.BigEndian.PutUint16(b[10:], ^slowSum(b[:20], 0))
		}
		var p Parsed
		if err != nil || Parse(b, &p) != Kept || o.Check(b, &p) != Kept {
			return
		}
		if o.GSO == GSONone {
			fuzzFinish(t, b[:p.Len], &p, o)
			return
		}
		for _, partial := range []bool{false, true} {
			fuzzWalk(t, b, &p, o, partial)
		}
	})
}

func fuzzFinish(t *testing.T, b []byte, p *Parsed, o Offload) {
	before := append([]byte(nil), b...)
	at := int(o.ChecksumStart) + int(o.ChecksumOffset)
	want := o.NeedsChecksum
	FinishChecksum(b, &o)
	if want {
		copy(before[at:at+2], b[at:at+2])
	}
	if string(before) != string(b) {
		t.Fatal("FinishChecksum wrote elsewhere")
	}
	if again := (Parsed{}); at >= p.Payload && (Parse(b, &again) != Kept || again != *p) {
		t.Fatalf("got %+v, want %+v", again, *p)
	}
}

func fuzzWalk(t *testing.T, b []byte, p *Parsed, o Offload, partial bool) {
	before := string(b)
	segments, ok := Split(b, p, o, partial)
	if !ok {
		if p.Payload <= MaxSegmentHeader {
			t.Fatal("not split")
		}
		return
	}
	var room [MaxSegmentHeader + 1]byte
	rest := b[p.Payload:p.Len]
	for n := 0; segments.Left(); n++ {
		want := segments.NextLen()
		room[segments.HeaderLen()] = 0xa5
		payload, ok := segments.Next(room[:segments.HeaderLen()])
		if !ok || room[segments.HeaderLen()] != 0xa5 || len(payload) > len(rest) || string(payload) != string(rest[:len(payload)]) {
			t.Fatalf("segment %d: wrong payload or room", n)
		}
		rest = rest[len(payload):]
		if got := segments.HeaderLen() + len(payload); got != want || len(payload) > segments.Size() {
			t.Fatalf("segment %d: got %d bytes, want %d", n, got, want)
		}
		if n > 100 && len(rest) > 200 {
			continue // the first and the last ones tell
		}
		one := append(append([]byte(nil), room[:segments.HeaderLen()]...), payload...)
		var q Parsed
		if reason := Parse(one, &q); reason != Kept || q.Flow != p.Flow || q.Len != len(one) || q.Payload != p.Payload {
			t.Fatalf("segment %d: %v, %+v of %+v", n, reason, q, *p)
		}
		if ok := TransportChecksumOK(one, &q); !partial && !ok {
			t.Fatalf("segment %d: wrong checksum", n)
		}
		if partial && !ChecksumIsPartial(one, &q) {
			t.Fatalf("segment %d: the checksum is not the pseudo-header's sum", n)
		}
	}
	if _, ok := segments.Next(room[:]); ok || len(rest) != 0 || string(b) != before {
		t.Fatalf("after the last segment: %d bytes left, or the super-packet changed", len(rest))
	}
}
