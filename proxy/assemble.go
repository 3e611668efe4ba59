package proxy

import (
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/middleway-net/middleway/stack/packet"
)

// Bounds of what is put together: sockets take whole datagrams only.
const (
	assemblePackets = 64
	assembleBytes   = 4 << 20
	assemblePieces  = 128 // of a packet: one of 64 KiB has 119 on a way of 576 bytes
	// assembleFor is how long the pieces of a packet wait for the rest, as long as Linux waits (RFC 1122, section 3.3.2: a minute;
	// RFC 8200, section 4.5).
	assembleFor = 30 * time.Second
)

// assembler puts fragments together (RFC 791, section 3.2; RFC 8200, section 4.5). Where it has no room the packet that waits
// longest gives way. Packets whose fragments overlap are dropped (RFC 5722).
type assembler struct {
	mu      sync.Mutex
	packets map[packet.PacketID]*pieces
	bytes   int
	now     func() time.Time
}

// pieces is a packet that is not whole yet.
type pieces struct {
	id      packet.PacketID
	since   time.Time
	first   []byte // the first fragment's headers up to its piece; nil until it came
	h       packet.Parsed
	all     []piece // by offset
	bytes   int
	total   int // 0 until the last came
	refused bool
}

type piece struct {
	offset int
	data   []byte
}

func (a *assembler) init() { a.packets, a.now = map[packet.PacketID]*pieces{}, time.Now }

// add takes a fragment, which is borrowed. With the last one that was missing it returns the packet, without fragment headers, and
// its headers, which still say that it is a fragment: its sender has cut it, so that others may. Its checksum is right.
func (a *assembler) add(b []byte, h *packet.Parsed) ([]byte, *packet.Parsed) {
	if h.Atomic() {
		p := &pieces{first: b[:h.Piece], h: *h, all: []piece{{0, b[h.Piece:h.Len]}}, total: h.Len - h.Piece}
		return p.whole()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.find(h.PacketID())
	if !p.add(b, h) {
		a.drop(p)
		p.refused = true
		a.packets[p.id] = p // what comes later is not taken either
		return nil, nil
	}
	a.bytes += h.Len - h.Piece
	a.makeRoom(p)
	if p.total == 0 || p.bytes < p.total || p.first == nil {
		return nil, nil
	}
	a.drop(p)
	return p.whole()
}

// find returns what there is of a packet.
func (a *assembler) find(id packet.PacketID) *pieces {
	p := a.packets[id]
	if p != nil && a.now().Sub(p.since) > assembleFor {
		a.drop(p)
		p = nil
	}
	if p == nil {
		p = &pieces{id: id, since: a.now()}
		a.packets[id] = p
	}
	return p
}

func (a *assembler) drop(p *pieces) {
	delete(a.packets, p.id)
	a.bytes -= p.bytes
	p.bytes, p.since = 0, a.now()
}

// makeRoom drops the oldest packets but p until the bounds are kept.
func (a *assembler) makeRoom(p *pieces) {
	for len(a.packets) > assemblePackets || a.bytes > assembleBytes {
		var oldest *pieces
		for _, other := range a.packets {
			if other != p && (oldest == nil || other.since.Before(oldest.since)) {
				oldest = other
			}
		}
		if oldest == nil {
			return
		}
		a.drop(oldest)
	}
}

// add takes a fragment. It is false if the fragment contradicts those that came before.
func (p *pieces) add(b []byte, h *packet.Parsed) bool {
	offset, data := int(h.FragmentOffset), b[h.Piece:h.Len]
	end := offset + len(data)
	at, _ := slices.BinarySearchFunc(p.all, offset, func(p piece, offset int) int { return p.offset - offset })
	overlaps := at > 0 && p.all[at-1].offset+len(p.all[at-1].data) > offset || at < len(p.all) && p.all[at].offset < end
	switch {
	case p.refused, overlaps, len(p.all) == assemblePieces,
		p.total > 0 && (end > p.total || !h.MoreFragments),
		!h.MoreFragments && len(p.all) > 0 && p.end() > end:
		return false
	}
	if !h.MoreFragments {
		p.total = end
	}
	if offset == 0 {
		p.first, p.h = slices.Clone(b[:h.Piece]), *h
	}
	p.all = slices.Insert(p.all, at, piece{offset, slices.Clone(data)})
	p.bytes += len(data)
	return true
}

// end returns where what came so far ends.
func (p *pieces) end() int {
	last := p.all[len(p.all)-1]
	return last.offset + len(last.data)
}

// whole puts the packet together, of which all is there; it is nil if the result is no packet, or its checksum is wrong.
func (p *pieces) whole() ([]byte, *packet.Parsed) {
	head := len(p.first)
	if p.h.Version == 6 {
		head -= fragmentHeader
	}
	if head+p.total > packet.MaxSize {
		return nil, nil
	}
	b := append(make([]byte, 0, head+p.total), p.first[:head]...)
	for _, piece := range p.all {
		b = append(b, piece.data...)
	}
	if p.h.Version == 6 {
		if !p.skipFragmentHeader(b, head) {
			return nil, nil
		}
	} else {
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		b[6], b[7], b[10], b[11] = 0, 0, 0, 0
		binary.BigEndian.PutUint16(b[10:], ^packet.Checksum(b[:head], 0))
	}
	h := new(packet.Parsed)
	if packet.Parse(b, h) != packet.Kept || !h.HasFlow || !packet.TransportChecksumOK(b, h) {
		return nil, nil
	}
	h.Fragment = true
	return b, h
}

// skipFragmentHeader makes the header in front of the fragment header name what followed that. It is false for packets with
// further extension headers, which no socket sends.
func (p *pieces) skipFragmentHeader(b []byte, head int) bool {
	if head != ipv6Header {
		return false
	}
	b[6] = p.first[head] // its next header
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-ipv6Header))
	return true
}
