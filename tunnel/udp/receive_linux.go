package udp

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// receiveSlots is how many messages one call receives: each slot has room for a whole train. More brought nothing.
const receiveSlots = 4

// controlLen is the room for two control messages with an int each: the size of the datagrams and their traffic class.
var controlLen = 2 * unix.CmsgSpace(4)

// SlotSize is the length in bytes of the memory that a Receiver needs for each message.
const SlotSize = 1 << 16

// Received is one message: datagrams of one sender, each of Segment bytes but the last, which may be shorter. They came with
// the same ECN field: the kernel merges no others (inet_gro_receive, ipv6_gro_receive).
type Received struct {
	From    netip.Addr
	Data    []byte
	Segment int
	ECN     packet.ECN
}

// Receiver receives from one socket. It is for one goroutine.
type Receiver struct {
	conn     *Conn
	headers  [receiveSlots]mmsghdr
	iovecs   [receiveSlots]unix.Iovec
	names    [receiveSlots]unix.RawSockaddrInet6
	controls []byte
	slabs    [receiveSlots][]byte
	received [receiveSlots]Received
}

// NewReceiver returns a receiver of c.
func NewReceiver(c *Conn) *Receiver {
	r := &Receiver{conn: c, controls: make([]byte, receiveSlots*controlLen)}
	for i := range r.headers {
		r.slabs[i] = make([]byte, SlotSize)
		r.iovecs[i].Base = &r.slabs[i][0]
		r.iovecs[i].SetLen(SlotSize)
		h := &r.headers[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Iov = &r.iovecs[i]
		h.SetIovlen(1)
		h.Control = &r.controls[i*controlLen]
	}
	return r
}

// Receive receives what is there, without blocking. The result and its data are valid until the next call; the caller may
// write to the data.
func (r *Receiver) Receive() []Received {
	for i := range r.headers {
		r.headers[i].hdr.Namelen = uint32(unsafe.Sizeof(r.names[i]))
		r.headers[i].hdr.SetControllen(controlLen)
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(r.conn.fd), uintptr(unsafe.Pointer(&r.headers)), receiveSlots, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return nil // EAGAIN, EINTR, or an error of an earlier send: the next wait tells whether there is more
	}
	for i := range r.received[:n] {
		r.received[i] = r.message(i)
	}
	return r.received[:n]
}

// Port returns the port from which message i of the last Receive came.
func (r *Receiver) Port(i int) uint16 {
	// It is at the same place in the addresses of both families.
	return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&r.names[i].Port))[:])
}

func (r *Receiver) message(i int) Received {
	h := &r.headers[i]
	m := Received{Data: r.slabs[i][:h.n], Segment: int(h.n)}
	if r.conn.v6 {
		m.From = netip.AddrFrom16(r.names[i].Addr)
	} else {
		m.From = netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(&r.names[i])).Addr)
	}
	for control := r.controls[i*controlLen:][:h.hdr.Controllen]; len(control) > unix.CmsgLen(0); {
		c, data := (*unix.Cmsghdr)(unsafe.Pointer(&control[0])), control[unix.CmsgLen(0):]
		switch {
		case c.Level == unix.SOL_UDP && c.Type == unix.UDP_GRO:
			if size := int(binary.NativeEndian.Uint32(data)); size > 0 {
				m.Segment = size
			}
		case c.Level == unix.IPPROTO_IP && c.Type == unix.IP_TOS: // a byte
			m.ECN = packet.ECN(data[0] & 3)
		case c.Level == unix.IPPROTO_IPV6 && c.Type == unix.IPV6_TCLASS:
			m.ECN = packet.ECN(binary.NativeEndian.Uint32(data) & 3)
		}
		control = control[min(unix.CmsgSpace(int(c.Len)-unix.CmsgLen(0)), len(control)):]
	}
	return m
}
