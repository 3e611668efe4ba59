// Package hello is the message by which two middleway nodes tell each other what they can do, and find out what gets through
// between them. It travels in the tunnel, in an Ethernet frame of its own type beside the pods' packets. It is a pure codec.
package hello

import (
	"encoding/binary"
	"errors"
)

// Message is one message. A probe is as long as what it tries out; what stands behind the header is padding:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+---------------------------------------------------------------+
//	|                     magic: 6d 77 68 69                        |
//	+---------------+---------------+-------------------------------+
//	|    version    |     kind      |         capabilities          |
//	+---------------+---------------+-------------------------------+
//	|             MTU               |            length             |
//	+-------------------------------+-------------------------------+
//	|                                                               |
//	|                           instance                            |
//	|                                                               |
//	+---------------------------------------------------------------+
//	|                                                               |
//	|                            nonce                              |
//	|                                                               |
//	+---------------+-----------------------------------------------+
//	|     part      |                 reserved: 0                   |
//	+---------------+-----------------------------------------------+
//
// In an answer of a sender that gives tokens (capability Tokens) there follows
//
//	+---------------------------------------------------------------+
//	|                             token                             |
//	|                               +-------------------------------+
//	|                               |          reserved: 0          |
//	+-------------------------------+-------------------------------+
//
// All numbers are big-endian. A later version keeps these fields where they are; bits and bytes that this one does not know
// are ignored.
//
// Anybody who can send from the sender's address can send a probe. An answer repeats the nonce of the probe, which only
// those on the way know: so what a message says of its sender is to be believed of an answer alone.
type Message struct {
	Version uint8
	Kind    Kind
	Can     Capabilities
	// MTU is the sender's, of an inner packet in bytes, LeastMTU or more.
	MTU uint16
	// Length is how long the probe is, this header included, in bytes; an answer repeats that of the probe which arrived.
	Length uint16
	// Instance is drawn when the sender starts.
	Instance uint64
	// Nonce is drawn for each round of probes, Part numbers those of a round; an answer repeats both.
	Nonce uint64
	Part  uint8
	// Token is what the answer's receiver puts in the place of its VTEP's address into what it sends to the sender, so that it is
	// known from wherever it sends. All zeros without the capability Tokens, and in a probe.
	Token [6]byte
}

// HeaderLen is the length of a message without token and padding, in bytes. An answer has no padding.
const HeaderLen = 32

// tokenLen is the length of a token with what is reserved behind it.
const tokenLen = 8

// LeastProbe is the length of the smallest probe, in bytes: no answer is longer than its probe.
const LeastProbe = HeaderLen + tokenLen

// Len returns the length of the message without padding, in bytes.
func (m *Message) Len() int {
	if m.Kind == Answer && m.Can.Has(Tokens) {
		return HeaderLen + tokenLen
	}
	return HeaderLen
}

// LeastMTU is the smallest MTU that a node has: what every host takes (RFC 791, section 3.2).
const LeastMTU = 576

// Version is what this package writes.
const Version = 1

// Kind says what a message is.
type Kind uint8

// A probe asks for an answer of the same nonce and part.
const (
	Probe  Kind = 1
	Answer Kind = 2
)

// Capabilities are what the sender takes.
type Capabilities uint16

const (
	// Trains: datagrams that were sent as one (UDP_SEGMENT).
	Trains Capabilities = 1 << iota
	// RemoteChecksum: packets whose checksum it is asked to finish (VXLAN remote checksum offload).
	RemoteChecksum
	// Tokens: in an answer, that it has one.
	Tokens
)

// Has reports whether all of the wanted capabilities are there.
func (c Capabilities) Has(want Capabilities) bool { return c&want == want }

const magic = 0x6d776869

// Errors of Decode.
var (
	ErrShort  = errors.New("shorter than it says, or than its header")
	ErrFormat = errors.New("no hello: wrong magic number, version 0, an unknown kind or an MTU that no node has")
)

// Encode writes the message into the first Len bytes of b.
func (m *Message) Encode(b []byte) {
	_ = b[m.Len()-1]
	be := binary.BigEndian
	be.PutUint32(b, magic)
	b[4], b[5] = m.Version, byte(m.Kind)
	be.PutUint16(b[6:], uint16(m.Can))
	be.PutUint16(b[8:], m.MTU)
	be.PutUint16(b[10:], m.Length)
	be.PutUint64(b[12:], m.Instance)
	be.PutUint64(b[20:], m.Nonce)
	b[28], b[29], b[30], b[31] = m.Part, 0, 0, 0
	if m.Len() > HeaderLen {
		copy(b[HeaderLen:], m.Token[:])
		b[HeaderLen+6], b[HeaderLen+7] = 0, 0
	}
}

// Decode reads a message. A probe that was cut off on its way is ErrShort.
func Decode(b []byte, m *Message) error {
	if len(b) < HeaderLen {
		return ErrShort
	}
	be := binary.BigEndian
	*m = Message{
		Version: b[4], Kind: Kind(b[5]), Can: Capabilities(be.Uint16(b[6:])), MTU: be.Uint16(b[8:]), Length: be.Uint16(b[10:]),
		Instance: be.Uint64(b[12:]), Nonce: be.Uint64(b[20:]), Part: b[28],
	}
	if be.Uint32(b) != magic || m.Version == 0 || m.Kind != Probe && m.Kind != Answer || m.MTU < LeastMTU {
		return ErrFormat
	}
	if m.Length < HeaderLen || m.Kind == Probe && int(m.Length) > len(b) {
		return ErrShort
	}
	if m.Len() > HeaderLen {
		if len(b) < m.Len() {
			return ErrShort
		}
		m.Token = [6]byte(b[HeaderLen:])
	}
	return nil
}
