// Package pcapng writes packet captures that Wireshark and tshark open: pcapng, draft-ietf-opsawg-pcapng, version 1.0.
//
// It is a pure encoder at the far end of a packet's way, for whoever has packets to show. A file is one section, little-endian:
//
//	section header ─► interface ─► interface ─► names ─► packet ─► packet ─► … ─► statistics of each interface
//
// Interfaces and names may also follow later, before the first packet that needs them. Every block is written whole, so that what
// was flushed is a complete file at any time.
package pcapng

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net/netip"
	"time"
)

// LinkType says with what the packets of an interface begin (https://www.tcpdump.org/linktypes.html).
type LinkType uint16

// Link types.
const (
	Ethernet LinkType = 1
	Raw      LinkType = 101 // an IPv4 or IPv6 header, as its first four bits say
)

// Types of blocks.
const (
	blockInterface  = 1
	blockNames      = 4
	blockStatistics = 5
	blockPacket     = 6
	blockSection    = 0x0a0d0d0a
)

// Codes of options, each in the blocks named.
const (
	optEnd     = 0
	optComment = 1 // all

	optHardware    = 2 // section
	optOS          = 3
	optApplication = 4

	optName        = 2 // interface
	optDescription = 3
	optResolution  = 9
	optFilter      = 11

	optFlags = 2 // packet

	optStart   = 2 // statistics
	optEndTime = 3
	optDropped = 5
	optAccept  = 6
)

// Types of records in a block of names.
const (
	nameEnd = 0
	name4   = 1
	name6   = 2
)

// nanoseconds is the value of if_tsresol: powers of ten of a second.
const nanoseconds = 9

// maxOption is the longest value of an option, in bytes: its length has 16 bits.
const maxOption = math.MaxUint16

// Section is what the file says of itself. Empty fields are left out.
type Section struct {
	Hardware    string // the machine
	OS          string
	Application string // what made the file
	Comment     string
}

// Interface is where packets were captured.
type Interface struct {
	Name        string // required; shown as frame.interface_name
	Description string
	Filter      string // what was asked for, in words of the application
	LinkType    LinkType
	// SnapLen is how many bytes of each packet were kept at most. 0: all.
	SnapLen uint32
}

// Direction is seen from the interface's owner.
type Direction uint8

// Directions. The zero one is not told.
const (
	Inbound  Direction = 1
	Outbound Direction = 2
)

// Packet is one packet.
type Packet struct {
	Interface int       // as AddInterface returned
	Time      time.Time // of the capture, to the nanosecond
	Data      []byte    // what was kept of it
	// Length is that of the whole packet, in bytes. Default: of Data.
	Length    int
	Direction Direction
	Comment   string // of at most 65,535 bytes: what is longer is cut
}

// Statistics are what is known of an interface at the end.
type Statistics struct {
	Start, End time.Time
	Captured   uint64 // packets that the filter took, those that were lost too
	Lost       uint64 // packets that nobody had room for
}

// Name is what an address is called.
type Name struct {
	Addr netip.Addr
	Name string
}

// Writer writes one section. Its methods are for one goroutine. What was written stays in a buffer until Flush.
type Writer struct {
	w          *bufio.Writer
	b          []byte // the block under way
	interfaces int
}

// NewWriter begins a section.
func NewWriter(w io.Writer, s Section) (*Writer, error) {
	pw := &Writer{w: bufio.NewWriterSize(w, 1<<16)}
	pw.begin(blockSection)
	pw.uint32(0x1a2b3c4d) // by which readers tell the order of bytes
	pw.uint16(1)          // version 1.0
	pw.uint16(0)
	pw.uint64(math.MaxUint64) // the section's length is not known yet
	pw.text(optHardware, s.Hardware)
	pw.text(optOS, s.OS)
	pw.text(optApplication, s.Application)
	pw.text(optComment, s.Comment)
	return pw, pw.end(true)
}

// AddInterface adds an interface and returns its number.
func (w *Writer) AddInterface(i Interface) (int, error) {
	w.begin(blockInterface)
	w.uint16(uint16(i.LinkType))
	w.uint16(0)
	w.uint32(i.SnapLen)
	w.text(optName, i.Name)
	w.text(optDescription, i.Description)
	w.option(optResolution, []byte{nanoseconds})
	if i.Filter != "" {
		w.text(optFilter, "\x00"+i.Filter) // 0: in the application's own words
	}
	w.interfaces++
	return w.interfaces - 1, w.end(true)
}

// AddNames says what addresses are called.
func (w *Writer) AddNames(names []Name) error {
	w.begin(blockNames)
	for _, n := range names {
		a, kind := n.Addr.Unmap(), uint16(name4)
		if !a.IsValid() {
			continue
		}
		if !a.Is4() {
			kind = name6
		}
		w.option(kind, append(a.AsSlice(), cut(n.Name, maxOption-17)+"\x00"...))
	}
	w.option(nameEnd, nil)
	return w.end(false)
}

// WritePacket writes a packet.
func (w *Writer) WritePacket(p Packet) error {
	if p.Interface < 0 || p.Interface >= w.interfaces {
		return fmt.Errorf("write packet: there is no interface %d, only %d of them", p.Interface, w.interfaces)
	}
	w.begin(blockPacket)
	w.uint32(uint32(p.Interface))
	w.time(p.Time)
	w.uint32(uint32(len(p.Data)))
	w.uint32(uint32(max(p.Length, len(p.Data))))
	w.b = append(w.b, p.Data...)
	w.pad()
	w.text(optComment, p.Comment)
	if p.Direction != 0 {
		w.option(optFlags, binary.LittleEndian.AppendUint32(nil, uint32(p.Direction)))
	}
	return w.end(true)
}

// WriteStatistics writes what is known of an interface, once all of its packets are written.
func (w *Writer) WriteStatistics(i int, s Statistics) error {
	if i < 0 || i >= w.interfaces {
		return fmt.Errorf("write statistics: there is no interface %d, only %d of them", i, w.interfaces)
	}
	w.begin(blockStatistics)
	w.uint32(uint32(i))
	w.time(s.End)
	w.timeOption(optStart, s.Start)
	w.timeOption(optEndTime, s.End)
	w.option(optAccept, binary.LittleEndian.AppendUint64(nil, s.Captured))
	w.option(optDropped, binary.LittleEndian.AppendUint64(nil, s.Lost))
	return w.end(true)
}

// Flush hands on all that was written.
func (w *Writer) Flush() error { return w.w.Flush() }

// begin starts a block.
//
//	0        4            8                                    n-4           n
//	|  type  |  length n  |  body, options, end of options      |  length n   |
func (w *Writer) begin(kind uint32) {
	w.b = w.b[:0]
	w.uint32(kind)
	w.uint32(0) // end sets it
}

// end writes the block, whose options want an end if it has any.
func (w *Writer) end(options bool) error {
	if options {
		w.option(optEnd, nil)
	}
	n := uint32(len(w.b) + 4)
	binary.LittleEndian.PutUint32(w.b[4:], n)
	w.uint32(n)
	_, err := w.w.Write(w.b)
	return err
}

func (w *Writer) uint16(v uint16) { w.b = binary.LittleEndian.AppendUint16(w.b, v) }
func (w *Writer) uint32(v uint32) { w.b = binary.LittleEndian.AppendUint32(w.b, v) }
func (w *Writer) uint64(v uint64) { w.b = binary.LittleEndian.AppendUint64(w.b, v) }

// time writes nanoseconds since 1970, the upper half first.
func (w *Writer) time(t time.Time) {
	ns := uint64(t.UnixNano())
	w.uint32(uint32(ns >> 32))
	w.uint32(uint32(ns))
}

func (w *Writer) timeOption(code uint16, t time.Time) {
	w.uint16(code)
	w.uint16(8)
	w.time(t)
}

// text writes an option with text; none for "".
func (w *Writer) text(code uint16, s string) {
	if s == "" {
		return
	}
	s = cut(s, maxOption)
	w.uint16(code)
	w.uint16(uint16(len(s)))
	w.b = append(w.b, s...)
	w.pad()
}

func (w *Writer) option(code uint16, value []byte) {
	w.uint16(code)
	w.uint16(uint16(len(value)))
	w.b = append(w.b, value...)
	w.pad()
}

// pad fills up to 32 bits: every part of a block is a multiple of them, and so all before is.
func (w *Writer) pad() {
	for len(w.b)%4 != 0 {
		w.b = append(w.b, 0)
	}
}

func cut(s string, n int) string { return s[:min(n, len(s))] }
