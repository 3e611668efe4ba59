package tool

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// echoFamily is what differs between ICMP (RFC 792) and ICMPv6 (RFC 4443) and their sockets (ip(7), ipv6(7), icmp(7)).
type echoFamily struct {
	domain, proto  int // proto also for icmp.ParseMessage
	request, reply icmp.Type
	headers        int // of IP and ICMP, bytes

	level                             int // of the options below
	receiveErrors, receiveTTL, setTTL int
	discover, ttl, mtu                int
}

var (
	echo4 = &echoFamily{unix.AF_INET, unix.IPPROTO_ICMP, ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply, 20 + 8,
		unix.SOL_IP, unix.IP_RECVERR, unix.IP_RECVTTL, unix.IP_TTL, unix.IP_MTU_DISCOVER, unix.IP_TTL, unix.IP_MTU}
	echo6 = &echoFamily{unix.AF_INET6, unix.IPPROTO_ICMPV6, ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply, 40 + 8,
		unix.SOL_IPV6, unix.IPV6_RECVERR, unix.IPV6_RECVHOPLIMIT, unix.IPV6_UNICAST_HOPS, unix.IPV6_MTU_DISCOVER, unix.IPV6_HOPLIMIT, unix.IPV6_MTU}
)

func echoFamilyOf(a netip.Addr) *echoFamily {
	if a.Is4() {
		return echo4
	}
	return echo6
}

// echoSocket sends echo requests and receives what comes back: replies as data, ICMP errors through the socket's error queue,
// which tells who sent them. One goroutine may send while another receives.
type echoSocket struct {
	family *echoFamily
	file   *os.File // for deadlines, and so that waiting holds no thread
	conn   syscall.RawConn
	// id tells the replies of a raw socket, which sees all of its namespace, apart. For a datagram socket the kernel chooses
	// the number and hands over its own replies alone.
	id   int
	raw  bool
	buf  []byte
	oob  []byte
	size int // bytes of payload
	// route is a UDP socket that sends nothing: connected, it knows the path's MTU.
	route int
}

// openEchoSocket opens a raw socket, or where this is forbidden the datagram socket that ping_group_range allows.
func openEchoSocket(f *echoFamily, size, id int) (*echoSocket, error) {
	s := &echoSocket{family: f, id: id, raw: true, size: size, buf: make([]byte, f.headers+60+size), oob: make([]byte, 512), route: -1}
	fd, err := unix.Socket(f.domain, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, f.proto)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		s.raw = false
		fd, err = unix.Socket(f.domain, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, f.proto)
	}
	switch {
	case errors.Is(err, unix.EAFNOSUPPORT):
		return nil, errors.New("this kernel has no IPv6; ask an IPv4 address")
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return nil, fmt.Errorf("this user may not open ICMP sockets here (%w): "+
			`as root run sysctl net.ipv4.ping_group_range="0 2147483647", or ping as root or in a pod (middleway exec)`, err)
	case err != nil:
		return nil, fmt.Errorf("open an ICMP socket: %w", err)
	}
	if err := s.prepare(fd); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	s.file = os.NewFile(uintptr(fd), "icmp")
	if s.conn, err = s.file.SyscallConn(); err == nil {
		s.route, err = unix.Socket(f.domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *echoSocket) prepare(fd int) error {
	f := s.family
	for _, option := range []int{f.receiveErrors, f.receiveTTL} {
		if err := unix.SetsockoptInt(fd, f.level, option, 1); err != nil {
			return fmt.Errorf("set option %d of the ICMP socket: %w", option, err)
		}
	}
	if !s.raw {
		return nil
	}
	// Only replies: neither the requests that this namespace gets nor neighbour discovery. Errors come another way.
	if f == echo4 {
		const icmpFilter = 1 // linux/icmp.h
		return unix.SetsockoptInt(fd, unix.SOL_RAW, icmpFilter, ^(1 << ipv4.ICMPTypeEchoReply))
	}
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeEchoReply)
	return unix.SetsockoptICMPv6Filter(fd, unix.SOL_ICMPV6, unix.ICMPV6_FILTER, (*unix.ICMPv6Filter)(unsafe.Pointer(&filter)))
}

func (s *echoSocket) close() error {
	if s.route >= 0 {
		_ = unix.Close(s.route)
	}
	return s.file.Close()
}

// pathMTU returns how large packets to dst may be as far as the kernel knows, in bytes, IP header included; 0 if it does not.
func (s *echoSocket) pathMTU(dst netip.Addr) int {
	if err := unix.Connect(s.route, sockaddr(dst)); err != nil {
		return 0
	}
	mtu, _ := unix.GetsockoptInt(s.route, s.family.level, s.family.mtu) // 0 with an error
	return mtu
}

// setDeadline ends a waiting receive with os.ErrDeadlineExceeded.
func (s *echoSocket) setDeadline(t time.Time) { _ = s.file.SetReadDeadline(t) } // fails only when closed, as receive will

func (s *echoSocket) setOption(name string, level, option, value int) error {
	return s.control(name, func(fd int) error { return unix.SetsockoptInt(fd, level, option, value) })
}

func (s *echoSocket) control(step string, f func(fd int) error) error {
	var err error
	if errControl := s.conn.Control(func(fd uintptr) { err = f(int(fd)) }); errControl != nil {
		err = errControl
	}
	if err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	return nil
}

func (s *echoSocket) setTTL(ttl int) error {
	return s.setOption("set the TTL", s.family.level, s.family.setTTL, ttl)
}

func (s *echoSocket) bind(source netip.Addr) error {
	return s.control("use source address "+source.String(), func(fd int) error { return unix.Bind(fd, sockaddr(source)) })
}

func (s *echoSocket) bindDevice(name string) error {
	return s.control("use interface "+name, func(fd int) error { return unix.BindToDevice(fd, name) })
}

func sockaddr(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Addr: a.As16(), ZoneId: zoneIndex(a.Zone())}
}

// zoneIndex is the number of an interface given by name or number; 0 if there is none.
func zoneIndex(zone string) uint32 {
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index)
	}
	n, _ := strconv.ParseUint(zone, 10, 32)
	return uint32(n)
}

func addrOf(sa unix.Sockaddr) netip.Addr {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(sa.Addr)
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(sa.Addr)
	}
	return netip.Addr{}
}

// send sends one request. An error of an earlier packet that the kernel reports in place of sending is passed over.
func (s *echoSocket) send(dst netip.Addr, seq uint16, payload []byte) error {
	echo := &icmp.Echo{ID: s.id, Seq: int(seq), Data: payload}
	request, err := (&icmp.Message{Type: s.family.request, Body: echo}).Marshal(nil) // the kernel sums ICMPv6
	if err != nil {
		return err
	}
	return s.control("send", func(fd int) error {
		var err error
		for range 3 {
			if err = unix.Sendto(fd, request, 0, sockaddr(dst)); err == nil || errors.Is(err, unix.EMSGSIZE) {
				break
			}
		}
		return err
	})
}

// arrival is what came back: a reply, or an ICMP error about a request.
type arrival struct {
	at    time.Time
	seq   uint16
	from  netip.Addr // who sent it
	bytes int        // of the ICMP message
	ttl   int        // with which it came; 0 for errors
	err   *ICMPError // nil for a reply
}

// receive waits until the deadline for the next reply or error.
func (s *echoSocket) receive() (a arrival, err error) {
	errRead := s.conn.Read(func(fd uintptr) bool {
		var ok bool
		ok, err = s.next(int(fd), &a)
		return ok || err != nil
	})
	if errRead != nil {
		err = errRead
	}
	return a, err
}

// next reads up to the first message that concerns this socket. Without one it returns false.
func (s *echoSocket) next(fd int, a *arrival) (ok bool, err error) {
	for explained := true; ; {
		n, oob, _, _, err := unix.Recvmsg(fd, s.buf, s.oob, unix.MSG_ERRQUEUE)
		if err == nil {
			explained = true
			if s.parseError(s.buf[:n], s.oob[:oob], a) {
				return true, nil
			}
			continue
		}
		n, oob, _, from, err := unix.Recvmsg(fd, s.buf, s.oob, 0)
		switch {
		case err == nil:
			if s.parseReply(s.buf[:n], s.oob[:oob], addrOf(from), a) {
				return true, nil
			}
		case errors.Is(err, unix.EAGAIN):
			return false, nil
		case !explained:
			return false, err
		default:
			explained = false // the error queue has the reason
		}
	}
}

// parseReply reads a reply, with the IP header in front if it is IPv4 from a raw socket.
func (s *echoSocket) parseReply(b, oob []byte, from netip.Addr, a *arrival) bool {
	if s.raw && s.family == echo4 {
		if len(b) < 20 || len(b) < int(b[0]&0xf)*4 {
			return false
		}
		b = b[int(b[0]&0xf)*4:]
	}
	m, err := icmp.ParseMessage(s.family.proto, b)
	if err != nil || m.Type != s.family.reply {
		return false
	}
	echo, ok := m.Body.(*icmp.Echo)
	if !ok || s.raw && echo.ID != s.id || len(echo.Data) != s.size {
		return false
	}
	*a = arrival{at: time.Now(), seq: uint16(echo.Seq), from: from, bytes: len(b)}
	for data := range controlMessages(oob, s.family.level, s.family.ttl) {
		if len(data) >= 4 {
			a.ttl = int(*(*int32)(unsafe.Pointer(&data[0])))
		}
	}
	return true
}

// parseError reads an entry of the error queue: quoted is the ICMP message of the request, as far as the error had it.
func (s *echoSocket) parseError(quoted, oob []byte, a *arrival) bool {
	for data := range controlMessages(oob, s.family.level, s.family.receiveErrors) {
		e, ok := parseICMPError(s.family, data)
		if !ok || len(quoted) < 8 {
			continue
		}
		id, seq := int(quoted[4])<<8|int(quoted[5]), uint16(quoted[6])<<8|uint16(quoted[7])
		if s.raw && id != s.id {
			continue
		}
		*a = arrival{at: time.Now(), seq: seq, from: e.From, bytes: len(quoted), err: e}
		return true
	}
	return false
}

// controlMessages yields the data of those of a kind.
func controlMessages(oob []byte, level, kind int) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		messages, err := unix.ParseSocketControlMessage(oob)
		if err != nil {
			return
		}
		for _, m := range messages {
			if int(m.Header.Level) == level && int(m.Header.Type) == kind && !yield(m.Data) {
				return
			}
		}
	}
}
