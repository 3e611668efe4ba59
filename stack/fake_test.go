package stack

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/middleway-net/middleway/stack/fib"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/tap"
	"github.com/middleway-net/middleway/stack/tun/tuntest"
)

// Addresses of the plan: two pods of this node, one of a peer.
var (
	podA    = netip.MustParseAddr("10.244.1.2")
	podA6   = netip.MustParseAddr("fd00:10:244:1::2")
	podB    = netip.MustParseAddr("10.244.1.3")
	podB6   = netip.MustParseAddr("fd00:10:244:1::3")
	farPod  = netip.MustParseAddr("10.244.2.2")
	farPod6 = netip.MustParseAddr("fd00:10:244:2::2")
	peer2   = netip.MustParseAddr("192.168.254.12")
	peer3   = netip.MustParseAddr("192.168.254.13")
	peer2b  = netip.MustParseAddr("198.51.100.12") // of peer2, not on the underlay

	gateway  = netip.MustParseAddr("10.244.1.1")
	gateway6 = netip.MustParseAddr("fd00:10:244:1::1")
)

// testMTU is that of the pods and of the way to peers.
const testMTU = 1450

var peerRoutes = []fib.Route{
	{Prefix: netip.MustParsePrefix("10.244.2.0/24"), Destination: fib.Destination{Kind: fib.Peer, Peer: peer2}},
	{Prefix: netip.MustParsePrefix("fd00:10:244:2::/64"), Destination: fib.Destination{Kind: fib.Peer, Peer: peer2}},
	{Prefix: netip.MustParsePrefix("10.244.3.0/24"), Destination: fib.Destination{Kind: fib.Peer, Peer: peer3}},
}

// sent is a packet that a fake port was given.
type sent struct {
	peer   netip.Addr
	packet []byte
}

// fakePort is a port in memory, whose descriptor is that of a device's queue: a test injects what peers send.
type fakePort struct {
	queue   *tuntest.Queue // nil: sends only
	drops   packet.Drops
	parsed  packet.Parsed
	pending []*packet.Buffer
	taps    tap.Writers
	midway  bool // Tap was called between Send and Flush

	mu   sync.Mutex
	sent []sent
}

func (p *fakePort) FD() int {
	if p.queue == nil {
		return -1
	}
	return p.queue.FD()
}

func (p *fakePort) Receive(deliver func([]byte, *packet.Parsed, packet.Offload)) (n int) {
	buf := make([]byte, 1<<16)
	for {
		size, err := p.queue.Read(buf)
		if err != nil {
			return n
		}
		n++
		frame := append([]byte(nil), buf[:size]...)
		r := packet.Parse(frame[packet.VnetLen:], &p.parsed)
		p.taps.Enter(tap.Place{Layer: tap.Tunnel}, tap.Packet{P: &p.parsed, Body: frame[packet.VnetLen:], Bare: true})
		if r != packet.Kept {
			p.drops.Add(r, 1)
			p.taps.Dropped(r, 1)
			continue
		}
		deliver(frame, &p.parsed, packet.Offload{})
	}
}

func (p *fakePort) Send(b *packet.Buffer, parsed *packet.Parsed, _ packet.Offload, to netip.Addr) {
	p.mu.Lock()
	p.sent = append(p.sent, sent{to, append([]byte(nil), b.Packet()...)})
	p.mu.Unlock()
	p.pending = append(p.pending, b)
	p.taps.Leave(tap.Place{Layer: tap.Tunnel, Peer: to}, tap.Packet{P: parsed, Body: b.Packet(), Bare: true}, 0)
}

func (p *fakePort) Flush() {
	for _, b := range p.pending {
		b.Release()
	}
	p.pending = p.pending[:0]
}

func (p *fakePort) MTU(netip.Addr) int { return testMTU }

func (p *fakePort) Describe(to netip.Addr) string { return "the fake tunnel to " + to.String() }

func (p *fakePort) Drops() *packet.Drops { return &p.drops }

func (p *fakePort) Tap(ws tap.Writers) {
	p.taps, p.midway = ws, p.midway || len(p.pending) > 0
}

// fakeNode keeps what is delivered to the node.
type fakeNode struct {
	mu  sync.Mutex
	got [][]byte
}

func (n *fakeNode) Deliver(b []byte, _ *packet.Parsed, _ packet.Offload) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.got = append(n.got, append([]byte(nil), b...))
}

// bed is a stack between two pods in memory and two peers.
type bed struct {
	*Stack
	a, b  *tuntest.Device
	host  *tuntest.Device // nil unless the host is attached
	wire  *tuntest.Device // queue w is what port w receives
	ports []*fakePort
	node  *fakeNode
	out   *fakeNode // Outside of newOutsideBed; else nil
	idA   uint32

	dropped map[string]uint64 // counted when outcome looked last
	errors  []answered        // ICMP errors that outcome came across
	tally   *tally            // nil in benchmarks
}

// newBed returns a bed. In tests a tap looks on.
func newBed(t testing.TB, workers int, change ...func(*Config)) *bed {
	t.Helper()
	d := bareBed(t, workers, change...)
	if t, ok := t.(*testing.T); ok {
		d.lookOn(t)
	}
	return d
}

// bareBed returns a bed on which nobody looks.
func bareBed(t testing.TB, workers int, change ...func(*Config)) *bed {
	t.Helper()
	d := &bed{a: device(t, workers), b: device(t, workers), wire: device(t, workers), node: &fakeNode{}, dropped: map[string]uint64{}}
	c := Config{Workers: workers, Node: d.node, NodeAddrs: []netip.Addr{gateway, gateway6}, ServiceCIDRs: serviceRanges, MTU: testMTU}
	c.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:10:244:1::/64")}
	for i := range workers + 1 {
		p := &fakePort{}
		if i < workers {
			p.queue = d.wire.Queues()[i]
		}
		d.ports = append(d.ports, p)
		c.Ports = append(c.Ports, p)
	}
	for _, f := range change {
		f(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	d.Stack = s
	if err := s.SetRoutes(peerRoutes); err != nil {
		t.Fatal(err)
	}
	d.idA = d.attach(t, "a", d.a, podA, podA6)
	d.attach(t, "b", d.b, podB, podB6)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func device(t testing.TB, queues int) *tuntest.Device {
	t.Helper()
	d, err := tuntest.New(queues)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *bed) attach(t testing.TB, name string, dev *tuntest.Device, addrs ...netip.Addr) uint32 {
	t.Helper()
	var queues []Queue
	for _, q := range dev.Queues() {
		queues = append(queues, q)
	}
	id, err := d.Attach(Attachment{Name: name, Addrs: addrs, Queues: queues, Device: dev})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// run runs the stack until the end of the test, which fails if it does not end cleanly.
func (d *bed) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(5 * time.Second):
			t.Error("Run does not end")
		}
	})
}

// sentTo returns what was sent to peers since the last call.
func (d *bed) sentTo() (all []sent) {
	for _, p := range d.ports {
		p.mu.Lock()
		all = append(all, p.sent...)
		p.sent = nil
		p.mu.Unlock()
	}
	return all
}

// eventually waits up to five seconds for ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(200 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 5 s: %s", what)
		}
	}
}
