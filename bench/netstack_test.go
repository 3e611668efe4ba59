package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/fdbased"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/stack/packet"
)

// Netstack is gVisor's own forwarding between two of its interfaces: TUN devices on one node, a TUN device and a UDP socket
// that carries IP packets as they are between nodes. It is what middleway's workers are there to avoid: it takes no
// super-packets in transit, so that each packet of 1,450 bytes is read, copied, summed and written by itself.
//
// It is in a test file because only stack/netstack may import gvisor.dev into a program.
type Netstack struct{}

// Name is the contestant's name.
func (Netstack) Name() string { return "netstack" }

const (
	netstackRole = "bench-netstack"
	// netstackPort is of the datagrams between two netstacks.
	netstackPort = 4000
)

func init() {
	Add(Netstack{})
	lab.RegisterRole(netstackRole, netstackMain)
}

// netstackLink is an interface of a netstack: descriptor 3 and following, in order.
type netstackLink struct {
	Address netip.Addr   // the netstack's own
	Behind  netip.Prefix // what is routed to it
}

// Join joins two pods by one netstack, or by one on each of two nodes.
func (Netstack) Join(place Place) (*Pair, error) {
	return build(func(p *Pair) error {
		if err := p.pods(); err != nil {
			return err
		}
		from, to := podAddrs(place)
		p.Addr = to
		fromTUN, err := plainTUN(p.From, from)
		if err != nil {
			return err
		}
		defer fromTUN.Close()
		toTUN, err := plainTUN(p.To, to)
		if err != nil {
			return err
		}
		defer toTUN.Close()
		toFrom := netstackLink{podAddr(1, 1), netip.PrefixFrom(from, 32)}
		toTo := netstackLink{podAddr(1, 254), netip.PrefixFrom(to, 32)}
		if place == SameNode {
			return p.daemon(nil, netstackRole, []netstackLink{toFrom, toTo}, fromTUN, toTUN)
		}
		nodes, err := p.nodes()
		if err != nil {
			return err
		}
		for i, tun := range []*os.File{fromTUN, toTUN} {
			underlay, err := datagramLink(nodes[i], lab.NodeAddr4(i+1).Addr(), lab.NodeAddr4(2-i).Addr())
			if err != nil {
				return err
			}
			defer underlay.Close()
			near, far := toFrom, toTo
			if i == 1 {
				near, far = toTo, toFrom
			}
			if err := p.daemon(nodes[i], netstackRole, []netstackLink{near, far}, tun, underlay); err != nil {
				return err
			}
		}
		return nil
	})
}

// plainTUN makes a pod's device without offloads, the default route through it, and returns its descriptor.
func plainTUN(n *lab.Namespace, a netip.Addr) (*os.File, error) {
	fd := -1
	err := n.Do(func() (err error) {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
			return fmt.Errorf("open /dev/net/tun: %w", err)
		}
		request, err := unix.NewIfreq("eth0")
		if err != nil {
			return err
		}
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	})
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "tun")
	nl, err := n.Netlink()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	device, err := nl.LinkByName("eth0")
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	err = errors.Join(
		nl.LinkSetMTU(device, podMTU),
		nl.LinkSetTxQLen(device, 2000), // of small packets, which all TCP's window may become
		n.AddAddr("eth0", netip.PrefixFrom(a, 32)),
		n.SetUp("eth0"),
		n.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.Addr{}, "eth0"))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// datagramLink returns a UDP socket between two nodes.
func datagramLink(node *lab.Namespace, local, peer netip.Addr) (f *os.File, err error) {
	err = node.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f = os.NewFile(uintptr(fd), "underlay")
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20) // as middleway's
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20)
		if err := unix.Bind(fd, socketAddr(netip.AddrPortFrom(local, netstackPort))); err != nil {
			return errors.Join(err, f.Close())
		}
		return unix.Connect(fd, socketAddr(netip.AddrPortFrom(peer, netstackPort)))
	})
	return f, err
}

// netstackMain is the process of a netstack. It runs until it is killed.
func netstackMain(args []string) int {
	if err := runNetstack(args[0]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	select {}
}

func runNetstack(config string) error {
	var links []netstackLink
	if err := json.Unmarshal([]byte(config), &links); err != nil {
		return err
	}
	var endpoints []stack.LinkEndpoint
	for i := range links {
		ep, err := fdbased.New(&fdbased.Options{
			FDs: []int{3 + i}, MTU: podMTU, RXChecksumOffload: true, PacketDispatchMode: fdbased.RecvMMsg, ProcessorsPerChannel: 1,
		})
		if err != nil {
			return err
		}
		endpoints = append(endpoints, ep)
	}
	if _, err := forwarding(links, endpoints); err != nil {
		return err
	}
	fmt.Println(ready)
	return nil
}

// forwarding returns a stack that forwards between interfaces.
func forwarding(links []netstackLink, endpoints []stack.LinkEndpoint) (*stack.Stack, error) {
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})
	var routes []tcpip.Route
	for i, l := range links {
		nic := tcpip.NICID(i + 1)
		if err := s.CreateNIC(nic, endpoints[i]); err != nil {
			return nil, errors.New(err.String())
		}
		own := tcpip.ProtocolAddress{
			Protocol:          ipv4.ProtocolNumber,
			AddressWithPrefix: tcpip.AddrFromSlice(l.Address.AsSlice()).WithPrefix(),
		}
		if err := s.AddProtocolAddress(nic, own, stack.AddressProperties{}); err != nil {
			return nil, errors.New(err.String())
		}
		subnet := tcpip.AddressWithPrefix{
			Address: tcpip.AddrFromSlice(l.Behind.Addr().AsSlice()), PrefixLen: l.Behind.Bits(),
		}
		routes = append(routes, tcpip.Route{Destination: subnet.Subnet(), NIC: nic})
	}
	s.SetRouteTable(routes)
	if err := s.SetForwardingDefaultAndAllNICs(ipv4.ProtocolNumber, true); err != nil {
		return nil, errors.New(err.String())
	}
	return s, nil
}

// BenchmarkNetstackForward forwards one packet between two interfaces in memory: gVisor's share of path=netstack, without
// a system call. The 64 KiB packet passes only because the interfaces here have an MTU to match.
func BenchmarkNetstackForward(b *testing.B) {
	for _, size := range []int{1400, packet.MaxSize} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			from, to := podAddrs(SameNode)
			in, out := &memoryLink{}, &memoryLink{}
			s, err := forwarding([]netstackLink{
				{podAddr(1, 1), netip.PrefixFrom(from, 32)}, {podAddr(1, 254), netip.PrefixFrom(to, 32)},
			}, []stack.LinkEndpoint{in, out})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Destroy()
			data := tcpPacket(from, to, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			packets := 0
			for b.Loop() {
				pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(data)})
				in.dispatcher.DeliverNetworkPacket(ipv4.ProtocolNumber, pkt)
				pkt.DecRef()
				packets++
			}
			if out.written != packets {
				b.Fatalf("forwarded %d of %d packets", out.written, packets)
			}
		})
	}
}

// memoryLink is an interface whose other end counts.
type memoryLink struct {
	dispatcher stack.NetworkDispatcher
	written    int
}

func (l *memoryLink) WritePackets(list stack.PacketBufferList) (int, tcpip.Error) {
	l.written += list.Len()
	return list.Len(), nil
}
func (l *memoryLink) Attach(d stack.NetworkDispatcher) { l.dispatcher = d }
func (l *memoryLink) IsAttached() bool                 { return l.dispatcher != nil }
func (*memoryLink) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}
func (*memoryLink) MTU() uint32                             { return packet.MaxSize }
func (*memoryLink) SetMTU(uint32)                           {}
func (*memoryLink) MaxHeaderLength() uint16                 { return 0 }
func (*memoryLink) LinkAddress() tcpip.LinkAddress          { return "" }
func (*memoryLink) SetLinkAddress(tcpip.LinkAddress)        {}
func (*memoryLink) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }
func (*memoryLink) AddHeader(*stack.PacketBuffer)           {}
func (*memoryLink) ParseHeader(*stack.PacketBuffer) bool    { return true }
func (*memoryLink) Wait()                                   {}
func (*memoryLink) Close()                                  {}
func (*memoryLink) SetOnCloseAction(func())                 {}

// tcpPacket returns a TCP segment of size bytes, IP header included.
func tcpPacket(from, to netip.Addr, size int) []byte {
	b := make([]byte, size)
	ip := header.IPv4(b)
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(size), TTL: 64, Protocol: uint8(header.TCPProtocolNumber),
		SrcAddr: tcpip.AddrFromSlice(from.AsSlice()), DstAddr: tcpip.AddrFromSlice(to.AsSlice()),
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	header.TCP(b[header.IPv4MinimumSize:]).Encode(&header.TCPFields{
		SrcPort: 4000, DstPort: 80, DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagAck, WindowSize: 1000,
	})
	return b
}

func socketAddr(a netip.AddrPort) unix.Sockaddr {
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}
