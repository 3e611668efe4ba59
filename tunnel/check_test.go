package tunnel

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
	"github.com/middleway-net/middleway/tunnel/hello"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// memory is a network in memory between tunnels without sockets.
type memory struct {
	nodes map[netip.Addr]*Tunnel
	cut   atomic.Bool
	sent  atomic.Int64 // probes and answers
}

// sendFrom returns what sends messages of a node.
func (n *memory) sendFrom(from netip.Addr) sender {
	return func(p *peer, m hello.Message, probes []probe) {
		to := n.nodes[p.Addr]
		if to == nil || n.cut.Load() {
			return
		}
		if probes == nil {
			n.sent.Add(1)
			to.checks.arrivals <- arrival{from, m}
		}
		for i, pr := range probes {
			n.sent.Add(1)
			m.Part, m.Length = uint8(i), uint16(pr.size)
			to.checks.arrivals <- arrival{from, m}
		}
	}
}

func (n *memory) add(t *testing.T, local netip.Addr, peers ...netip.Addr) *Tunnel {
	tn := &Tunnel{
		config: Config{Local: local, Port: 8472, MTU: innerMTU}, log: slog.New(slog.DiscardHandler),
		uses: Offloads{Segment: true, RemoteChecksum: true},
	}
	tn.checks = newChecks(tn)
	tn.peers.Store(&peerTable{})
	n.nodes[local] = tn
	var list []Peer
	for _, a := range peers {
		list = append(list, Peer{Addr: a, Hello: true, Trains: true, RemoteChecksum: true})
	}
	if err := tn.SetPeers(list); err != nil {
		t.Fatal(err)
	}
	return tn
}

func states(tn *Tunnel) (s []State) {
	for _, p := range tn.Peers() {
		s = append(s, p.State)
	}
	return s
}

func expectStates(t *testing.T, tn *Tunnel, want ...State) {
	t.Helper()
	got := states(tn)
	same := len(got) == len(want)
	for i := range want {
		same = same && got[i] == want[i]
	}
	if !same {
		t.Errorf("after %v: %v, want %v", time.Now().Format("15:04:05"), got, want)
	}
}

// TestChecksRun: three nodes, one of which is not there, by the clock.
func TestChecksRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &memory{nodes: map[netip.Addr]*Tunnel{}}
		one, two := n.add(t, node1, node2, node3), n.add(t, node2, node1)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		for addr, tn := range n.nodes {
			running.Go(func() { tn.checks.run(ctx, n.sendFrom(addr)) })
		}
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		expectStates(t, one, Up, Unknown)
		expectStates(t, two, Up)
		n.sent.Store(0)
		time.Sleep(time.Minute)
		if sent := n.sent.Load(); sent < 2*5*2*5 || sent > 2*8*2*5 {
			t.Errorf("%d messages in a steady minute between two nodes", sent)
		}
		n.cut.Store(true)
		time.Sleep(steadyTime*6/5 + (patience+1)*answerTime)
		synctest.Wait()
		expectStates(t, one, Down, Unknown)
		n.cut.Store(false)
		time.Sleep(2 * answerTime)
		synctest.Wait()
		expectStates(t, one, Up, Unknown)
		if err := one.SetPeers([]Peer{{Addr: node2, Hello: true}}); err != nil {
			t.Fatal(err)
		}
		expectStates(t, one, Up) // what is known stays
		if err := one.SetPeers([]Peer{{Addr: node2}, {Addr: node3, Hello: true}}); err != nil {
			t.Fatal(err)
		}
		expectStates(t, one, Unknown, Unknown) // another kind of peer is another peer
		time.Sleep(time.Minute)
		expectStates(t, one, Unknown, Unknown)
		cancel()
		running.Wait()
	})
}

// TestChecksSpread: nodes that are told of many peers at once do not ask them at once, neither at first nor when none answers:
// more answers than wait would be lost.
func TestChecksSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const peers = 2000
		var all []netip.Addr
		for i := range peers {
			all = append(all, netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}))
		}
		n := &memory{nodes: map[netip.Addr]*Tunnel{}}
		tn := n.add(t, node1, all...)
		start, burst, asked := time.Now(), map[time.Duration]int{}, map[netip.Addr]int{}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			tn.checks.run(ctx, func(p *peer, _ hello.Message, _ []probe) {
				burst[time.Since(start)/(10*time.Millisecond)]++
				asked[p.Addr]++
			})
			close(done)
		}()
		time.Sleep(5 * time.Second)
		cancel()
		<-done
		for at, n := range burst {
			if n > maxArrivals/4 {
				t.Errorf("%d rounds begin in the 10 ms after %v", n, at*10*time.Millisecond)
			}
		}
		for _, a := range all {
			if asked[a] < 2 {
				t.Fatalf("%v was asked %d times in 5 s", a, asked[a])
			}
		}
	})
}

// run runs a worker's port and the checks of a tunnel until the end of the test. The tunnel is closed afterwards.
func run(t *testing.T, tn *Tunnel) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			if tn.Port(0).Receive(func([]byte, *packet.Parsed, packet.Offload) {}) == 0 {
				time.Sleep(100 * time.Microsecond)
			}
		}
	})
	running.Go(func() {
		if err := tn.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
}

// awaitPeers waits until what a tunnel knows of its only peer is as wanted.
func awaitPeers(t *testing.T, tn *Tunnel, what string, ok func(PeerStatus) bool) PeerStatus {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		p := tn.Peers()[0]
		if ok(p) {
			return p
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not come true: %+v", what, p)
		}
	}
}

func isUp(p PeerStatus) bool { return p.State == Up && p.RTT > 0 }

// TestHello: over sockets, with everything that a probe is made of.
func TestHello(t *testing.T) {
	one, two := pair(t, func(p *Peer) { p.Hello, p.Name = true, "other" })
	run(t, one)
	run(t, two)
	for _, tn := range []*Tunnel{one, two} {
		p := awaitPeers(t, tn, "trains and all", func(p PeerStatus) bool { return isUp(p) && p.Trains && p.RemoteChecksum })
		if p.Name != "other" || p.MTU != innerMTU || p.Why != "" || tn.Port(1).MTU(p.Addr) != innerMTU {
			t.Errorf("%+v", p)
		}
	}
	if got := one.Port(1).MTU(node3); got != innerMTU {
		t.Errorf("MTU toward no peer: %d", got)
	}
}

// TestHelloOfStranger: who sends from a peer's address without knowing a nonce of ours changes nothing that we know of the peer.
func TestHelloOfStranger(t *testing.T) {
	one, two := pair(t, func(p *Peer) { p.Hello = true })
	stranger, err := net.DialUDP("udp4", &net.UDPAddr{IP: node2.AsSlice()}, &net.UDPAddr{IP: node1.AsSlice(), Port: int(two.config.Port)})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	run(t, one)
	run(t, two)
	awaitPeers(t, one, "the peer answers with trains and all", func(p PeerStatus) bool { return isUp(p) && p.Trains && p.RemoteChecksum })
	write := func(b []byte) {
		if _, err := stranger.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	last := helloDatagram() // counted when all before it have been handed over
	last[8] ^= 4
	for times := range uint64(20) { // a round under way hides what one time did
		for _, kind := range []hello.Kind{hello.Probe, hello.Answer} {
			forged := helloDatagram()
			m := hello.Message{Version: 1, Kind: kind, MTU: hello.LeastMTU, Length: hello.HeaderLen, Instance: 9, Nonce: 7}
			m.Encode(forged[vxlan.Overhead:])
			write(forged)
			write(forged)
		}
		write(last)
		for end := time.Now().Add(10 * time.Second); one.Port(0).Drops()[packet.DropVTEP].Load() <= times || len(one.checks.arrivals) > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the stranger's messages are not taken")
			}
		}
		if p := one.Peers()[0]; p.State != Up || p.MTU != innerMTU || !p.Trains || !p.RemoteChecksum || p.Why != "" {
			t.Fatalf("%+v", p)
		}
	}
}

// TestOlderPeer: one that knows nothing of hello gets what the configuration says.
func TestOlderPeer(t *testing.T) {
	one, two := pair(t, func(p *Peer) { p.Hello, p.Trains, p.RemoteChecksum = p.Addr == node2, true, true })
	run(t, one)
	run(t, two)
	for end := time.Now().Add(10 * time.Second); two.Port(0).Drops()[packet.DropHello].Load() < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the older peer was not asked twice")
		}
	}
	p := one.Peers()[0]
	if p.State != Unknown || !p.Trains || !p.RemoteChecksum || p.MTU != innerMTU || !strings.Contains(p.Why, "may be down or older") {
		t.Errorf("%+v", p)
	}
}

// TestRouteRefusesTrains: the reason is told, datagrams go one by one, and the route is tried again.
func TestRouteRefusesTrains(t *testing.T) {
	one, two := pair(t, func(p *Peer) { p.Hello = true })
	refuse := func(on int) { // without checksums the kernel refuses UDP_SEGMENT
		fds := []int{one.herald.conn.FD()}
		for _, l := range one.Port(0).lanes {
			fds = append(fds, l.conn.FD())
		}
		for _, fd := range fds {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, on); err != nil {
				t.Fatal(err)
			}
		}
	}
	refuse(1)
	run(t, one)
	run(t, two)
	awaitPeers(t, one, "the refusal is told", func(p PeerStatus) bool {
		return isUp(p) && !p.Trains && strings.Contains(p.Why, "the route refuses trains of datagrams (UDP_SEGMENT): invalid argument")
	})
	refuse(0)
	awaitPeers(t, one, "trains again", func(p PeerStatus) bool { return p.Trains && p.Why == "" })
}

// TestKernelPeerRefusal: the route to a peer that answers no checks is tried again too.
func TestKernelPeerRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &memory{nodes: map[netip.Addr]*Tunnel{}}
		tn := n.add(t, node1)
		if err := tn.SetPeers([]Peer{{Addr: node2, Trains: true, Unfinished: true}}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { tn.checks.run(ctx, n.sendFrom(node1)); close(done) }()
		time.Sleep(time.Second)
		if p := tn.Peers()[0]; !p.Trains || p.Why != "a kernel's VXLAN device answers no checks" {
			t.Errorf("%+v", p)
		}
		tn.peers.Load().byAddr[node2].to.Refuse(unix.EIO)
		if p := tn.Peers()[0]; p.Trains {
			t.Errorf("%+v", p)
		}
		time.Sleep(3 * steadyTime)
		if p := tn.Peers()[0]; !p.Trains || strings.Contains(p.Why, "refuses") {
			t.Errorf("%+v", p)
		}
		cancel()
		<-done
	})
}

// TestSmallerMTU: a packet for a peer with a smaller MTU is judged by that.
func TestSmallerMTU(t *testing.T) {
	one, _ := pair(t, func(p *Peer) { p.Trains = true })
	one.peers.Load().byAddr[node2].mtu.Store(1300)
	var pool packet.Pool
	for _, tt := range []struct {
		frame []byte
		drops uint64
	}{
		{packettest.Packet{Src: pod1, Dst: pod2, Payload: make([]byte, 1300-28)}.Frame(), 0},
		{packettest.Packet{Src: pod1, Dst: pod2, Payload: make([]byte, 1300-27)}.Frame(), 1},
		{packettest.Packet{Src: pod1, Dst: pod2, Payload: make([]byte, 5000)}.Super(1300 - 28), 1},
		{packettest.Packet{Src: pod1, Dst: pod2, Payload: make([]byte, 5000)}.Super(1300 - 27), 2},
	} {
		send(one, &pool, tt.frame, node2)
		if got := one.Port(0).Drops()[packet.DropTooBig].Load(); got != tt.drops {
			t.Errorf("%d bytes: %d packets are too big, want %d", len(tt.frame), got, tt.drops)
		}
	}
}

// helloDatagram is a probe of node 2.
func helloDatagram() []byte {
	h := vxlan.Header{VNI: vxlan.DefaultVNI, Dst: mac1, Src: mac2, Type: vxlan.EtherTypeLocal}
	b := make([]byte, vxlan.Overhead+hello.HeaderLen)
	h.Encode(b)
	m := hello.Message{Version: 1, Kind: hello.Probe, MTU: innerMTU, Length: hello.HeaderLen, Instance: 3, Nonce: 7}
	m.Encode(b[vxlan.Overhead:])
	return b
}

// TestHandOver: a worker hands messages over without waiting, and only those of peers that send them.
func TestHandOver(t *testing.T) {
	p, from := fakeEnd()
	b := helloDatagram()
	if _, _, reason := p.open(b, from); reason != packet.DropHello {
		t.Errorf("from a peer that sends none: %v", reason)
	}
	from.Hello = true
	p.t.checks.arrivals = make(chan arrival, maxArrivals)
	var message bool
	var reason packet.DropReason
	allocs := testing.AllocsPerRun(maxArrivals-2, func() { _, message, reason = p.open(b, from) })
	if reason != packet.Kept || !message || allocs != 0 {
		t.Errorf("%v with %v allocations", reason, allocs)
	}
	for range 2 {
		_, message, reason = p.open(b, from)
	}
	if reason != packet.DropHello {
		t.Errorf("more than there is room for: %v", reason)
	}
	for name, edit := range map[string]func([]byte){
		"cut off":   func(b []byte) { b[vxlan.Overhead+11]++ },
		"magic":     func(b []byte) { b[vxlan.Overhead] = 0 },
		"other VNI": func(b []byte) { b[6] = 9 },
	} {
		spoiled := helloDatagram()
		edit(spoiled)
		if _, _, reason := p.open(spoiled, from); reason != packet.DropHello && reason != packet.DropVNI {
			t.Errorf("%s: %v", name, reason)
		}
	}
}
