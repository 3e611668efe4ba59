package tool

import (
	"encoding/binary"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// ListenDatagrams is net.ListenPacket of "udp", whose answers come from the address that was asked: what WriteTo sends to an address that
// ReadFrom returned leaves from where that datagram went to. An ordinary socket of all addresses answers from the one that the route back
// prefers, and who asked another one does not take it for an answer.
func ListenDatagrams(addr string) (net.PacketConn, error) {
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		return nil, err
	}
	udp := c.(*net.UDPConn)
	if at, ok := udp.LocalAddr().(*net.UDPAddr); ok && !at.IP.IsUnspecified() {
		return c, nil
	}
	raw, err := udp.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			// On a socket of one family the other's option is refused, and is not needed.
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		})
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return &askedConn{udp}, nil
}

type askedConn struct{ *net.UDPConn }

// askedAddr is who asked, and where.
type askedAddr struct {
	*net.UDPAddr
	control []byte // in_pktinfo (ip(7)) or in6_pktinfo (ipv6(7)), as sendmsg(2) takes it
}

func (c *askedConn) ReadFrom(p []byte) (int, net.Addr, error) {
	oob := make([]byte, 128)
	n, oobn, _, from, err := c.ReadMsgUDP(p, oob)
	if err != nil {
		return n, nil, err
	}
	return n, &askedAddr{from, answerFrom(oob[:oobn])}, nil
}

func (c *askedConn) WriteTo(p []byte, to net.Addr) (int, error) {
	asked, ok := to.(*askedAddr)
	if !ok {
		return c.UDPConn.WriteTo(p, to)
	}
	n, _, err := c.WriteMsgUDP(p, asked.control, asked.UDPAddr)
	return n, err
}

// answerFrom makes of what came with a datagram what has its answer sent from the address that it went to, through any interface.
func answerFrom(oob []byte) []byte {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			info := &unix.Inet6Pktinfo{Addr: [16]byte(m.Data[:16])}
			if net.IP(info.Addr[:]).IsLinkLocalUnicast() {
				info.Ifindex = binary.NativeEndian.Uint32(m.Data[16:20])
			}
			return unix.PktInfo6(info)
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: [4]byte(m.Data[4:8])})
		}
	}
	return nil
}
