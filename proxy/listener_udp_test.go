package proxy

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
)

// listen has a node listen at a port of an address that is free, and returns both.
func listen(t *testing.T, n *node, l Listener) netip.AddrPort {
	t.Helper()
	l.Addr, l.Proto = netip.AddrPortFrom(l.Addr.Addr(), closedPort(t, l.Addr.Addr())), packet.UDP
	n.SetListeners(map[Listener]string{l: "default/dns"})
	eventually(t, "the listener is open", func() bool { return n.Stats().Listeners == 1 })
	return l.Addr
}

// dial returns a client's socket.
func dial(t *testing.T, to netip.AddrPort) (*net.UDPConn, netip.AddrPort) {
	t.Helper()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	return conn, conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// TestSilentListener: who sends from outside is not refused, and nothing comes, but what the host sends itself; it may serve later, with
// the same socket.
func TestSilentListener(t *testing.T) {
	for _, tt := range families {
		t.Run(tt.name, func(t *testing.T) {
			n := start(t, Config{})
			front := listen(t, n, Listener{Addr: netip.AddrPortFrom(tt.outside, 0), Silent: true})
			client, from := dial(t, front)
			stranger := dialElsewhere(t, front)
			for range 3 { // a refusal of the first would fail the second
				_, err := stranger.Write([]byte("lost"))
				must(t, err)
			}
			_, err := client.Write([]byte("the host's own"))
			must(t, err)
			if got := expectDatagram(t, n.out, from, front); string(got) != "the host's own" {
				t.Errorf("got %q, which came from outside", got)
			}
			n.SetListeners(map[Listener]string{{Addr: front, Proto: packet.UDP}: "default/dns"})
			eventually(t, "it serves", func() bool {
				_, err := stranger.Write([]byte("question"))
				must(t, err)
				time.Sleep(time.Millisecond)
				return len(n.out) > 0
			})
			if got := expectDatagram(t, n.out, stranger.LocalAddr().(*net.UDPAddr).AddrPort(), front); string(got) != "question" {
				t.Errorf("got %q, which came before it served", got)
			}
			n.SetListeners(nil)
			eventually(t, "clients are refused", func() bool {
				_, err := client.Write([]byte("nobody"))
				return err != nil && strings.Contains(err.Error(), "refused")
			})
		})
	}
}

// dialElsewhere returns the socket of a client whose address is another one than the listener's.
func dialElsewhere(t *testing.T, to netip.AddrPort) net.Conn {
	t.Helper()
	as := netip.MustParseAddr("2001:db8::7")
	if to.Addr().Is4() {
		as = netip.MustParseAddr("127.0.0.7") // the kernel has a route back to it
	}
	d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(as, 0)), Control: func(_, _ string, c syscall.RawConn) (err error) {
		return errors.Join(c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1) }), err)
	}}
	conn, err := d.DialContext(t.Context(), "udp", to.String())
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestListenerTakenPort: a port of another program is told of, with what it is for, and taken when it is free.
func TestListenerTakenPort(t *testing.T) {
	other, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0)))
	must(t, err)
	var mu sync.Mutex
	var told []string
	n := start(t, Config{Problem: func(l Listener, who string, err error) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, who+": "+text(err))
	}})
	front := other.LocalAddr().(*net.UDPAddr).AddrPort()
	n.SetListeners(map[Listener]string{{Addr: front, Proto: packet.UDP}: "default/dns"})
	eventually(t, "the problem is told", func() bool { return n.Stats().Problems == 1 })
	other.Close()
	eventually(t, "the listener is open", func() bool { return n.Stats().Listeners == 1 })
	mu.Lock()
	defer mu.Unlock()
	if len(told) != 2 || !strings.Contains(told[0], "default/dns: ") || !strings.Contains(told[0], "another program") || told[1] != "default/dns: " {
		t.Errorf("got %q, want the problem and its end", told)
	}
}

// TestListenerClientGone: the backend hears that its client has closed its port, as the worker will translate it.
func TestListenerClientGone(t *testing.T) {
	for _, tt := range families {
		t.Run(tt.name, func(t *testing.T) {
			n := start(t, Config{})
			every := netip.IPv6Unspecified()
			if tt.outside.Is4() {
				every = netip.IPv4Unspecified()
			}
			front := netip.AddrPortFrom(tt.outside, listen(t, n, Listener{Addr: netip.AddrPortFrom(every, 0)}).Port())
			gone := netip.AddrPortFrom(tt.outside, closedPort(t, tt.outside))
			d := packettest.Packet{Src: front.Addr(), SrcPort: front.Port(), Dst: gone.Addr(), DstPort: gone.Port(), Payload: []byte("answer")}
			for range 2 {
				n.deliver(d.Frame())
				kind, _ := expectError(t, n.out, packet.NewFlow(packet.UDP, front, gone), tt.outside)
				if want := map[bool][2]byte{true: {3, 3}, false: {1, 4}}[tt.pod.Is4()]; kind != want {
					t.Errorf("got %v, want %v", kind, want)
				}
			}
		})
	}
}

// TestListenerTrains: a client's and a backend's trains, which arrive in order.
func TestListenerTrains(t *testing.T) {
	for _, tt := range families {
		t.Run(tt.name, func(t *testing.T) {
			n := start(t, Config{})
			front := listen(t, n, Listener{Addr: netip.AddrPortFrom(tt.outside, 0)})
			client, from := dial(t, front)
			raw, err := client.SyscallConn()
			must(t, err)
			must(t, raw.Control(func(fd uintptr) {
				if err := unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, 500); err != nil {
					t.Error(err)
				}
			}))
			data := pattern(5100)
			_, err = client.Write(data)
			must(t, err)
			var got []byte
			for range 11 {
				got = append(got, expectDatagram(t, n.out, from, front)...)
			}
			if !slices.Equal(got, data) {
				t.Error("the client's datagrams are others")
			}
			n.deliver(packettest.Packet{Src: front.Addr(), SrcPort: front.Port(), Dst: from.Addr(), DstPort: from.Port(), Payload: data}.Super(500))
			got = nil
			b := make([]byte, 1000)
			for range 11 {
				size, err := client.Read(b)
				must(t, err)
				got = append(got, b[:size]...)
			}
			if !slices.Equal(got, data) {
				t.Error("the backend's datagrams are others")
			}
		})
	}
}

// TestListenersOfTwoNamespaces: clients that have the same address and port in both are answered where they asked last.
func TestListenersOfTwoNamespaces(t *testing.T) {
	all := JoinNamespaces(t, "parent", "peer")
	n := start(t, Config{Sockets: sockets{all[0]}})
	front := netip.AddrPortFrom(local, 30053)
	there, here := Listener{Addr: front, Proto: packet.UDP}, Listener{Addr: front, Proto: packet.UDP, Here: true}
	n.SetListeners(map[Listener]string{there: "default/dns", here: "default/dns"})
	eventually(t, "both are open", func() bool { return n.Stats().Listeners == 2 })
	ask := func() *net.UDPConn {
		conn, err := net.DialUDP("udp", &net.UDPAddr{IP: local.AsSlice(), Port: 4000}, net.UDPAddrFromAddrPort(front))
		must(t, err)
		must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	client := ask()
	var outer *net.UDPConn
	must(t, all[0].Do(func() error { outer = ask(); return nil }))
	from := netip.AddrPortFrom(local, 4000)
	for i, conn := range []*net.UDPConn{client, outer, client, client, outer, outer} {
		_, err := conn.Write([]byte{byte(i)})
		must(t, err)
		expectDatagram(t, n.out, from, front)
		n.deliver(packettest.Packet{Src: local, SrcPort: front.Port(), Dst: local, DstPort: 4000, Payload: []byte{byte(i)}}.Frame())
		b := make([]byte, 10)
		if size, err := conn.Read(b); err != nil || size != 1 || b[0] != byte(i) {
			t.Errorf("question %d: got %v, %v", i, b[:size], err)
		}
	}
}

// TestManyClients: 10,000 clients of one listener, about whom nothing is kept.
func TestManyClients(t *testing.T) {
	n := start(t, Config{})
	front := listen(t, n, Listener{Addr: netip.AddrPortFrom(local, 0)})
	before := descriptors(t)
	heap := heapInUse()
	const total = 10_000
	for i := range total {
		must(t, clientAsks(front, i))
		b, h := receive(t, n.out)
		if h.Flow.DstPort() != front.Port() || len(packet.UDPPayload(b, &h)) != 8 {
			t.Fatalf("client %d: got %x", i, b)
		}
	}
	if s := n.Stats().UDP; s.ListenersReceived != total || s.Open != 0 {
		t.Errorf("got %+v, want %d received and no flow", s, total)
	}
	if now := descriptors(t); now > before+4 {
		t.Errorf("%d descriptors, %d before", now, before)
	}
	if grown := heapInUse() - heap; grown > 1<<20 {
		t.Errorf("Go's memory grew by %d bytes", grown)
	}
}

// clientAsks sends a datagram from an address of its own for each client.
func clientAsks(front netip.AddrPort, i int) error {
	conn, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IP{127, 1, byte(i >> 8), byte(i)}}, net.UDPAddrFromAddrPort(front))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte("question"))
	return err
}
