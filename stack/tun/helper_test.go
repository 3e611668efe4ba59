package tun_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/tun"
)

func TestMain(m *testing.M) { lab.Main(m) }

const mtu = 1450

// queue is the stack's Queue.
type queue interface {
	FD() int
	Read(frame []byte) (int, error)
	Takes(kind packet.GSO) bool
	Write(frame []byte, more [][]byte) error
}

// backend is a way to drive a device.
type backend struct {
	name string
	open func(tun.Config) (queue, io.Closer, error)
}

const withoutChecksums = "device without checksums"

var backends = []backend{
	{"device", without(tun.Offloads{})},
	{"device without segmentation", without(tun.Offloads{TSO: true, USO: true})},
	{withoutChecksums, without(tun.Offloads{Checksum: true})},
	{"portable", func(c tun.Config) (queue, io.Closer, error) {
		p, err := tun.OpenPortable(c)
		if err != nil {
			return nil, nil, err
		}
		return p, p, nil
	}},
}

// without opens a device that has not all offloads.
func without(off tun.Offloads) func(tun.Config) (queue, io.Closer, error) {
	return func(c tun.Config) (queue, io.Closer, error) {
		c.Without = off
		d, err := tun.Open(c)
		if err != nil {
			return nil, nil, err
		}
		return d.Queues()[0], d, nil
	}
}

func newNamespace(t testing.TB, name string) *lab.Namespace {
	t.Helper()
	n, err := lab.NewNamespace(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// pod is a namespace with one device, which everything is routed to.
type pod struct {
	*lab.Namespace
	v4, v6 netip.Addr
	queue  queue
}

// newPod makes pod number i: 10.244.1.i, fd00:10:244:1::i.
func newPod(t testing.TB, b backend, i int) *pod {
	t.Helper()
	p := &pod{Namespace: newNamespace(t, fmt.Sprintf("pod%d", i))}
	p.v4 = netip.AddrFrom4([4]byte{10, 244, 1, byte(i)})
	p.v6 = netip.MustParseAddr(fmt.Sprintf("fd00:10:244:1::%d", i))
	p.queue = openIn(t, p.Namespace, b, "eth0")
	must(t, p.AddAddr("eth0", netip.PrefixFrom(p.v4, 32)))
	must(t, p.AddAddr("eth0", netip.PrefixFrom(p.v6, 128)))
	must(t, p.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.Addr{}, "eth0"))
	must(t, p.AddRoute(netip.MustParsePrefix("::/0"), netip.Addr{}, "eth0"))
	p.awaitLocal(t, p.v6)
	return p
}

// awaitLocal waits until the kernel takes packets to an address: for IPv6 a work queue of its own enters that route.
func (p *pod) awaitLocal(t testing.TB, a netip.Addr) {
	t.Helper()
	h, err := p.Netlink()
	must(t, err)
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if r, err := h.RouteGet(a.AsSlice()); err == nil && len(r) > 0 && r[0].Type == unix.RTN_LOCAL {
			return
		}
	}
	t.Fatalf("%v is not local within 5 s", a)
}

// openIn opens a device in a namespace and sets it up.
func openIn(t testing.TB, n *lab.Namespace, b backend, name string) (q queue) {
	t.Helper()
	var c io.Closer
	must(t, n.Do(func() (err error) {
		q, c, err = b.open(tun.Config{Name: name, MTU: mtu})
		return err
	}))
	t.Cleanup(func() { _ = c.Close() })
	setMTU(t, n, name)
	return q
}

func setMTU(t testing.TB, n *lab.Namespace, name string) {
	t.Helper()
	_ = n.Sysctl("net/ipv6/conf/"+name+"/addr_gen_mode", "1") // no link-local address, hence no multicast of its own
	h, err := n.Netlink()
	must(t, err)
	link, err := h.LinkByName(name)
	must(t, err)
	must(t, h.LinkSetMTU(link, mtu))
	must(t, n.SetUp(name))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// packets

// udpPacket returns a datagram, its checksum complete, or only the pseudo-header's sum.
func udpPacket(src, dst netip.AddrPort, payload []byte, partial bool) []byte {
	head := 20
	if src.Addr().Is6() {
		head = 40
	}
	b := make([]byte, head+8+len(payload))
	ipHeader(b, head, packet.UDP, src.Addr(), dst.Addr())
	u := b[head:]
	binary.BigEndian.PutUint16(u, src.Port())
	binary.BigEndian.PutUint16(u[2:], dst.Port())
	binary.BigEndian.PutUint16(u[4:], uint16(len(u)))
	copy(u[8:], payload)
	sumUp(b, partial)
	return b
}

// tcpPacket returns a segment with options of 12 bytes.
func tcpPacket(src, dst netip.AddrPort, flags byte, payload []byte, partial bool) []byte {
	head := 20
	if src.Addr().Is6() {
		head = 40
	}
	b := make([]byte, head+32+len(payload))
	ipHeader(b, head, packet.TCP, src.Addr(), dst.Addr())
	h := b[head:]
	binary.BigEndian.PutUint16(h, src.Port())
	binary.BigEndian.PutUint16(h[2:], dst.Port())
	binary.BigEndian.PutUint32(h[4:], 0xfffff000)
	binary.BigEndian.PutUint32(h[8:], 1)
	h[12], h[13] = 8<<4, flags
	binary.BigEndian.PutUint16(h[14:], 512)
	copy(h[20:], []byte{1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8})
	copy(h[32:], payload)
	sumUp(b, partial)
	return b
}

func ipHeader(b []byte, head int, proto packet.Proto, src, dst netip.Addr) {
	if head == 40 {
		b[0], b[6], b[7] = 6<<4, byte(proto), 64
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
		copy(b[8:], src.AsSlice())
		copy(b[24:], dst.AsSlice())
		return
	}
	b[0], b[8], b[9] = 0x45, 64, byte(proto)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	binary.BigEndian.PutUint16(b[4:], 0xfff0)
	b[6] = 0x40
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(b[10:], ^packet.Checksum(b[:20], 0))
}

func sumUp(b []byte, partial bool) {
	var p packet.Parsed
	if reason := packet.Parse(b, &p); reason != packet.Kept {
		panic(reason)
	}
	o := packet.PartialOffload(&p)
	at := o.ChecksumStart + o.ChecksumOffset
	binary.BigEndian.PutUint16(b[at:], packet.PseudoSum(b, &p, p.Len-p.L4))
	if !partial {
		packet.FinishChecksum(b, &o)
	}
}

// super returns a frame with a super-packet, whose checksum is open, for segments of size bytes.
func super(b []byte, size int) []byte {
	var p packet.Parsed
	packet.Parse(b, &p)
	o := packet.PartialOffload(&p).Segmented(&p, size)
	if p.Proto == packet.TCP && p.Flags&packet.CWR != 0 {
		o.ECN = true
	}
	return frame(o, b)
}

func frame(o packet.Offload, b []byte) []byte {
	f := make([]byte, packet.VnetLen, packet.VnetLen+len(b))
	o.Encode(f)
	return append(f, b...)
}

// expand returns the packets that a frame stands for, each behind room for a vnet header, with their checksums complete or
// partial.
func expand(f []byte, partial bool) (segs [][]byte, err error) {
	o, err := packet.DecodeOffload(f)
	if err != nil {
		return nil, err
	}
	b := f[packet.VnetLen:]
	var p packet.Parsed
	reason := packet.Parse(b, &p)
	if reason == packet.Kept {
		reason = o.Check(b, &p)
	}
	if reason != packet.Kept {
		return nil, fmt.Errorf("% x: %v", b[:min(len(b), 60)], reason)
	}
	if o.GSO == packet.GSONone {
		one := append([]byte(nil), f[:packet.VnetLen+p.Len]...)
		if !partial || p.Payload == 0 || !o.NeedsChecksum {
			packet.FinishChecksum(one[packet.VnetLen:], &o)
		}
		return [][]byte{one}, nil
	}
	split, ok := packet.Split(b, &p, o, partial)
	if !ok {
		return nil, errors.New("not split")
	}
	for split.Left() {
		one := make([]byte, packet.VnetLen+split.HeaderLen(), packet.VnetLen+split.NextLen())
		payload, _ := split.Next(one[packet.VnetLen:])
		segs = append(segs, append(one, payload...))
	}
	return segs, nil
}

// readable waits until a descriptor is readable.
func readable(fd int, timeout time.Duration) bool {
	polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	end := time.Now().Add(timeout)
	for {
		n, err := unix.Poll(polled, int(max(0, time.Until(end)).Milliseconds()))
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n > 0
		}
	}
}

// next reads the next frame of a queue.
func next(t testing.TB, q queue) []byte {
	t.Helper()
	f := make([]byte, packet.VnetLen+packet.MaxSize+40)
	for range 3 { // a portable device may pass over a frame
		if !readable(q.FD(), 2*time.Second) {
			t.Fatal("no frame within 2 s")
		}
		n, err := q.Read(f)
		if err == nil {
			return f[:n]
		}
		if !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		}
	}
	t.Fatal("no frame, although the descriptor is readable")
	return nil
}

// nextPackets reads frames until they stand for n packets.
func nextPackets(t testing.TB, q queue, n int) (segs [][]byte, frames int) {
	t.Helper()
	for len(segs) < n {
		f := next(t, q)
		more, err := expand(f, false)
		must(t, err)
		segs = append(segs, more...)
		frames++
	}
	return segs, frames
}

func payloadOf(t testing.TB, b []byte) []byte {
	t.Helper()
	var p packet.Parsed
	if reason := packet.Parse(b, &p); reason != packet.Kept {
		t.Fatalf("% x: %v", b[:min(len(b), 60)], reason)
	}
	if !packet.TransportChecksumOK(b, &p) {
		t.Fatalf("%v: wrong checksum", p.Flow)
	}
	return b[p.Payload:p.Len]
}

// sockets

func listenUDP(t testing.TB, p *pod, addr netip.Addr, port uint16) *net.UDPConn {
	t.Helper()
	c, err := p.ListenPacket("udp", netip.AddrPortFrom(addr, port).String())
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	u := c.(*net.UDPConn)
	_ = u.SetReadBuffer(4 << 20)
	return u
}

func dialUDP(t testing.TB, p *pod, dst netip.AddrPort) *net.UDPConn {
	t.Helper()
	c, err := p.Dial(t.Context(), "udp", dst.String())
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.UDPConn)
}

func setUDP(t testing.TB, c *net.UDPConn, option, value int) {
	t.Helper()
	raw, err := c.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) {
		err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, option, value))
	}))
	must(t, err)
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*31 + i>>8*7)
	}
	return b
}

// kernelTakesUDP reports whether this kernel's TUN devices take super-packets of datagrams, as Linux 6.2 and later do. It asks the
// kernel by itself.
func kernelTakesUDP(t testing.TB) bool {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	request, err := unix.NewIfreq("uso%d")
	must(t, err)
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	must(t, unix.IoctlIfreq(fd, unix.TUNSETIFF, request))
	return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_USO4|unix.TUN_F_USO6) == nil
}

// mustSegment fails the test if a socket with UDP_SEGMENT refused to send, and skips it if the kernel is to blame: before Linux
// 6.11 it segmented only for devices with checksum offload.
func mustSegment(t testing.TB, b backend, err error) {
	t.Helper()
	if errors.Is(err, unix.EIO) && b.name == withoutChecksums {
		t.Skip("this kernel segments datagrams only for devices with checksum offload")
	}
	must(t, err)
}
