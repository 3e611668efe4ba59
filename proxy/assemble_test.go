package proxy

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
)

// fragment is a piece of a pod's packet, with the flow that the stack knows of it.
type fragment struct {
	b []byte
	h packet.Parsed
}

// fragments cuts a datagram of n bytes.
func fragments(t *testing.T, is4 bool, n, mtu int, id uint32) (packetBytes []byte, all []fragment) {
	t.Helper()
	d := packettest.Packet{Src: podA, Dst: netip.MustParseAddr("203.0.113.7"), SrcPort: 4000, DstPort: 53, ID: uint16(id), Payload: pattern(n)}
	if !is4 {
		d.Src, d.Dst = podA6, netip.MustParseAddr("2001:db8::7")
	}
	packetBytes = d.Frame()[packet.VnetLen:]
	flow := packet.NewFlow(packet.UDP, netip.AddrPortFrom(d.Src, 4000), netip.AddrPortFrom(d.Dst, 53))
	for _, b := range packettest.Fragments(packetBytes, mtu, id) {
		f := fragment{b: b}
		if r := packet.Parse(b, &f.h); r != packet.Kept {
			t.Fatal(r)
		}
		f.h.Follow(flow, true)
		all = append(all, f)
	}
	return packetBytes, all
}

func newAssembler() (*assembler, *time.Time) {
	a, now := new(assembler), time.Unix(1_000_000, 0)
	a.init()
	a.now = func() time.Time { return now }
	return a, &now
}

// TestAssemble: fragments in any order, of several packets at once, become their packets, and nothing of them is left.
func TestAssemble(t *testing.T) {
	for _, tt := range families {
		t.Run(tt.name, func(t *testing.T) {
			for seed := range uint64(50) {
				r := rand.New(rand.NewPCG(seed, 0))
				a, _ := newAssembler()
				var all []fragment
				want := map[string]bool{}
				for id := range uint32(5) {
					b, pieces := fragments(t, tt.pod.Is4(), 3000+r.IntN(62_000), 576+r.IntN(2000), id)
					want[string(b[len(b)-1380:])] = true
					all = append(all, pieces...)
				}
				r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
				for _, f := range all {
					b, h := a.add(f.b, &f.h)
					if b == nil {
						continue
					}
					if data := packet.UDPPayload(b, h); !bytes.Equal(data, pattern(len(data))) || !mayCut(b, h) {
						t.Errorf("seed %d: %d bytes came out wrong", seed, len(data))
					}
					delete(want, string(b[len(b)-1380:]))
				}
				if len(want) > 0 || len(a.packets) > 0 || a.bytes > 0 {
					t.Errorf("seed %d: %d packets did not come out, %d with %d bytes are left", seed, len(want), len(a.packets), a.bytes)
				}
			}
		})
	}
}

func TestAssembleRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(all []fragment) []fragment
	}{
		{"one is missing", func(all []fragment) []fragment { return slices.Delete(all, 1, 2) }},
		{"one comes twice", func(all []fragment) []fragment { return slices.Insert(all, 1, all[1]) }},
		{"one overlaps", func(all []fragment) []fragment {
			f := all[1]
			f.h.FragmentOffset -= 8
			return slices.Insert(all, 0, f)
		}},
		{"two last ones", func(all []fragment) []fragment {
			f := all[0]
			f.h.FragmentOffset, f.h.MoreFragments = 60_000, false
			return slices.Insert(all, 0, f)
		}},
		{"one behind the last", func(all []fragment) []fragment {
			f := all[1]
			f.h.FragmentOffset = 60_000
			return append(slices.Insert(all, 0, f), all...)
		}},
		{"a changed byte", func(all []fragment) []fragment {
			all[1].b = slices.Clone(all[1].b)
			all[1].b[all[1].h.Piece] ^= 1
			return all
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, is4 := range []bool{true, false} {
				_, all := fragments(t, is4, 4000, 1280, 1)
				a, _ := newAssembler()
				for _, f := range tt.edit(all) {
					if b, _ := a.add(f.b, &f.h); b != nil {
						t.Errorf("IPv4 %v: a packet of %d bytes came out", is4, len(b))
					}
				}
			}
		})
	}
}

// TestAssembleBounds: what waits too long, or takes too much room, goes.
func TestAssembleBounds(t *testing.T) {
	a, now := newAssembler()
	_, all := fragments(t, true, 4000, 1280, 1)
	a.add(all[0].b, &all[0].h)
	*now = now.Add(assembleFor + time.Second)
	for _, f := range all[1:] {
		if b, _ := a.add(f.b, &f.h); b != nil {
			t.Error("a packet was put together of pieces that came half a minute apart")
		}
	}
	a, now = newAssembler()
	for id := range uint32(500) {
		*now = now.Add(time.Millisecond)
		_, all := fragments(t, id%2 == 0, 60_000, 8000, id)
		for _, f := range all[1:] {
			a.add(f.b, &f.h)
		}
		if len(a.packets) > assemblePackets || a.bytes > assembleBytes {
			t.Fatalf("%d packets with %d bytes wait", len(a.packets), a.bytes)
		}
	}
	_, all = fragments(t, true, 4000, 1280, 1000)
	var whole []byte
	for _, f := range all {
		whole, _ = a.add(f.b, &f.h)
	}
	if whole == nil {
		t.Error("a packet did not find room among those that are never whole")
	}
}

// FuzzAssemble: whatever comes, bounds hold, and what comes out is a packet whose checksum is right.
func FuzzAssemble(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0, 2, 0})
	f.Add([]byte{2, 0, 1, 3, 0, 0, 3, 1})
	f.Fuzz(func(t *testing.T, script []byte) {
		a, _ := newAssembler()
		for ; len(script) >= 2; script = script[2:] {
			_, all := fragments(t, script[1]&1 == 0, 3000, 600, uint32(script[1]>>6))
			piece := all[int(script[0])%len(all)]
			switch script[1] >> 1 & 7 {
			case 1:
				piece.h.FragmentOffset ^= 8
			case 2:
				piece.h.MoreFragments = !piece.h.MoreFragments
			case 3:
				piece.h.FragmentOffset += 16
			}
			b, h := a.add(piece.b, &piece.h)
			if b != nil && (!packet.TransportChecksumOK(b, h) || !bytes.Equal(packet.UDPPayload(b, h), pattern(3000))) {
				t.Errorf("what came out is wrong: %x", b)
			}
			held := 0
			for _, p := range a.packets {
				held += p.bytes
			}
			if a.bytes != held || len(a.packets) > assemblePackets {
				t.Errorf("%d bytes are counted, %d held", a.bytes, held)
			}
		}
	})
}
