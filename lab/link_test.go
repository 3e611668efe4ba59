package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/tun"
)

func newUnderlay(t testing.TB, cfg UnderlayConfig, nodes ...*Namespace) *Underlay {
	t.Helper()
	u, err := NewUnderlay(cfg, nodes...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Close(); err != nil && !errors.Is(err, os.ErrClosed) { // a test may have closed it
			t.Error(err)
		}
	})
	return u
}

// All ways of joining nodes join all nodes, at full size and in both families.
func TestUnderlayPing(t *testing.T) {
	for _, tt := range []struct {
		name  string
		nodes int
		cfg   UnderlayConfig
	}{
		{"veth", 2, UnderlayConfig{}},
		{"veth jumbo", 2, UnderlayConfig{MTU: 9000}},
		{"bridge", 4, UnderlayConfig{}},
		{"link", 2, UnderlayConfig{Userspace: true}},
		{"link jumbo", 2, UnderlayConfig{Userspace: true, MTU: 9000}},
		{"link of four", 4, UnderlayConfig{Userspace: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			nodes := newNamespaces(t, tt.nodes)
			u := newUnderlay(t, tt.cfg, nodes...)
			if (u.Link() != nil) != tt.cfg.Userspace && kernelJoins(t, tt.nodes) {
				t.Errorf("link: got %v", u.Link())
			}
			mtu := tt.cfg.MTU
			if mtu == 0 {
				mtu = defaultMTU
			}
			for i, from := range nodes {
				for j := range nodes {
					if i != j {
						mustPing(t, from, NodeAddr4(j+1).Addr(), mtu-28)
						mustPing(t, from, NodeAddr6(j+1).Addr(), mtu-48)
					}
				}
			}
			if mac := deviceMAC(t, nodes[1], "eth0"); mac != NodeMAC(2).String() {
				t.Errorf("MAC of node 2: got %s, want %s", mac, NodeMAC(2))
			}
			transfer(t, nodes[0], nodes[1], NodeAddr6(2).Addr(), 4<<20)
			if err := u.Close(); err != nil {
				t.Error(err)
			}
			eventually(t, "devices gone", func() bool { _, _, err := nodes[1].link("eth0"); return err != nil })
		})
	}
}

func deviceMAC(t *testing.T, n *Namespace, device string) string {
	t.Helper()
	_, link, err := n.link(device)
	if err != nil {
		t.Fatal(err)
	}
	return link.Attrs().HardwareAddr.String()
}

// kernelJoins reports whether this kernel has what it takes to join nodes.
func kernelJoins(t *testing.T, nodes int) bool {
	t.Helper()
	u, err := Bridge(defaultMTU, newNamespaces(t, nodes)...)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Close(); err != nil {
		t.Error(err)
	}
	return true
}

// A kernel without veth: the lab joins the nodes by itself, and what the kernel had made until then is gone.
func TestUnderlayWithoutVeth(t *testing.T) {
	asked, real := 0, addVeth
	addVeth = func(nl *netlink.Handle, pair *netlink.Veth) error {
		asked++
		return nl.LinkAdd(&netlink.GenericLink{LinkAttrs: pair.LinkAttrs, LinkType: "none"}) // a kind that no kernel has
	}
	t.Cleanup(func() { addVeth = real })
	for _, n := range []int{2, 3} {
		nodes := newNamespaces(t, n)
		if _, err := Bridge(defaultMTU, nodes...); !errors.Is(err, unix.EOPNOTSUPP) {
			t.Errorf("%d nodes: got %v, want %v", n, err, unix.EOPNOTSUPP)
		}
		u := newUnderlay(t, UnderlayConfig{}, nodes...)
		if u.Link() == nil {
			t.Errorf("%d nodes: the kernel joins them", n)
		}
		mustPing(t, nodes[0], NodeAddr4(n).Addr(), defaultMTU-28)
	}
	want := 4
	if err := addBridge(newNamespaces(t, 1)[0], "br0", defaultMTU); errors.Is(err, unix.EOPNOTSUPP) {
		want = 2 // three nodes want a bridge first
	}
	if asked != want {
		t.Errorf("the kernel was asked for veth %d times, want %d", asked, want)
	}
}

// A device that is in the way is an error, and stays.
func TestUnderlayInTheWay(t *testing.T) {
	for _, userspace := range []bool{false, true} {
		nodes := newNamespaces(t, 2)
		if err := nodes[1].Do(func() error {
			d, err := tun.Open(tun.Config{Name: "eth0", MTU: 1500})
			if err == nil {
				t.Cleanup(func() { d.Close() })
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := NewUnderlay(UnderlayConfig{Userspace: userspace}, nodes...); err == nil {
			t.Error("no error")
		}
		if _, _, err := nodes[1].link("eth0"); err != nil {
			t.Error(err)
		}
		if _, _, err := nodes[0].link("eth0"); err == nil {
			t.Error("half an underlay was left behind")
		}
	}
}

// What node 2 receives of node 1's datagrams is what the counters say.
func TestLinkCounts(t *testing.T) {
	const count = 2000
	for _, tt := range []struct {
		name   string
		faults Faults
		want   func(c Counters) uint64 // datagrams received
	}{
		{"loss", Faults{Loss: 0.2}, func(c Counters) uint64 { return count - c.Lost }},
		{"duplicate", Faults{Duplicate: 0.2}, func(c Counters) uint64 { return count + c.Duplicated }},
		{"reorder", Faults{Reorder: 0.2}, func(c Counters) uint64 { return count }},
		{"delay", Faults{Delay: 20 * time.Millisecond, Jitter: 10 * time.Millisecond}, func(c Counters) uint64 { return count }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // each waits for the end of what arrives
			nodes := newNamespaces(t, 2)
			link := newUnderlay(t, UnderlayConfig{Userspace: true}, nodes...).Link()
			mustPing(t, nodes[0], NodeAddr4(2).Addr(), 56) // neighbours are known
			before := link.Counters(0, 1)
			link.SetFaultsBetween(0, 1, tt.faults)
			got := flood(t, nodes[0], nodes[1], count)
			c := link.Counters(0, 1)
			if frames := c.Frames - before.Frames; frames < count || frames > count+5 { // IPv6 says hello
				t.Errorf("%d frames for %d datagrams", frames, count)
			}
			// A few of the lost or duplicated frames may not be ours.
			if want := tt.want(c); uint64(got.received)+5 < want || uint64(got.received) > want+5 {
				t.Errorf("received %d, want %d by %+v", got.received, want, c)
			}
			if reordering := tt.faults.Reorder > 0; reordering != (got.late > 0) {
				t.Errorf("%d datagrams came late", got.late)
			}
			t.Logf("%+v %+v", got, c)
		})
	}
}

// flooded is what a receiver saw of a flood.
type flooded struct {
	received int
	late     int // after one with a higher number
}

// flood sends numbered datagrams of 200 bytes, at most 100 ahead of the receiver, whose socket holds that many.
func flood(t *testing.T, from, to *Namespace, count int) flooded {
	t.Helper()
	server, err := to.ListenPacket("udp", "192.168.254.12:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client, err := from.Dial(t.Context(), "udp", server.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var next atomic.Int64 // behind the highest number received
	over := make(chan struct{})
	defer close(over)
	go func() {
		b := make([]byte, 200)
		for i := range count {
			for int64(i)-next.Load() > 100 {
				select {
				case <-over:
					return
				case <-time.After(time.Millisecond):
				}
			}
			binary.BigEndian.PutUint32(b, uint32(i))
			client.Write(b)
		}
	}()
	var got flooded
	buf := make([]byte, 2000)
	for {
		server.SetReadDeadline(time.Now().Add(2 * time.Second))
		n, _, err := server.ReadFrom(buf)
		if err != nil {
			return got
		}
		i := int64(binary.BigEndian.Uint32(buf[:n]))
		got.received++
		if i+1 < next.Load() {
			got.late++
		}
		next.Store(max(next.Load(), i+1))
	}
}

func TestLinkDelay(t *testing.T) {
	nodes := newNamespaces(t, 2)
	link := newUnderlay(t, UnderlayConfig{Faults: Faults{Delay: 30 * time.Millisecond}}, nodes...).Link()
	mustPing(t, nodes[0], NodeAddr4(2).Addr(), 56)
	shortest := time.Hour
	for range 10 {
		shortest = min(shortest, mustPing(t, nodes[0], NodeAddr4(2).Addr(), 56))
	}
	if shortest < 60*time.Millisecond || shortest > 90*time.Millisecond {
		t.Errorf("round trip with 30 ms each way: %s", shortest)
	}
	link.SetFaults(Faults{})
	eventually(t, "fast again", func() bool { return mustPing(t, nodes[0], NodeAddr4(2).Addr(), 56) < 30*time.Millisecond })
}

// TCP gets everything across a bad link.
func TestLinkTCP(t *testing.T) {
	nodes := newNamespaces(t, 2)
	bad := Faults{Seed: 3, Loss: 0.01, Reorder: 0.01, Duplicate: 0.01, Corrupt: 0.01, Delay: time.Millisecond, Jitter: time.Millisecond}
	link := newUnderlay(t, UnderlayConfig{Faults: bad}, nodes...).Link()
	transfer(t, nodes[0], nodes[1], NodeAddr4(2).Addr(), 2<<20)
	c := link.Counters(0, 1)
	if c.Lost == 0 || c.Reordered == 0 || c.Duplicated == 0 || c.Corrupted == 0 {
		t.Errorf("counters: %+v", c)
	}
	t.Log(link)
}

func TestLinkPartition(t *testing.T) {
	nodes := newNamespaces(t, 3)
	link := newUnderlay(t, UnderlayConfig{Userspace: true}, nodes...).Link()
	addr := func(i int) netip.Addr { return NodeAddr4(i + 1).Addr() }
	link.Partition(2)
	mustPing(t, nodes[0], addr(1), 56)
	mustNotPing(t, nodes[0], addr(2))
	mustNotPing(t, nodes[2], addr(1))
	link.Partition(0)
	mustPing(t, nodes[1], addr(2), 56)
	mustNotPing(t, nodes[0], addr(1))
	link.Heal()
	for i := range nodes {
		mustPing(t, nodes[i], addr((i+1)%3), 56)
	}
	if c := link.Counters(0, 2); c.Cut == 0 {
		t.Errorf("counters: %+v", c)
	}
	link.SetFaultsBetween(0, 1, Faults{Loss: 1})
	mustNotPing(t, nodes[0], addr(1))
	mustPing(t, nodes[0], addr(2), 56)
}

// A frame to a known address goes to one node only, all others to everybody.
func TestLinkSwitches(t *testing.T) {
	nodes := newNamespaces(t, 3)
	link := newUnderlay(t, UnderlayConfig{Userspace: true}, nodes...).Link()
	mustPing(t, nodes[0], NodeAddr4(2).Addr(), 56)
	before := link.Counters(0, 2).Frames
	if before == 0 {
		t.Error("the third node did not see the ARP request")
	}
	for range 50 {
		mustPing(t, nodes[0], NodeAddr4(2).Addr(), 56)
	}
	if seen := link.Counters(0, 2).Frames - before; seen > 5 {
		t.Errorf("the third node saw %d frames of a ping between two others", seen)
	}
}

func TestMACTable(t *testing.T) {
	var table macTable
	a, b := macAddr{2, 0, 0, 0, 0, 1}, macAddr{2, 0, 0, 0, 0, 2}
	group := macAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	table.learn(a, 1)
	table.learn(group, 3)
	for _, tt := range []struct {
		addr macAddr
		want string
	}{{a, "1 true"}, {b, "0 false"}, {group, "0 false"}} {
		if got := fmt.Sprint(table.lookup(tt.addr)); got != tt.want {
			t.Errorf("%x: got %s, want %s", tt.addr, got, tt.want)
		}
	}
	table.learn(a, 2)
	if port, _ := table.lookup(a); port != 2 {
		t.Errorf("moved address: got port %d, want 2", port)
	}
	for i := range 3 * maxLearned {
		table.learn(macAddr{2, 1, byte(i >> 16), byte(i >> 8), byte(i)}, 0)
	}
	if len(table.ports) > maxLearned {
		t.Errorf("%d addresses learned", len(table.ports))
	}
}

// Closing while traffic flows ends everything; a second underlay can take its place.
func TestLinkCloseUnderLoad(t *testing.T) {
	nodes := newNamespaces(t, 2)
	for range 5 {
		u := newUnderlay(t, UnderlayConfig{Faults: Faults{Reorder: 0.5, Delay: time.Millisecond}}, nodes...)
		c, err := nodes[0].Dial(t.Context(), "udp", "192.168.254.12:9")
		if err != nil {
			t.Fatal(err)
		}
		for range 500 {
			c.Write(make([]byte, 1000))
		}
		c.Close()
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	}
}
