package proxy

import (
	"encoding/hex"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// gre is a protocol that no socket of the node carries.
const gre packet.Proto = 47

// TestGuardRails: pods reach nothing outside that only their node may, and no address that is the cluster's but nobody's. Each is
// dropped and counted, and no socket of the node sends any of it.
func TestGuardRails(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}})
	pod := c.pod(1, 1)
	device := openDevice(t, pod.Namespace, "eth0")
	seen := newWitness(t, c)
	addr := netip.MustParseAddr
	const tunnel, web = vxlan.DefaultPort, 80
	for _, f := range families {
		for _, tt := range []struct {
			name   string
			proto  packet.Proto
			to     netip.Addr
			port   uint16
			reason packet.DropReason
			node   int // that drops it
		}{
			{"a Service's address that none has", packet.TCP, f.vip(99), web, packet.DropNoService, 1},
			{"a Service's address that none has", packet.UDP, f.vip(99), web, packet.DropNoService, 1},
			{"a pod's address that none has, here", packet.TCP, host(f.podCIDR(1), 99), web, packet.DropNoPod, 1},
			{"the tunnel of another node", packet.UDP, f.of(v4.node(2), netip.Addr{}), tunnel, packet.DropGuarded, 1},
			{"the tunnel of another node, by another address of it", packet.UDP, f.of(netip.Addr{}, v6.node(2)), tunnel, packet.DropGuarded, 1},
			{"the tunnel of another node, by its device's address", packet.UDP, host(f.podCIDR(2), 0), tunnel, packet.DropGuarded, 1},
			{"the tunnel of another node, by its pods' gateway", packet.UDP, f.gateway(2), tunnel, packet.DropGuarded, 1},
			{"the tunnel of its own node", packet.UDP, f.of(v4.node(1), netip.Addr{}), tunnel, packet.DropGuarded, 1},
			{"the tunnel's port anywhere", packet.UDP, f.outside(1), tunnel, packet.DropGuarded, 1},
			{"loopback", packet.TCP, f.loopback(), web, packet.DropScope, 1},
			{"loopback", packet.UDP, f.loopback(), web, packet.DropScope, 1},
			{"further loopback", packet.TCP, f.of(addr("127.0.0.53"), netip.Addr{}), web, packet.DropScope, 1},
			{"mapped loopback", packet.TCP, f.of(netip.Addr{}, addr("::ffff:127.0.0.1")), web, packet.DropMalformed, 1},
			{"no address", packet.TCP, f.of(addr("0.0.0.0"), addr("::")), web, packet.DropScope, 1},
			{"no address", packet.UDP, f.of(addr("0.0.0.0"), addr("::")), web, packet.DropScope, 1},
			{"a group", packet.UDP, f.of(addr("224.0.0.251"), addr("ff02::fb")), 5353, packet.DropScope, 1},
			{"a group beyond the link", packet.UDP, f.of(addr("239.1.2.3"), addr("ff05::1:3")), web, packet.DropScope, 1},
			{"the link", packet.TCP, f.of(addr("169.254.169.254"), addr("fe80::1")), web, packet.DropScope, 1},
			{"everybody", packet.UDP, f.of(addr("255.255.255.255"), addr("ff02::1")), web, packet.DropScope, 1},
			{"a mapped address", packet.TCP, f.of(netip.Addr{}, addr("::ffff:203.0.113.1")), web, packet.DropMalformed, 1},
			{"a reserved address", packet.TCP, f.of(addr("240.0.0.1"), netip.Addr{}), web, packet.DropScope, 1},
			{"SCTP", packet.SCTP, f.outside(1), web, packet.DropProtocol, 1},
			{"GRE", gre, f.outside(1), 0, packet.DropProtocol, 1},
		} {
			if !tt.to.IsValid() {
				continue // of the other family
			}
			t.Run(f.name+"/"+tt.proto.String()+" to "+tt.name, func(t *testing.T) {
				n := c.Nodes[tt.node-1]
				before := c.drops(n, tt.reason)
				p := packettest.Packet{Src: f.pod(pod), Dst: tt.to, SrcPort: 40000, DstPort: tt.port, Proto: tt.proto, TTL: 64, Flags: packet.SYN}
				if tt.to.Is4In6() {
					p.Dst = netip.IPv6Unspecified()
				}
				frame := p.Frame()
				if tt.to.Is4In6() {
					copy(frame[packet.VnetLen+24:], tt.to.AsSlice()) // the destination
				}
				if _, err := unix.Write(device, frame[packet.VnetLen:]); err != nil {
					t.Fatal(err)
				}
				eventually(t, "it is dropped as "+tt.reason.String(), func() bool { return c.drops(n, tt.reason) > before })
			})
		}
	}
	time.Sleep(200 * time.Millisecond)
	seen.mustBeNothing(t)
}

// witness sees all that comes to the host outside and to the other node by the underlay.
type witness struct{ fds []int }

func newWitness(t *testing.T, c *cluster) *witness {
	w := &witness{}
	for _, ns := range []*lab.Namespace{c.External.Namespace, c.Nodes[1].Namespace} {
		w.fds = append(w.fds, openDevice(t, ns, "eth0"))
	}
	return w
}

func (w *witness) mustBeNothing(t *testing.T) {
	t.Helper()
	buf := make([]byte, 1<<16)
	for _, fd := range w.fds {
		for {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				break
			}
			var h packet.Parsed
			if packet.Parse(buf[:n], &h) == packet.Kept && h.Flow.DstPort() != vxlan.DefaultPort && (h.Proto == packet.TCP || h.Proto == packet.UDP) {
				t.Errorf("it left: %v\n%s", &h.Flow, hex.Dump(buf[:n]))
			}
		}
	}
}

// openDevice opens a socket that sends whole packets through a device, and receives all that come out of it.
func openDevice(t *testing.T, ns *lab.Namespace, name string) (fd int) {
	t.Helper()
	nl, err := ns.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	link, err := nl.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8
	if err := ns.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all & 0xffff, Ifindex: link.Attrs().Index})
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}
