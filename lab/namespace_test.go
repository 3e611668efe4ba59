package lab

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestNamespace(t *testing.T) {
	n := newNamespace(t, "node")
	for _, addr := range []string{"127.0.0.1", "::1"} {
		mustPing(t, n, netip.MustParseAddr(addr), 56)
	}
	if err := n.AddAddr("lo", netip.MustParsePrefix("fd00:254::11/64")); err != nil {
		t.Fatal(err)
	}
	if err := n.AddRoute(netip.MustParsePrefix("10.244.0.0/16"), netip.Addr{}, "lo"); err != nil {
		t.Fatal(err)
	}
	nl, link, err := n.link("lo")
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := nl.AddrList(link, unix.AF_INET6)
	if err != nil || !slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.IP.String() == "fd00:254::11" && a.Flags&unix.IFA_F_TENTATIVE == 0 }) {
		t.Errorf("addresses: got %v, %v", addrs, err)
	}
	if err := n.AddAddr("eth7", netip.MustParsePrefix("10.0.0.1/8")); err == nil || err.Error() != "namespace node: find device eth7: Link not found" {
		t.Errorf("missing device: got %v", err)
	}
	if _, err := os.Stat(n.Path()); err != nil {
		t.Error(err)
	}
}

func TestSysctl(t *testing.T) {
	n, other := newNamespace(t, "node"), newNamespace(t, "other")
	read := func(n *Namespace) (value string) {
		n.Do(func() error {
			b, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
			value = strings.TrimSpace(string(b))
			return err
		})
		return value
	}
	if err := n.Sysctl("net.ipv4.ip_forward", "1"); err != nil {
		t.Fatal(err)
	}
	if err := other.Sysctl("net/ipv4/ip_forward", "0"); err != nil {
		t.Fatal(err)
	}
	if got := read(n) + read(other); got != "10" {
		t.Errorf("got %s, want 10", got)
	}
	if err := n.Sysctl("net.ipv4.no_such_thing", "1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want %v", err, fs.ErrNotExist)
	}
}

func TestNamespaceSockets(t *testing.T) {
	n := newNamespace(t, "node")
	sockets := Sockets{Namespace: n, Congestion: "reno", Local: netip.MustParseAddrPort("127.0.0.9:0")}
	l, err := sockets.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := sockets.Dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if got := accepted.RemoteAddr().(*net.TCPAddr).IP.String(); got != "127.0.0.9" {
		t.Errorf("local address: got %s, want 127.0.0.9", got)
	}
	for _, conn := range []net.Conn{c, accepted} {
		if got := congestion(t, conn); got != "reno" {
			t.Errorf("congestion control: got %q, want reno", got)
		}
	}
	if c, err := net.DialTimeout("tcp", l.Addr().String(), time.Second); err == nil {
		c.Close()
		t.Error("the listener is reachable from outside")
	}
	if _, err := n.Dial(context.Background(), "tcp", "localhost:80"); err == nil || !strings.Contains(err.Error(), "namespace node: dial tcp localhost:80: ParseAddr") {
		t.Errorf("name instead of address: got %v", err)
	}

	server, err := n.ListenPacket("udp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client, err := n.Dial(t.Context(), "udp", server.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	client.Write([]byte("hello"))
	buf := make([]byte, 100)
	server.SetReadDeadline(time.Now().Add(5 * time.Second))
	if got, _, err := server.ReadFrom(buf); err != nil || string(buf[:got]) != "hello" {
		t.Errorf("got %q, %v", buf[:got], err)
	}
}

func congestion(t *testing.T, c net.Conn) (name string) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		name, err = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimRight(name, "\x00")
}

func TestPingErrors(t *testing.T) {
	nodes := newNamespaces(t, 2)
	newUnderlay(t, UnderlayConfig{}, nodes...)
	nodes[1].Sysctl("net.ipv4.ip_forward", "1")
	nodes[1].Sysctl("net.ipv6.conf.all.forwarding", "1")
	nodes[0].AddRoute(netip.MustParsePrefix("203.0.113.0/24"), NodeAddr4(2).Addr(), "eth0")
	nodes[0].AddRoute(netip.MustParsePrefix("2001:db8::/64"), NodeAddr6(2).Addr(), "eth0")
	for dst, want := range map[string]string{
		"203.0.113.1": "ping 203.0.113.1: network unreachable, says 192.168.254.12",
		"2001:db8::1": "ping 2001:db8::1: no route, says fd00:254::12",
		"10.9.9.9":    "network is unreachable",
	} {
		start := time.Now()
		_, err := nodes[0].Ping(t.Context(), netip.MustParseAddr(dst), 56)
		if err == nil || !strings.Contains(err.Error(), want) || time.Since(start) > 2*time.Second {
			t.Errorf("after %s: got %v, want %q", time.Since(start), err, want)
		}
	}
	mustNotPing(t, nodes[0], netip.MustParseAddr("192.168.254.200"))
}

func TestPlan(t *testing.T) {
	got := []string{NodeAddr4(1).String(), NodeAddr6(1).String(), NodeAddr6(95).String(), PodCIDR4(3).String(),
		PodCIDR6(3).String(), host(PodCIDR6(3), 258).String(), NodeMAC(1).String()}
	want := []string{"192.168.254.11/24", "fd00:254::11/64", "fd00:254::105/64", "10.244.3.0/24",
		"fd00:10:244:3::/64", "fd00:10:244:3::102/64", "02:6d:77:00:00:01"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
