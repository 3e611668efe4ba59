package proxy

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
)

// datagram is one of a pod whose number is in its address and port.
func datagram(pod int, port uint16, to netip.AddrPort, data []byte) packettest.Packet {
	src := netip.AddrFrom4([4]byte{10, 244, 1, byte(2 + pod)})
	return packettest.Packet{Src: src, Dst: to.Addr(), SrcPort: port, DstPort: to.Port(), Payload: data}
}

// descriptors returns how many this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

// TestManyFlows: flows of four pods, as many as there may be and then some, in bounded memory; each pod has its share, and afterwards
// nothing is left.
func TestManyFlows(t *testing.T) {
	to := serveUDP(t, local)
	before := descriptors(t)
	n := start(t, Config{})
	limit := n.udp.egress.limit
	if limit < 2048 {
		t.Skipf("this user may have %d descriptors", 2*limit)
	}
	heap := heapInUse()
	total := limit + limit/8
	go drain(n.out)
	for i := range total {
		n.deliver(datagram(i%4, uint16(1024+i/4), to, []byte("hello")).Frame())
		if i%256 == 255 { // as fast as sockets are opened
			eventually(t, "sockets are open", func() bool { return len(n.udp.egress.opening) == 0 })
		}
	}
	eventually(t, "all is sent", func() bool { s := n.Stats().UDP; return s.Sent+s.Dropped >= uint64(total) })
	s := n.Stats().UDP
	if s.Open > limit || s.Open < limit*9/10 || s.Evicted < uint64(limit/8) {
		t.Errorf("got %+v, want at most %d open and the rest evicted", s, limit)
	}
	per := (heapInUse() - heap) / s.Open
	t.Logf("%d flows, %d bytes of Go's memory each", s.Open, per)
	if per > 4<<10 {
		t.Errorf("a flow takes %d bytes", per)
	}
	for pod := range 4 {
		n.Forget(datagram(pod, 0, to, nil).Src)
	}
	eventually(t, "sockets are closed", func() bool { return descriptors(t) <= before+8 })
	if open := n.Stats().UDP.Open; open != 0 {
		t.Errorf("%d flows are left of pods that are gone", open)
	}
}

func heapInUse() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapInuse)
}

// drain takes packets.
func drain(from <-chan []byte) {
	for range from {
	}
}

// TestOnePodsShare: a pod that opens flows without end pushes out its own, not the other's.
func TestOnePodsShare(t *testing.T) {
	to := serveUDP(t, local)
	n := start(t, Config{})
	n.udp.egress.limit = 64
	n.deliver(datagram(1, 4000, to, []byte("hello")).Frame())
	receive(t, n.out)
	for i := range 500 {
		n.deliver(datagram(0, uint16(5000+i), to, []byte("hello")).Frame())
		receive(t, n.out)
	}
	greedy, modest := datagram(0, 0, to, nil).Src, datagram(1, 0, to, nil).Src
	if a, b := len(n.udp.egress.table.ofPod(greedy)), len(n.udp.egress.table.ofPod(modest)); a != 32 || b != 1 {
		t.Errorf("the greedy pod has %d flows and the other %d, want 32 and 1", a, b)
	}
}

// apart makes each socket at an address of its own, so that no late answer comes to the next one's port.
type apart struct{ made atomic.Uint32 }

func (a *apart) Socket(domain, typ, proto int) (int, error) {
	fd, err := unix.Socket(domain, typ, proto)
	if err != nil {
		return -1, err
	}
	i := a.made.Add(1)
	return fd, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 1 + byte(i>>16), byte(i >> 8), byte(i)}})
}

// TestFlowsComeAndGo: whichever flows end while workers send on them, no pod gets what is another's.
func TestFlowsComeAndGo(t *testing.T) {
	to := serveUDP(t, local)
	n := start(t, Config{Sockets: new(apart)})
	n.udp.egress.limit = 128
	var sending sync.WaitGroup
	var enough atomic.Bool
	for worker := range 4 {
		sending.Go(func() {
			r := rand.New(rand.NewPCG(uint64(worker), 0))
			for !enough.Load() {
				pod, port := r.IntN(4), uint16(4000+r.IntN(40))
				n.deliver(datagram(pod, port, to, fmt.Appendf(nil, "%d %d", pod, port)).Frame())
				if r.IntN(2000) == 0 {
					n.Forget(datagram(pod, 0, to, nil).Src)
				}
				runtime.Gosched()
			}
		})
	}
	for answers := 0; answers < 5000; {
		b, h := receive(t, n.out)
		if h.Proto != packet.UDP {
			continue
		}
		answers++
		want := fmt.Sprintf("%d %d", h.Flow.Dst().As4()[3]-2, h.Flow.DstPort())
		if got := string(packet.UDPPayload(b, &h)); got != want {
			t.Fatalf("%s got what is %s's", want, got)
		}
	}
	enough.Store(true)
	go drain(n.out)
	sending.Wait()
	eventually(t, "nothing waits", func() bool { return len(n.udp.egress.opening) == 0 && n.udp.egress.waiting.Load() == 0 })
}

// TestIdle: a flow without an answer ends after half a minute, an answered one after three.
func TestIdle(t *testing.T) {
	to := serveUDP(t, local)
	silent, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0)))
	must(t, err)
	defer silent.Close()
	n := start(t, Config{})
	e := &n.udp.egress
	n.deliver(datagram(0, 4000, to, nil).Frame())
	receive(t, n.out)
	n.deliver(datagram(0, 4001, silent.LocalAddr().(*net.UDPAddr).AddrPort(), nil).Frame())
	eventually(t, "both are sent", func() bool { return n.Stats().UDP.Sent == 2 })
	for _, tt := range []struct {
		after time.Duration
		want  int
	}{{udpOneWay, 2}, {udpOneWay + 5*time.Second, 1}, {udpAnswered, 1}, {udpAnswered + 5*time.Second, 0}} {
		now := e.now.Load()
		for _, f := range e.table.ofPod(podA) {
			f.seen.Store(now - uint32(tt.after/time.Second))
		}
		e.sweepIdle()
		if got := n.Stats().UDP.Open; got != tt.want {
			t.Errorf("after %v: %d flows, want %d", tt.after, got, tt.want)
		}
	}
}

// scarce hands out a number of sockets and then fails.
type scarce struct {
	left atomic.Int64
	err  error
}

func (s *scarce) Socket(domain, typ, proto int) (int, error) {
	if s.left.Add(-1) < 0 {
		return -1, s.err
	}
	return unix.Socket(domain, typ, proto)
}

// TestNoDescriptors: where there are no more, an older flow gives up its own.
func TestNoDescriptors(t *testing.T) {
	to := serveUDP(t, local)
	few := &scarce{err: unix.EMFILE}
	few.left.Store(3)
	n := start(t, Config{Sockets: few})
	for i := range 3 {
		n.deliver(datagram(0, uint16(4000+i), to, nil).Frame())
		receive(t, n.out)
	}
	n.deliver(datagram(0, 4003, to, nil).Frame()) // the evicted one's place is free, but no socket is made
	eventually(t, "the fourth fails", func() bool { return n.Stats().UDP.Failed == 1 })
	if s := n.Stats().UDP; s.Evicted != 1 || s.Open != 2 || s.Dropped != 1 {
		t.Errorf("got %+v, want one evicted, two open, one packet dropped", s)
	}
	few.left.Store(1)
	n.deliver(datagram(0, 4004, to, nil).Frame())
	receive(t, n.out)
}

// TestPingForbidden: the pod is told, and what to do about it is said once.
func TestPingForbidden(t *testing.T) {
	n := start(t, Config{Sockets: &scarce{err: unix.EACCES}})
	to := netip.MustParseAddr("203.0.113.7")
	for seq := range uint16(3) {
		n.deliver(echoRequest(podA, to, 5, seq, 64, nil))
		about := packet.NewFlow(packet.ICMP, netip.AddrPortFrom(podA, 5), netip.AddrPortFrom(to, 5))
		if kind, _ := expectError(t, n.own, about, gateway); kind != [2]byte{3, 13} {
			t.Errorf("got %v, want 3/13", kind)
		}
	}
	err := n.echo.egress.noSocket(unix.EACCES)
	if !strings.Contains(err.Error(), "net.ipv4.ping_group_range") {
		t.Errorf("got %q, which does not say what to do", err)
	}
}

// TestPodClosesPort: who outside sends to a pod that does not listen any more is refused.
func TestPodClosesPort(t *testing.T) {
	n := start(t, Config{})
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0)))
	must(t, err)
	defer conn.Close()
	to := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	n.deliver(datagram(0, 4000, to, []byte("hello")).Frame())
	b := make([]byte, 10)
	_, from, err := conn.ReadFromUDPAddrPort(b)
	must(t, err)
	_, err = conn.WriteToUDPAddrPort(b, from)
	must(t, err)
	answer, h := receive(t, n.out)
	n.deliver(portUnreachable(answer, h))
	eventually(t, "the flow is gone", func() bool { return n.Stats().UDP.Open == 0 })
	peer, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(from))
	must(t, err)
	defer peer.Close()
	_, _ = peer.Write(b)
	must(t, peer.SetReadDeadline(time.Now().Add(10*time.Second)))
	if _, err := peer.Read(b); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("got %v, want refused", err)
	}
}

// portUnreachable returns the error of the receiver of IPv4 packet b.
func portUnreachable(b []byte, h packet.Parsed) []byte {
	message := append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, b...)
	binary.BigEndian.PutUint16(message[2:], ^packet.Checksum(message, 0))
	outer := packet.Header{Src: h.Flow.Dst(), Dst: h.Flow.Src(), Proto: packet.ICMP, TTL: 64}
	frame := make([]byte, packet.VnetLen+packet.MaxHeader)
	at := outer.Put(frame[packet.VnetLen:], len(message))
	return append(frame[:packet.VnetLen+at], message...)
}

// TestEgressAllocs: a packet of a flow that is open costs no memory, nor does an answer through a listener.
func TestEgressAllocs(t *testing.T) {
	n := start(t, Config{})
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0)))
	must(t, err)
	defer conn.Close()
	to := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	front := netip.AddrPortFrom(local, closedPort(t, local))
	n.SetListeners(map[Listener]string{{Addr: front, Proto: packet.UDP}: "default/dns"})
	eventually(t, "the listener is open", func() bool { return n.Stats().Listeners == 1 })
	for name, d := range map[string]packettest.Packet{
		"egress":   datagram(0, 4000, to, pattern(100)),
		"listener": {Src: front.Addr(), SrcPort: front.Port(), Dst: to.Addr(), DstPort: to.Port(), Payload: pattern(100)},
	} {
		for kind, frame := range map[string][]byte{"datagram": d.Frame(), "train": d.Super(30)} {
			o, _ := packet.DecodeOffload(frame)
			var h packet.Parsed
			packet.Parse(frame[packet.VnetLen:], &h)
			n.Deliver(frame[packet.VnetLen:], &h, o)
			eventually(t, "the socket is open", func() bool { s := n.Stats().UDP; return s.Sent+s.ListenersSent > 0 })
			if got := testing.AllocsPerRun(100, func() { n.Deliver(frame[packet.VnetLen:], &h, o) }); got != 0 {
				t.Errorf("%s, %s: got %v allocations, want 0", name, kind, got)
			}
		}
	}
}
