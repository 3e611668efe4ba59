package lab

import (
	"errors"
	"net/netip"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/node"
	"github.com/middleway-net/middleway/node/parent"
)

func TestLoopback(t *testing.T) {
	for i, want := range map[int]string{
		0: "127.1.0.1", 253: "127.1.0.254", 254: "127.1.1.1", firstLoopback(1000): "127.4.232.1", firstLoopback(1001): "127.4.233.1",
		loopbacks - 1: "127.255.255.254",
	} {
		if got := loopback(i); got.String() != want {
			t.Errorf("%d: got %v, want %s", i, got, want)
		}
	}
	for _, uid := range []int{0, 65279, 65280, 100000, 1<<31 - 1} {
		if first := firstLoopback(uid); first < 0 || first >= loopbacks {
			t.Errorf("uid %d: %d is out of range", uid, first)
		}
	}
}

// serveSockets serves sockets of the namespace around this test.
func serveSockets(t *testing.T) *parent.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	served, err := ServeSockets(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := served.Close(); err != nil {
			t.Error(err)
		}
		eventually(t, "the other side has ended", func() bool { _, err := parent.Dial(path); return errors.Is(err, unix.ECONNREFUSED) })
	})
	c, err := parent.Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What others have reserved, or use, is left alone.
func TestReserveLoopbacks(t *testing.T) {
	c := serveSockets(t)
	const port = 18472 // not the one of clusters that other tests run
	reserved := func(n int) *Loopbacks {
		t.Helper()
		l, err := ReserveLoopbacks(c, n, port)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	first := reserved(3)
	used, err := bound(c, unix.SOCK_DGRAM, netip.AddrPortFrom(first.Addrs[2].Next(), port))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(used)
	second := reserved(3)
	seen := map[netip.Addr]bool{first.Addrs[2].Next(): true}
	for _, a := range append(first.Addrs, second.Addrs...) {
		if seen[a] || !a.IsLoopback() {
			t.Errorf("%v is no loopback address that is free: %v and %v", a, first.Addrs, second.Addrs)
		}
		seen[a] = true
	}
	want := first.Addrs[0]
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if again := reserved(1); again.Addrs[0] != want {
		t.Errorf("got %v, want %v, which was given up", again.Addrs[0], want)
	}
}

// A socket that comes from outside is not of the namespace that asks.
func TestServeSockets(t *testing.T) {
	c := serveSockets(t)
	here, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(here)
	there, err := c.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(there)
	cookies := map[uint64]bool{}
	for _, fd := range []int{here, there} {
		cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		if errors.Is(err, unix.ENOPROTOOPT) {
			t.Skip("Linux 5.14 tells a socket's namespace:", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		cookies[cookie] = true
	}
	if len(cookies) != 2 {
		t.Error("both sockets are of one namespace")
	}
}

func TestOtherThan(t *testing.T) {
	for n, want := range map[int][2]int{1: {2, 3}, 2: {1, 3}, 3: {1, 2}} {
		if got := [2]int{otherThan(n, 0), otherThan(n, 1)}; got != want {
			t.Errorf("peers of node %d: got %v, want %v", n, got, want)
		}
	}
}

func TestOutsideRefuses(t *testing.T) {
	for _, c := range []ClusterConfig{{Outside: true, IPv6Underlay: true}, {Outside: true, Kernel: []*Namespace{newNamespace(t, "kernel")}}, {Outside: true, External: true}} {
		if cl, err := NewCluster(c); err == nil {
			cl.Close()
			t.Errorf("%+v: no error", c)
		}
	}
}

// Sockets outside make no difference to what pods see.
func TestClusterOutside(t *testing.T) {
	testCluster(t, ClusterConfig{Outside: true, Change: func(_ int, c *node.Config) { c.MTU = 1400 }})
}
