package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// markingLink marks every tenth packet of senders that know of ECN, as a congested router does.
var markingLink = lab.Faults{Seed: 7, Mark: 0.1}

// TestTCPECN: TCP negotiates ECN through the tunnel, a router between the nodes marks datagrams, and the marks reach the
// receiving pod. Nothing is lost by it.
func TestTCPECN(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}, Underlay: lab.UnderlayConfig{Faults: markingLink}})
	a, b := cl.Nodes[0].Pods[0], cl.Nodes[1].Pods[0]
	enableECN(t, a.Namespace, b.Namespace)
	for _, to := range []netip.Addr{b.Addr4, b.Addr6} {
		ecnTransfer(t, a.Namespace, b.Namespace, to)
	}
	for _, n := range cl.Nodes {
		if d := dropsOf(t, n); d.sum() != d["scope"] {
			t.Errorf("drops of %s: %v", n.Name(), d)
		}
	}
}

// TestKernelECN: the same with a kernel's VXLAN at the other end, both ways.
func TestKernelECN(t *testing.T) {
	k := newKernelPeers(t, lab.ClusterConfig{Underlay: lab.UnderlayConfig{Faults: markingLink}})
	near, far := k.pod.Namespace, k.far[0].Namespace
	enableECN(t, near, far)
	for _, to := range []netip.Addr{host(lab.PodCIDR4(2), 2), host(lab.PodCIDR6(2), 2)} {
		ecnTransfer(t, near, far, to)
	}
	for _, to := range []netip.Addr{k.pod.Addr4, k.pod.Addr6} {
		ecnTransfer(t, far, near, to)
	}
	if d := dropsOf(t, k.node); d.sum() != d["scope"] {
		t.Errorf("drops of the node: %v", d)
	}
}

func enableECN(t *testing.T, pods ...*lab.Namespace) {
	t.Helper()
	for _, p := range pods {
		if err := p.Sysctl("net.ipv4.tcp_ecn", "1"); err != nil {
			t.Fatal(err)
		}
	}
}

func ecnTransfer(t *testing.T, from, to *lab.Namespace, addr netip.Addr) {
	t.Helper()
	const size = 8 << 20
	before := receivedMarks(t, to, addr)
	t.Logf("to %v: %v", addr, transfer{from: from, to: to, addr: addr, size: size, timeout: 2 * time.Minute}.run(t))
	if more := receivedMarks(t, to, addr) - before; more == 0 {
		t.Errorf("to %v: no mark of congestion arrived", addr)
	} else {
		t.Logf("to %v: %d packets with a mark", addr, more)
	}
}

// receivedMarks returns how many packets with a mark of congestion a namespace has received (InCEPkts).
func receivedMarks(t *testing.T, n *lab.Namespace, family netip.Addr) (marks int) {
	t.Helper()
	err := n.Do(func() error {
		if family.Is6() {
			b, err := os.ReadFile("/proc/thread-self/net/snmp6")
			marks = counter(strings.Fields(string(b)), "Ip6InCEPkts", 1)
			return err
		}
		b, err := os.ReadFile("/proc/thread-self/net/netstat")
		lines := strings.Split(string(b), "\n")
		for i := 0; i+1 < len(lines); i += 2 {
			if names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1]); strings.HasPrefix(lines[i], "IpExt:") {
				marks = counter(append(names, values...), "InCEPkts", len(names))
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return marks
}

// counter returns the number that stands a distance behind a name.
func counter(words []string, name string, distance int) int {
	for i, w := range words {
		if w == name {
			n, _ := strconv.Atoi(words[i+distance])
			return n
		}
	}
	return 0
}

// TestECNMatrix sends datagrams of every inner and outer field to a pod, as a peer would, and looks at what the pod sees
// and at what the node sends.
func TestECNMatrix(t *testing.T) {
	s := newStage(t)
	defer s.close(t)
	w := newWire(t, s.peers[1], lab.NodeAddr4(4).Addr(), s.node)
	raw, err := w.conn.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []flow{{host(lab.PodCIDR4(4), 2), s.target.Addr4}, {host(lab.PodCIDR6(4), 2), s.target.Addr6}} {
		for outer := range packet.CE + 1 {
			var failed error
			raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TOS, int(outer)) })
			if failed != nil {
				t.Fatal(failed)
			}
			for inner := range packet.CE + 1 {
				t.Run(fmt.Sprintf("%v/inner=%d/outer=%d", f.dst, inner, outer), func(t *testing.T) { s.checkMark(t, w, f, inner, outer) })
			}
		}
	}
}

// checkMark sends one datagram; of all fields the pod sees only TTL and ECN changed, and of no other packet.
func (s *stage) checkMark(t *testing.T, w *wire, f flow, inner, outer packet.ECN) {
	b := with(f.udp(20), put(1, int(inner)))
	if f.src.Is6() {
		b = with(f.udp(20), put(1, int(inner)<<4))
	}
	want := append([]byte(nil), b...)
	kept := packet.Decapsulate(want, outer)
	before := dropsOf(t, s.node)
	if err := w.send(w.wrap(b)); err != nil {
		t.Fatal(err)
	}
	if !kept {
		eventually(t, "the drop is counted", func() bool { return dropsOf(t, s.node).minus(before)["ecn"] == 1 })
		return
	}
	var got [][]byte
	eventually(t, "the packet arrives", func() bool { got = append(got, s.seen.received(t)...); return len(got) > 0 })
	if len(got) != 1 || packet.ECNOf(got[0]) != packet.ECNOf(want) {
		t.Errorf("got %x, want one packet with ECN field %d", got, packet.ECNOf(want))
	}
}

// TestECNOutside: what leaves the node has the pod's field outside, and no other bit of its traffic class.
func TestECNOutside(t *testing.T) {
	peer := newNamespace(t, "node-2")
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{1}, Kernel: []*lab.Namespace{peer}})
	pod := cl.Nodes[0].Pods[0]
	at := netip.AddrPortFrom(lab.NodeAddr4(2).Addr(), vxlan.DefaultPort)
	l, err := peer.ListenPacket("udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raw, err := l.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTOS, 1) })
	if err != nil {
		t.Fatal(err)
	}
	for _, class := range []int{0, 1, 2, 3, 0xb8, 0xba} {
		c, err := pod.Dial(t.Context(), "udp", netip.AddrPortFrom(host(lab.PodCIDR4(2), 2), 9).String())
		if err != nil {
			t.Fatal(err)
		}
		control, err := c.(*net.UDPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		control.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TOS, class) })
		if err == nil {
			_, err = c.Write([]byte("class"))
		}
		c.Close()
		if err != nil {
			t.Fatal(err)
		}
		data, oob := make([]byte, 2000), make([]byte, 100)
		l.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, oobn, _, _, err := l.(*net.UDPConn).ReadMsgUDP(data, oob)
		if err != nil {
			t.Fatal(err)
		}
		inner := int(data[:n][vxlan.Overhead+1])
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil || len(messages) != 1 || inner != class || int(messages[0].Data[0]) != class&3 {
			t.Errorf("class %#x: inner %#x, outer %v (%v), want outer %d", class, inner, messages, err, class&3)
		}
	}
}
