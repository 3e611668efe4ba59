package proxy

import (
	"encoding/binary"

	"github.com/middleway-net/middleway/stack/packet"
)

// tcpHeader is the length of a TCP header without options, in bytes.
const tcpHeader = 20

// Options of TCP (RFC 9293, section 3.1; RFC 7323, section 2).
const (
	optionEnd    = 0
	optionNop    = 1
	optionMSS    = 2
	optionWindow = 3
)

// defaultMSS is the MSS of who announces none, in bytes (RFC 9293, section 3.7.1).
const defaultMSS4, defaultMSS6 = 536, 1220

// maxScale is the largest window scale there is (RFC 7323, section 2.3).
const maxScale = 14

// offer is what a SYN's options say.
type offer struct {
	mss    int   // 0: nothing
	scale  uint8 // valid iff scales
	scales bool
}

// readOffer reads the options of a TCP header, which are as long as they say. What is cut off or of a wrong length ends the reading.
func readOffer(options []byte) (o offer) {
	for len(options) > 0 && options[0] != optionEnd {
		if options[0] == optionNop {
			options = options[1:]
			continue
		}
		if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
			return o
		}
		switch data := options[2:options[1]]; {
		case options[0] == optionMSS && len(data) == 2:
			o.mss = int(binary.BigEndian.Uint16(data))
		case options[0] == optionWindow && len(data) == 1:
			o.scale, o.scales = min(data[0], maxScale), true
		}
		options = options[options[1]:]
	}
	return o
}

// seq is a sequence number of TCP, which begins anew after the last (RFC 9293, section 3.4).
type seq uint32

func (s seq) before(t seq) bool { return int32(s-t) < 0 }

// minus returns how many bytes s lies behind t.
func (s seq) minus(t seq) int { return int(int32(s - t)) }

// heard is a segment of a pod.
type heard struct {
	seq, ack seq
	flags    uint8
	window   int // as in the header, not scaled
	options  []byte
	data     []byte
}

// readSegment reads TCP packet b, whose headers are h, which is whole. It borrows b.
func readSegment(b []byte, h *packet.Parsed) heard {
	t := b[h.L4:h.Len]
	return heard{
		seq: seq(binary.BigEndian.Uint32(t[4:])), ack: seq(binary.BigEndian.Uint32(t[8:])), flags: h.Flags,
		window: int(binary.BigEndian.Uint16(t[14:])), options: t[tcpHeader : h.Payload-h.L4], data: t[h.Payload-h.L4:],
	}
}

// said is a segment to a pod.
type said struct {
	seq, ack seq
	flags    uint8
	window   int // as in the header, not scaled
	options  []byte
	data     []byte
	size     int // of the segments into which data is to be cut, in bytes
}

// maxTCPHeaders is the most that put writes, in bytes.
const maxTCPHeaders = packet.MaxHeader + tcpHeader + 8

// put writes the headers of a segment of flow f into b, with a checksum that is left unfinished, and returns their length and what is
// unfinished.
func (s *said) put(b []byte, f *packet.Flow) (n int, o packet.Offload) {
	h := packet.Header{Src: f.Src(), Dst: f.Dst(), Proto: packet.TCP, TTL: 64}
	length := tcpHeader + len(s.options)
	at := h.Put(b, length+len(s.data))
	t := b[at : at+length]
	binary.BigEndian.PutUint16(t, f.SrcPort())
	binary.BigEndian.PutUint16(t[2:], f.DstPort())
	binary.BigEndian.PutUint32(t[4:], uint32(s.seq))
	binary.BigEndian.PutUint32(t[8:], uint32(s.ack))
	t[12], t[13] = byte(length/4)<<4, s.flags
	binary.BigEndian.PutUint16(t[14:], uint16(s.window))
	clear(t[16:tcpHeader])
	copy(t[tcpHeader:], s.options)
	p := packet.Parsed{Version: b[0] >> 4, Proto: packet.TCP, L4: at, Payload: at + length, Len: at + length + len(s.data)}
	binary.BigEndian.PutUint16(t[16:], packet.PseudoSum(b, &p, length+len(s.data)))
	o = packet.PartialOffload(&p)
	if s.size > 0 && len(s.data) > s.size {
		o = o.Segmented(&p, s.size)
	}
	return at + length, o
}
