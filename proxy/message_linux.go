package proxy

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// messageRoom is the room for a message's data: a train of datagrams has as many bytes as one large datagram.
const messageRoom = 1 << 16

// controlRoom is the room for control messages: addresses, time to live, traffic class, the size of a train's datagrams, and an
// error with its offender's address.
const controlRoom = 256

// message is a message that was received from a socket, and the memory for it.
type message struct {
	data    []byte
	segment int            // size of the datagrams of a train; 0: data is one
	from    netip.AddrPort // of an error: to whom was sent what it is about
	to      netip.Addr     // the local address at which it came in, as the IP header has it; not valid if the kernel did not say
	local   netip.Addr     // IPv4: the one from which to answer; differs from to for a broadcast
	device  uint32         // index of the interface at which it came in
	ttl     uint8
	tos     uint8
	failure failure // valid iff it was received from the error queue

	room    []byte
	control []byte
	name    unix.RawSockaddrInet6
	iovec   unix.Iovec
	header  unix.Msghdr
}

// failure is an error that a socket tells (struct sock_extended_err, include/uapi/linux/errqueue.h).
type failure struct {
	errno    unix.Errno
	origin   uint8
	kind     uint8 // type of the ICMP message
	code     uint8
	info     uint32 // MTU, pointer
	offender netip.Addr
}

func (m *message) init() {
	m.room, m.control = make([]byte, messageRoom), make([]byte, controlRoom)
	m.iovec.Base = &m.room[0]
	m.iovec.SetLen(len(m.room))
	m.header.Name = (*byte)(unsafe.Pointer(&m.name))
	m.header.Iov = &m.iovec
	m.header.SetIovlen(1)
	m.header.Control = &m.control[0]
}

// receive receives one message without blocking; flags may be unix.MSG_ERRQUEUE.
func (m *message) receive(fd, flags int) unix.Errno {
	m.name.Family, m.header.Namelen = unix.AF_UNSPEC, unix.SizeofSockaddrInet6
	m.header.SetControllen(len(m.control))
	n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&m.header)), uintptr(flags|unix.MSG_DONTWAIT))
	if errno != 0 {
		return errno
	}
	m.data = m.room[:n]
	m.segment, m.ttl, m.tos, m.device = 0, 64, 0, 0
	m.to, m.local, m.failure = netip.Addr{}, netip.Addr{}, failure{}
	m.from = addrPort(&m.name)
	m.readControl(m.control[:m.header.Controllen])
	return 0
}

func (m *message) readControl(control []byte) {
	head := unix.CmsgLen(0)
	for len(control) >= head {
		c := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
		if int(c.Len) < head || int(c.Len) > len(control) {
			return
		}
		m.readOption(c.Level, c.Type, control[head:c.Len])
		control = control[min(len(control), unix.CmsgSpace(int(c.Len)-head)):]
	}
}

func (m *message) readOption(level, option int32, b []byte) {
	if level == unix.IPPROTO_IP && option == unix.IP_TOS && len(b) > 0 { // a byte
		m.tos = b[0]
	}
	if len(b) < 4 {
		return
	}
	ne := binary.NativeEndian
	switch {
	case level == unix.SOL_UDP && option == unix.UDP_GRO:
		if size := int(ne.Uint32(b)); size > 0 && size < len(m.data) {
			m.segment = size
		}
	case level == unix.IPPROTO_IP && option == unix.IP_TTL, level == unix.IPPROTO_IPV6 && option == unix.IPV6_HOPLIMIT:
		m.ttl = uint8(ne.Uint32(b))
	case level == unix.IPPROTO_IPV6 && option == unix.IPV6_TCLASS:
		m.tos = uint8(ne.Uint32(b))
	case level == unix.IPPROTO_IP && option == unix.IP_PKTINFO && len(b) >= unix.SizeofInet4Pktinfo:
		m.device, m.local, m.to = ne.Uint32(b), netip.AddrFrom4([4]byte(b[4:])), netip.AddrFrom4([4]byte(b[8:]))
	case level == unix.IPPROTO_IPV6 && option == unix.IPV6_PKTINFO && len(b) >= unix.SizeofInet6Pktinfo:
		m.to, m.device = netip.AddrFrom16([16]byte(b)), ne.Uint32(b[16:])
		m.local = m.to
	case level == unix.IPPROTO_IP && option == unix.IP_RECVERR, level == unix.IPPROTO_IPV6 && option == unix.IPV6_RECVERR:
		m.readFailure(b)
	}
}

// readFailure reads
//
//	0       4        5      6      7    8      12     16
//	| errno | origin | type | code | pad | info | data | sockaddr of the offender
func (m *message) readFailure(b []byte) {
	if len(b) < 16 {
		return
	}
	ne := binary.NativeEndian
	m.failure = failure{
		errno: unix.Errno(ne.Uint32(b)), origin: b[4], kind: b[5], code: b[6], info: ne.Uint32(b[8:]),
	}
	var offender unix.RawSockaddrInet6
	copy((*[unix.SizeofSockaddrInet6]byte)(unsafe.Pointer(&offender))[:], b[16:])
	m.failure.offender = addrPort(&offender).Addr()
}

// addrPort converts an address of the kernel's; it is not valid if the kernel gave none.
func addrPort(raw *unix.RawSockaddrInet6) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&raw.Port))[:]) // at the same place in both families
	switch raw.Family {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(raw)).Addr), port)
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(raw.Addr), port)
	}
	return netip.AddrPort{}
}

// rawSockaddr converts an address to the kernel's form, of the returned length.
func rawSockaddr(addr netip.Addr, port uint16, raw *unix.RawSockaddrInet6) uint32 {
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&raw.Port))[:], port)
	if addr.Is4() {
		raw.Family = unix.AF_INET
		(*unix.RawSockaddrInet4)(unsafe.Pointer(raw)).Addr = addr.As4()
		return unix.SizeofSockaddrInet4
	}
	raw.Family, raw.Addr = unix.AF_INET6, addr.As16()
	return unix.SizeofSockaddrInet6
}

// outgoing is a message to be sent: data, to an address unless the socket is connected, with what differs from the socket's own
// settings.
type outgoing struct {
	data    []byte
	to      netip.AddrPort // not valid: the socket is connected
	from    netip.Addr     // not valid: the kernel chooses
	segment int            // size of the datagrams of a train; 0: data is one
	ttl     int            // -1: the socket's
	tos     int            // -1: the socket's
}

// send sends a message without blocking. is4 says of which family the socket is. An error that an earlier packet left at the socket,
// of which the error queue tells, keeps no further one from being sent.
func (o *outgoing) send(fd int, is4 bool) unix.Errno {
	switch errno := o.sendOnce(fd, is4); errno {
	case 0, unix.EAGAIN, unix.ENOBUFS, unix.EINVAL, unix.EIO:
		return errno
	}
	return o.sendOnce(fd, is4)
}

func (o *outgoing) sendOnce(fd int, is4 bool) unix.Errno {
	var room [controlRoom]byte
	var name unix.RawSockaddrInet6
	iovec := unix.Iovec{Base: unsafe.SliceData(o.data)}
	iovec.SetLen(len(o.data))
	header := unix.Msghdr{Iov: &iovec}
	header.SetIovlen(1)
	if o.to.IsValid() {
		header.Namelen = rawSockaddr(o.to.Addr(), o.to.Port(), &name)
		header.Name = (*byte)(unsafe.Pointer(&name))
	}
	if n := o.writeControl(room[:], is4); n > 0 {
		header.Control = &room[0]
		header.SetControllen(n)
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&header)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	return errno
}

// writeControl writes the control messages and returns their length.
func (o *outgoing) writeControl(room []byte, is4 bool) (n int) {
	ne := binary.NativeEndian
	if o.segment > 0 {
		ne.PutUint16(putOption(room, &n, unix.SOL_UDP, unix.UDP_SEGMENT, 2), uint16(o.segment))
	}
	level, ttl, tos := int32(unix.IPPROTO_IP), int32(unix.IP_TTL), int32(unix.IP_TOS)
	if !is4 {
		level, ttl, tos = unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT, unix.IPV6_TCLASS
	}
	if o.ttl >= 0 {
		ne.PutUint32(putOption(room, &n, level, ttl, 4), uint32(o.ttl))
	}
	if o.tos >= 0 {
		ne.PutUint32(putOption(room, &n, level, tos, 4), uint32(o.tos))
	}
	if !o.from.IsValid() {
		return n
	}
	if is4 {
		from := o.from.As4()
		copy(putOption(room, &n, level, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)[4:], from[:]) // ipi_spec_dst
	} else {
		from := o.from.As16()
		copy(putOption(room, &n, level, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo), from[:])
	}
	return n
}

// putOption writes the head of a control message at n, moves n behind the message and returns its data, zeroed.
func putOption(room []byte, n *int, level, option int32, length int) []byte {
	c := (*unix.Cmsghdr)(unsafe.Pointer(&room[*n]))
	c.Level, c.Type = level, option
	c.SetLen(unix.CmsgLen(length))
	data := room[*n+unix.CmsgLen(0):][:length]
	*n += unix.CmsgSpace(length)
	return data
}
