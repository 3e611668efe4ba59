package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
	"github.com/middleway-net/middleway/stack/packet"
)

// TestLargeDatagrams: questions and answers of up to 60,000 bytes, which travel in fragments, pass a Service's address in both directions,
// also where the fragments overtake each other.
func TestLargeDatagrams(t *testing.T) {
	for name, faults := range map[string]lab.Faults{"in order": {}, "reordered": {Seed: 5, Reorder: 0.3}} {
		t.Run(name, func(t *testing.T) { testLargeDatagrams(t, faults) })
	}
}

func testLargeDatagrams(t *testing.T, faults lab.Faults) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{2, 1}, Underlay: lab.UnderlayConfig{Faults: faults}})
	a, beside, far := c.pod(1, 1), c.pod(1, 2), c.pod(2, 1)
	for number, p := range []*lab.Pod{a, beside, far} {
		servePod(t, p)
		c.put(service(p.Name(), number+1), onPod(min(number, 1)+number/2, p))
	}
	for _, f := range families {
		for _, from := range []*lab.Namespace{a.Namespace, c.Nodes[0].Namespace} {
			for number := 1; number <= 3; number++ {
				for _, size := range []int{100, 1422, 1423, 3000, 8000, 60_000} {
					if err := askLarge(from, at(f, number), size); err != nil {
						t.Errorf("%s, from %s to Service %d, %d bytes: %v", f.name, from.Name(), number, size, err)
					}
				}
			}
		}
	}
}

// askLarge asks with size bytes, and expects as many to come back, the same but for what the backend says in front.
func askLarge(from client, to netip.AddrPort, size int) error {
	c, err := dial(from, "udp", to, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	question, answer := make([]byte, size), make([]byte, 1<<16)
	for i := range question {
		question[i] = byte(i * 7 / 3)
	}
	for range 3 {
		if _, err = c.Write(question); err != nil {
			return err
		}
		_ = c.SetReadDeadline(time.Now().Add(patience / 4))
		var n int
		if n, err = c.Read(answer); err != nil {
			continue // lost by a busy machine
		}
		at := slices.Index(answer[:n], '\n') + 1
		if n != size || at == 0 || !slices.Equal(answer[at:n], question[at:]) {
			return fmt.Errorf("%d other bytes came back: %.40q", n, answer[:n])
		}
		return nil
	}
	return err
}

// TestLargeTransfer: 256 MiB over one connection through a Service to another node, each way.
func TestLargeTransfer(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}})
	c.put(service("far", 1), onPod(2, c.pod(2, 1)))
	for _, f := range families {
		s := startStream(t, c.pod(1, 1).Namespace, at(f, 1), c.pod(2, 1).Namespace, f.pod(c.pod(2, 1)), fewer(int64(256<<20)))
		t.Logf("%s: %s", f.name, s.wait(t))
	}
}

// TestTraceroute: datagrams to a Service whose time to live ends on the way are told of by each node, with the Service's address in what
// is quoted, and at last the backend answers.
func TestTraceroute(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{2, 1}})
	servePod(t, c.pod(1, 2))
	servePod(t, c.pod(2, 1))
	c.put(service("beside", 1), onPod(1, c.pod(1, 2)))
	c.put(service("far", 2), onPod(2, c.pod(2, 1)))
	for _, f := range families {
		for _, tt := range []struct {
			name string
			from *lab.Namespace
			to   netip.AddrPort
			want []netip.Addr
		}{
			{"same node", c.pod(1, 1).Namespace, at(f, 1), []netip.Addr{f.gateway(1), f.vip(1)}},
			{"other node", c.pod(1, 1).Namespace, at(f, 2), []netip.Addr{f.gateway(1), f.gateway(2), f.vip(2)}},
			{"from the host", c.Nodes[0].Namespace, at(f, 2), []netip.Addr{f.gateway(2), f.vip(2)}},
		} {
			t.Run(f.name+"/"+tt.name, func(t *testing.T) {
				if got := hopsTo(t, tt.from, tt.to); !slices.Equal(got, tt.want) {
					t.Errorf("got %v, want %v", got, tt.want)
				}
			})
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		got, err := c.pod(1, 1).Trace(ctx, "icmp", f.vip(2)) // whose pings the node answers
		cancel()
		if err != nil || !slices.Equal(got, []netip.Addr{f.vip(2)}) {
			t.Errorf("%s: pings: %v, %v", f.name, got, err)
		}
	}
}

// hopsTo returns who tells of datagrams with a time to live of 1, 2, …, until the backend answers.
func hopsTo(t *testing.T, from *lab.Namespace, to netip.AddrPort) (hops []netip.Addr) {
	t.Helper()
	network, any := "ip4:icmp", "0.0.0.0"
	if to.Addr().Is6() {
		network, any = "ip6:ipv6-icmp", "::"
	}
	var raw *icmp.PacketConn
	err := from.Do(func() (err error) {
		raw, err = icmp.ListenPacket(network, any)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	for ttl := 1; ttl < 8; ttl++ {
		eventually(t, fmt.Sprintf("an answer to a time to live of %d", ttl), func() bool {
			hop := hopAt(t, from, raw, to, ttl)
			if hop.IsValid() {
				hops = append(hops, hop)
			}
			return hop.IsValid()
		})
		if hops[len(hops)-1] == to.Addr() {
			return hops
		}
	}
	return hops
}

// hopAt sends one datagram and returns who answers or tells of it; not valid if nobody does.
func hopAt(t *testing.T, from *lab.Namespace, raw *icmp.PacketConn, to netip.AddrPort, ttl int) netip.Addr {
	t.Helper()
	c, err := dial(from, "udp", to, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if to.Addr().Is4() {
		err = ipv4.NewConn(c).SetTTL(ttl)
	} else {
		err = ipv6.NewConn(c).SetHopLimit(ttl)
	}
	if err == nil {
		_, err = c.Write([]byte("?"))
	}
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan bool, 1)
	go func() {
		_, err := hear(c, 300*time.Millisecond)
		answered <- err == nil
		_ = raw.SetReadDeadline(time.Now())
	}()
	_ = raw.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	local := addrPortOf(c.LocalAddr())
	buf := make([]byte, 1500)
	for {
		n, hop, err := raw.ReadFrom(buf)
		if err != nil {
			break
		}
		if quoted, ok := exceeded(buf[:n], to.Addr().Is4()); ok && quoted == packet.NewFlow(packet.UDP, local, to) {
			a, _ := netip.AddrFromSlice(hop.(*net.IPAddr).IP)
			return a.Unmap()
		}
	}
	if <-answered {
		return to.Addr()
	}
	return netip.Addr{}
}

// exceeded returns the flow of the packet that a time-exceeded message quotes.
func exceeded(b []byte, is4 bool) (packet.Flow, bool) {
	proto := 58
	if is4 {
		proto = 1
	}
	m, err := icmp.ParseMessage(proto, b)
	if err != nil {
		return packet.Flow{}, false
	}
	body, ok := m.Body.(*icmp.TimeExceeded)
	if !ok {
		return packet.Flow{}, false
	}
	q := body.Data
	if is4 && len(q) >= 28 {
		return flowOf(q[12:16], q[16:20], q[int(q[0]&15)*4:]), true
	}
	if !is4 && len(q) >= 48 {
		return flowOf(q[8:24], q[24:40], q[40:]), true
	}
	return packet.Flow{}, false
}

func flowOf(src, dst, ports []byte) packet.Flow {
	s, _ := netip.AddrFromSlice(src)
	d, _ := netip.AddrFromSlice(dst)
	return packet.NewFlow(packet.UDP, netip.AddrPortFrom(s, uint16(ports[0])<<8|uint16(ports[1])), netip.AddrPortFrom(d, uint16(ports[2])<<8|uint16(ports[3])))
}

func addrPortOf(a net.Addr) netip.AddrPort {
	ap := netip.MustParseAddrPort(a.String())
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// TestPathMTU: the backend's node takes less than the client's. The client learns it about the Service's address, over UDP and TCP, and
// large amounts pass both ways.
func TestPathMTU(t *testing.T) {
	const small = 1300
	c := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}, Change: func(number int, n *node.Config) {
		if number == 2 {
			n.MTU = small
		}
	}})
	near, far := c.pod(1, 1), c.pod(2, 1)
	widen(t, far.Namespace, 1450) // it announces segments that do not get through
	c.put(service("far", 1), onPod(2, far))
	c.put(service("near", 2), onPod(1, near))
	for _, f := range families {
		s := startStream(t, near.Namespace, at(f, 1), far.Namespace, f.pod(far), 8<<20)
		s.wait(t)
		if s.mtu != small {
			t.Errorf("%s: the connection's path MTU is %d, want %d", f.name, s.mtu, small)
		}
		startStream(t, far.Namespace, at(f, 2), near.Namespace, f.pod(near), 8<<20).wait(t)
		mustLearnMTU(t, near.Namespace, netip.AddrPortFrom(f.vip(1), servicePort), small)
	}
}

// mustLearnMTU sends datagrams that may not be cut until the sender's kernel knows the path's MTU, which has to be want.
func mustLearnMTU(t *testing.T, from *lab.Namespace, to netip.AddrPort, want int) {
	t.Helper()
	c, err := dial(from, "udp", to, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	discover := func(fd, level, option int) error { return unix.SetsockoptInt(fd, level, option, unix.IP_PMTUDISC_DO) }
	if err := onSocket(c, func(fd int) error {
		if to.Addr().Is4() {
			return discover(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER)
		}
		return discover(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER)
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, fmt.Sprintf("a datagram to %v is refused as too big", to), func() bool {
		_, err := c.Write(make([]byte, 1390))
		return errors.Is(err, unix.EMSGSIZE)
	})
	if got, err := pathMTU(c); err != nil || got != want {
		t.Errorf("path MTU to %v: got %d (%v), want %d", to, got, err, want)
	}
}

// pathMTU returns what the kernel knows of a connected socket's way.
func pathMTU(c net.Conn) (mtu int, err error) {
	err = onSocket(c, func(fd int) (err error) {
		if addrPortOf(c.RemoteAddr()).Addr().Is4() {
			mtu, err = unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU)
		} else {
			mtu, err = unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU)
		}
		return err
	})
	return mtu, err
}

func onSocket(c net.Conn, f func(fd int) error) error {
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { inner = f(int(fd)) })
	return errors.Join(err, inner)
}

// widen changes the MTU of a pod's device behind the node's back, as a pod may.
func widen(t *testing.T, ns *lab.Namespace, mtu int) {
	t.Helper()
	nl, err := ns.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	link, err := nl.LinkByName("eth0")
	if err == nil {
		err = nl.LinkSetMTU(link, mtu)
	}
	if err != nil {
		t.Fatal(err)
	}
}
